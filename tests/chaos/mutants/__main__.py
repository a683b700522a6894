"""`python -m tests.chaos.mutants [--only NAME …] [--no-controls]`: runs the seeded bugs.

Prints a table. Ends with 1 if one of them isn't caught as its entry says, or if a scene breaks a
rule without any.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.mutants.seeded import MUTANTS
from tests.chaos.mutants.trial import Mutant, Trials, Verdict, controls
from tests.support.servers import Servers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutants", description=__doc__)
    parser.add_argument("--only", default=[""], nargs="+", help="parts of names")
    parser.add_argument("--no-controls", action="store_true", help="spare the trials without bugs")
    asked = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if any(part in mutant.name for part in asked.only)]
    if not chosen:
        print(f"no mutant's name has {asked.only!r}")  # noqa: T201
        return 2
    if not asked.no_controls:
        chosen = [*controls(chosen), *chosen]
    with tempfile.TemporaryDirectory(prefix="penstock-mutants-") as directory:
        servers = Servers(Path(directory))
        servers.start()
        try:
            verdicts = asyncio.run(_judged(Trials(servers, Path(directory) / "trials"), chosen))
        finally:
            servers.stop()
    wrong = [one.mutant for one in verdicts if not one.is_right]
    print(f"{len(verdicts)} trials, {len(wrong)} wrong: {wrong}")  # noqa: T201
    return 1 if wrong else 0


async def _judged(trials: Trials, mutants: Iterable[Mutant]) -> list[Verdict]:
    verdicts = []
    for mutant in mutants:
        one = await trials.judge(mutant)
        mark = "ok" if one.is_right else "WRONG"
        print(f"| {one.mutant} | {mark} | {one.text} | {one.took_s:.0f} s |", flush=True)  # noqa: T201
        verdicts.append(one)
    return verdicts


sys.exit(main())
