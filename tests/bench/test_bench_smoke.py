"""The benchmark itself works: every figure is measured, with tiny numbers and no word on speed."""

import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.bench import price
from tests.bench.__main__ import PRICE
from tests.bench.client import Link
from tests.bench.figures import TARGETS, BenchError, Figure, Target, lines, percentile
from tests.bench.measures import MEASURES
from tests.bench.report import table
from tests.bench.usage import Cpu, Usage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("names", [tuple(MEASURES), (PRICE,)], ids=["measures", PRICE])
def test_the_benchmark_measures_every_figure(tmp_path: Path, names: tuple[str, ...]) -> None:
    file = tmp_path / "figures.json"
    only = ("--only", ",".join(names))
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--json", str(file), *only],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = orjson.loads(file.read_bytes())
    assert "fsync on, synchronous_commit on" in written["about"]["PostgreSQL"]
    figures = {(one["measure"], one["figure"]): one for one in written["figures"]}
    assert {measure for measure, _ in figures} == set(names)
    for key in (key for key in TARGETS if key[0] in names):
        assert figures[key]["met"] in (True, False)
        assert figures[key]["median"] > 0 or key[0] in ("idle", "price")
    assert re.search(rf"\| {names[-1]} +\| .+ \| ", done.stdout)


def test_an_unknown_measure_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--only", "bulk,drian"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "'drian' is none of bulk, drain" in done.stderr


class Inbox:
    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []

    def answered(self, _link: Link, status: int, body: bytes) -> None:
        self.answers.append((status, body))

    def lost(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_client_puts_answers_together_from_pieces_of_any_size(size: int) -> None:
    link, inbox = Link(), Inbox()
    link.owner = inbox
    for status, body in ((201, b'{"a": 1}'), (409, b"")):
        head = f"HTTP/1.1 {status} X\r\nA: b\r\nContent-Length: {len(body)}\r\nC: d\r\n\r\n"
        whole = head.encode() + body
        for at in range(0, len(whole), size):
            link.data_received(whole[at : at + size])
    assert inbox.answers == [(201, b'{"a": 1}'), (409, b"")]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, p) for p in (50, 99, 100)] == [50.0, 99.0, 100.0]
    assert percentile([3.0], 99) == 3.0
    with pytest.raises(BenchError):
        percentile([], 50)


def test_the_median_of_the_runs_is_held_against_the_target() -> None:
    runs = [[Figure("drain", "rate", value, "jobs/s", 10)] for value in (9000, 20_000, 13_000)]
    [line] = lines(runs)
    assert line.median == 13_000
    text = table([line])
    assert "13,000 | 9,000 to 20,000" in text
    assert "≥ 12,000 | met " in text


@pytest.mark.parametrize(
    ("sign", "met"),
    [("≥", (False, True, True)), ("≤", (True, True, False)), ("<", (True, False, False))],
)
def test_a_target_is_met_on_its_own_side(sign: str, met: tuple[bool, ...]) -> None:
    assert tuple(Target(2, sign).met(value) for value in (1, 2, 3)) == met


def test_what_a_way_costs_is_told_against_the_off_of_its_round() -> None:
    def turn(rate: float, server: float, spans: int) -> price.Turn:
        return price.Turn(rate, Cpu(server, 0.5, 0.1, 0.1, 5.0, 10.0), spans)

    turns = {price.ON: turn(970, 1.1, 7), price.OFF: turn(1000, 1.0, 0)}
    told = {one.name: round(one.value, 6) for one in price._told(turns, 1000)}
    assert told["off: CPU of the server"] == 1000
    assert told["on: drain lost"] == 3
    assert told["on: CPU of the server more"] == 10
    assert told["on: CPU of PostgreSQL more"] == 0
    assert told["on: attempts' spans"] == 7
    assert "off: drain lost" not in told


def test_cpu_is_told_from_before_the_resume_until_after_the_last_end() -> None:
    meter = price._Meter(Usage(1, 1, 1))
    meter.read = [(at, Cpu(at * 2, 0, 0, 0, 0, at)) for at in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert meter.between(2.5, 3.5) == Cpu(4.0, 0, 0, 0, 0, 2.0)
