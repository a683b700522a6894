"""`penstock doctor`: looks at everything that a server stands on, and says what to do.

Exit status: 0 all is well (warnings too, unless --strict), 1 there are problems, 2 the settings are
wrong. Nothing is changed, no mail is sent, no secret is shown.
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import click

from penstock.cli.looping import run

if TYPE_CHECKING:
    from penstock.doctor import Case
    from penstock.domain.checkup import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red", "skipped": "bright_black"}


@click.command()
@click.option("--url", metavar="URL", help="A server to ask, else the one of the settings.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    help="Longest time of a check, in seconds.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@click.option(
    "-o",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For whom: people or machines.",
)
def doctor(url: str | None, timeout_s: float, strict: bool, form: str) -> None:
    """Look at the settings, the servers and the work in them, and say what to do."""
    from penstock.cli.development import with_kept_secret
    from penstock.doctor import Case
    from penstock.domain import checkup
    from penstock.domain.errors import PenstockError
    from penstock.settings import environment, load

    try:
        settings = load(with_kept_secret(environment()))
    except PenstockError as error:
        if form == "json":
            click.echo(_json([checkup.wrong("settings", str(error))]))
        raise
    run(_told(Case(settings, url, timeout_s), form, strict=strict))


async def _told(case: "Case", form: str, *, strict: bool) -> NoReturn:
    """Ends the process at once: a thread that still looks up a name could not be stopped."""
    from penstock.doctor import examine
    from penstock.domain import checkup

    logging.disable()  # what libraries say of servers that are away is told by us
    findings = await examine(case)
    click.echo(_json(findings) if form == "json" else _table(findings))
    sys.stdout.flush()
    os._exit(checkup.exit_status(findings, strict=strict))


def _json(findings: "Sequence[Finding]") -> str:
    import json
    from dataclasses import asdict

    from penstock.domain import checkup

    whole = {"status": checkup.worst(findings), "checks": [asdict(one) for one in findings]}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def _table(findings: "Sequence[Finding]") -> str:
    from penstock.domain import checkup

    width = max(len(one.check) for one in findings)
    lines = []
    for one in findings:
        level = click.style(f"{one.level:<7}", fg=_COLOURS[one.level])
        lines.append(f"{level}  {one.check:<{width}}  {one.found}")
        if one.advice:
            lines.append(f"{'':<{width + 9}}  → {one.advice}")
    counts = {level: sum(one.level is level for one in findings) for level in checkup.Level}
    lines.append(", ".join(f"{count} {level}" for level, count in counts.items() if count))
    return "\n".join(lines)
