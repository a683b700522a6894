"""`python -m tests.bench`: measures one replica with default settings through its REST API.

Each run has a fresh PostgreSQL (durable, as it comes), a fresh Redis and a fresh server process;
`price` has its own, and a server process each turn. The exit status is 0 when everything could be
measured, met or not.
"""

from dataclasses import replace
from pathlib import Path

import click

from penstock.cli.looping import run
from tests.bench import machine, price, report
from tests.bench.figures import BenchError, Figure, lines
from tests.bench.measures import MEASURES, NEEDS, QUICK, Scale, measured, warm_up
from tests.bench.stage import Servers, fresh_servers, serving

PRICE = "price"
NAMES = (*MEASURES, PRICE)


@click.command()
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Jobs of bulk and drain.  [100000]  Of each turn of price.  [20000]",
)
@click.option("--runs", default=1, type=click.IntRange(min=1), help="Medians over so many runs.")
@click.option("--only", metavar="a,b", help=f"Only these: {', '.join(NAMES)}.")
@click.option("--rounds", type=click.IntRange(min=1), help="Of price's turns.  [5]")
@click.option("--seconds", type=click.FloatRange(min=0.5), help="Of overload.  [20]")
@click.option("--quick", is_flag=True, help="Tiny numbers: shows that it works, not how fast.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the figures here.",
)
@click.option(
    "--dir",
    "parent",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the servers' data goes for a while; on a real disk.  [temporary directory]",
)
def main(
    jobs: int | None,
    runs: int,
    only: str | None,
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    json_file: Path | None,
    parent: Path | None,
) -> None:
    """Measure throughput and latency; and by `price` what metrics, logs and traces cost.

    price drains the same jobs by turns with all of it off, with all on, and with every span kept:
    a server process each turn, the order reversed each round. Its figures are medians over the
    rounds, from the least to the most; what a way costs is told against the `off` of its round.
    """
    names, scale = _names(only), _scale(jobs, rounds, seconds, quick)
    about = {"load at start": machine.load_average()}
    found: list[list[Figure]] = []
    for number in range(1, runs + 1):
        for part in _parts(names):
            with fresh_servers(parent) as servers:
                if not found:
                    about |= run(machine.facts(servers))
                    _show(about)
                found.append(_one_run(servers, part, scale, f"run {number} of {runs}"))
    whole = lines(found)
    click.echo(report.table(whole))
    if json_file is not None:
        report.write_json(json_file, about, whole)


def _parts(names: list[str]) -> list[list[str]]:
    """What is measured on the same servers."""
    parts = [name for name in names if name != PRICE], [name for name in names if name == PRICE]
    return [part for part in parts if part]


def _one_run(servers: Servers, names: list[str], scale: Scale, title: str) -> list[Figure]:
    try:
        return run(_measured(servers, names, scale, title))
    except BenchError as error:
        raise click.ClickException("\n".join([str(error), *error.__notes__])) from error


async def _measured(servers: Servers, names: list[str], scale: Scale, title: str) -> list[Figure]:
    """The figures of these measures; what they need is done, but not told."""
    if names == [PRICE]:
        return await price.measure(servers, scale)
    needed = {*names, *(NEEDS[name] for name in names if name in NEEDS)}
    figures: list[Figure] = []
    async with serving(servers) as stage:
        await warm_up(stage)
        for name in MEASURES:
            if name in needed:
                click.echo(f"{title}: {name} (load {machine.load_average()})", err=True)
                figures += await measured(name, stage, scale)
    return [figure for figure in figures if figure.measure in names]


def _names(only: str | None) -> list[str]:
    if only is None:
        return list(NAMES)
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise click.BadParameter(f"{name!r} is none of {known}", param_hint="--only")
    return names


def _scale(jobs: int | None, rounds: int | None, seconds: float | None, quick: bool) -> Scale:
    scale = QUICK if quick else Scale()
    return replace(
        scale,
        jobs=scale.jobs if jobs is None else jobs,
        price_jobs=scale.price_jobs if jobs is None else jobs,
        rounds=scale.rounds if rounds is None else rounds,
        overload_s=scale.overload_s if seconds is None else seconds,
    )


def _show(about: dict[str, str]) -> None:
    for name, value in about.items():
        click.echo(f"{name + ':':<15} {value}")
    click.echo("")


if __name__ == "__main__":
    main(prog_name="python -m tests.bench")
