"""`python -m tests.chaos`: a long run of faults under load, on servers of its own.

The exit status is 0 when every gate holds that follows from the faults which were chosen.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import click
import orjson

from penstock.cli.looping import run as run_work
from tests.chaos.nemesis import FAULTS, Span, Turn
from tests.chaos.run import QUICK, Plan, run
from tests.chaos.verdict import Verdict, shown
from tests.support.mix import Shape
from tests.support.servers import Servers

_QUICK_LONGEST_S = 3.0  # of a job
_TURN = re.compile(r"([a-z][a-z-]*[a-z])(\d+(?:\.\d+)?)?:(\d+)")


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0), help="Faults overlap, for so long.")
@click.option("--cycles", type=click.IntRange(min=1), help="So many of each fault, one by one.")
@click.option("--plan", "turns", metavar="a:N,b:N", help="As --cycles, e.g. kill:200,pg-pause30:5.")
@click.option("--faults", default="*", metavar="a,b", help="Names or globs.  [all]")
@click.option("--every", default="2..5", show_default=True, help="Seconds between two cycles.")
@click.option("--seed", type=int, help="Draws the same strikes and the same load.  [random]")
@click.option("--replicas", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--rate", default=150.0, show_default=True, help="Jobs a second.")
@click.option("--jobs", default=0, help="Goes on until so many were accepted.")
@click.option("--longest", type=float, help="Seconds of the longest job.  [20; 3 with --quick]")
@click.option("--quick", is_flag=True, help="Short times to live: more faults in less time.")
@click.option("--set", "sets", multiple=True, metavar="worker.ttl_s=5", help="Replicas' settings.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where logs go.")
@click.option("--list", "lists", is_flag=True, help="Show the faults.")
def main(
    minutes: float | None,
    cycles: int | None,
    turns: str | None,
    faults: str,
    every: str,
    seed: int | None,
    replicas: int,
    rate: float,
    jobs: int,
    longest: float | None,
    quick: bool,
    sets: tuple[str, ...],
    out: Path | None,
    lists: bool,
) -> None:
    """Break replicas, PostgreSQL, Redis and what connects them; then tell what came of it."""
    if lists:
        click.echo("\n".join(f"{name:<20} {_about(name)}" for name in FAULTS))
        return
    if [minutes, cycles, turns].count(None) != 2:
        raise click.UsageError("choose one of --minutes, --cycles and --plan")
    chosen = _chosen(faults)
    plan = Plan(
        seed=int(time.time()) if seed is None else seed,
        faults=chosen if minutes is not None else (),
        seconds=(minutes or 0.0) * 60,
        turns=_turns(turns) if turns else [Turn(name, cycles) for name in chosen if cycles],
        every=_range(every),
        replicas=replicas,
        per_s=rate,
        jobs=jobs,
        shape=Shape(longest_s=longest or (_QUICK_LONGEST_S if quick else Shape().longest_s)),
        settings={**(QUICK if quick else {}), **dict(_setting(text) for text in sets)},
    )
    sys.exit(0 if _passed(plan, out) else 1)


def _passed(plan: Plan, out: Path | None) -> bool:
    directory = out or Path(tempfile.mkdtemp(prefix="penstock-chaos-logs-"))
    directory.mkdir(parents=True, exist_ok=True)
    click.echo(f"seed {plan.seed}; logs in {directory}")
    with _servers() as servers:
        verdict = run_work(run(plan, servers, directory, click.echo))
    table = shown(verdict, plan.promise)
    (directory / "table.txt").write_text(f"{sys.argv[1:]}\n{table}\n")
    (directory / "verdict.json").write_bytes(_json(verdict))
    click.echo(f"\n{table}\nlogs in {directory}")
    return all(verdict.gates(plan.promise).values())


@contextmanager
def _servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as name:
        Path(name).chmod(0o711)  # PostgreSQL may have to run as `nobody`
        servers = Servers(Path(name))
        servers.start()
        try:
            yield servers
        finally:
            servers.stop()


def _json(verdict: Verdict) -> bytes:
    return orjson.dumps(asdict(verdict), option=orjson.OPT_INDENT_2)


def _about(name: str) -> str:
    kind = FAULTS[name]
    allows = ["losses"] * kind.loses + ["overlaps"] * kind.overlaps
    unit = "ttl" if kind.in_ttls else "s"
    lasts = f"{kind.lasts[0]:g} to {kind.lasts[1]:g} {unit}" if kind.lasts[1] else "at once"
    return f"{kind.lane:<14} {lasts:<16} allows {' and '.join(allows) or 'nothing'}"


def _chosen(globs: str) -> list[str]:
    found = []
    for glob in globs.split(","):
        names = [name for name in FAULTS if fnmatchcase(name, glob.strip())]
        if not names:
            raise click.BadParameter(f"{glob!r} is none of {', '.join(FAULTS)}")
        found += [name for name in names if name not in found]
    return found


def _turns(text: str) -> list[Turn]:
    found = []
    for word in text.split(","):
        turn = _TURN.fullmatch(word.strip())
        if turn is None or turn[1] not in FAULTS:
            raise click.BadParameter(f"{word!r} isn't FAULT:COUNT or FAULTseconds:COUNT")
        found.append(Turn(turn[1], int(turn[3]), float(turn[2]) if turn[2] else None))
    return found


def _range(text: str) -> Span:
    shortest, _, longest = text.partition("..")
    return float(shortest), float(longest or shortest)


def _setting(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name.replace(".", "__"), value


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos")
