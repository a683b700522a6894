"""The seeded bugs stay true to the code, and the most important rules catch theirs.

All of them, a quarter of an hour: `python -m tests.chaos.mutants`.
"""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.mutants.patches import Outlived, Patch, applicable, applied
from tests.chaos.mutants.seeded import MUTANTS
from tests.chaos.mutants.trial import Mutant, Trials
from tests.support.checker import RULES
from tests.support.figures import figures
from tests.support.servers import Servers

# Of promises that callers hear first: nothing is made up, charged wrongly, or goes on although it
# was asked to stop.
_SUBSET = [
    "a batch that is sent again has new ids",
    "the reaper doesn't count what was lost",
    "settle doesn't see that a cancel was requested",
    "a cancel isn't counted",
    "what was handed back is charged as a loss",
]
_BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_each_patch_applies_exactly_once(mutant: Mutant) -> None:
    applicable([*mutant.provoked, *mutant.bug])
    applicable(mutant.patches)


def test_a_patch_that_has_outlived_the_code_is_told() -> None:
    for text in ("nothing of the sort", "old and old"):
        with pytest.raises(Outlived):
            applied(text, Patch("file", "old", "new"))


def test_each_rule_that_should_catch_a_bug_is_one() -> None:
    names = {name.split(" ", 1)[0] for name in RULES}
    beyond = {"I1b", "I6b", "I8", "I11", "I15", "I17", "I18"}  # of logs and of Redis
    for mutant in MUTANTS:
        assert mutant.caught_by.split(" ", 1)[0] in names | beyond, mutant.name


def test_no_two_seeded_bugs_have_one_name() -> None:
    assert len(_BY_NAME) == len(MUTANTS) >= 18


@pytest.mark.parametrize("name", _SUBSET)
async def test_a_seeded_bug_is_caught_by_its_rule(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    trials = await asyncio.to_thread(Trials, servers, tmp_path)
    verdict = await trials.judge(_BY_NAME[name])
    figures(name, caught_by=verdict.text, took_s=verdict.took_s)
    assert verdict.is_right, verdict.text
