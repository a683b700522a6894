"""Dead letters in Postgres: each death is one, lists and groups, replay and discard."""

import asyncio
from dataclasses import replace

import pytest

from penstock.domain.attempt import CANCELLED
from penstock.domain.effect import Channel
from penstock.domain.errors import WrongState
from penstock.domain.ids import JobId
from penstock.domain.letter import LetterView, Message, Renewal, Resolution, Which
from penstock.store import lists
from penstock.store.letters import OLDEST, LetterFilter, beyond
from tests.support import making
from tests.support.database import Database
from tests.support.weaving import weave

REPLAY = Renewal("ada", Resolution.REPLAYED)
OLDER = LetterFilter(start=OLDEST)


async def dead(db: Database, count: int = 1, **fields: object) -> list[JobId]:
    """Jobs that died one after the other, oldest first."""
    runs = await db.running(count, **fields)
    for run in runs:
        assert await db.settle(run, making.FINAL_FAILURE)
    return [run.id for run in runs]


async def jobs_of(db: Database, of: LetterFilter) -> list[JobId]:
    """All that a list has, by pages of two."""
    found: list[LetterView] = []
    while True:
        page = await db.letters.page(of, 2)
        found += page.items
        if page.next is None:
            return [one.job for one in found]
        of = beyond(of, page.next)


async def letter(db: Database, id_: JobId) -> LetterView:
    found = await db.letters.latest(id_)
    assert found is not None
    return found


async def test_a_death_is_a_letter_and_no_other_end_is(db: Database) -> None:
    (id_,) = await dead(db)
    for ending in (making.SUCCESS, CANCELLED, making.FAILURE):
        await db.settle((await db.running())[0], ending)
    assert await jobs_of(db, LetterFilter()) == [id_]
    found = await letter(db, id_)
    assert (found.attempt, found.queue, found.kind) == (1, "default", "echo")
    assert (found.error_type, found.error) == ("oops", '{"type":"oops"}')
    assert (found.resolved_at, found.resolution, found.message) == (None, None, Message.NONE)


async def test_lists_go_by_the_time_of_death_and_filter(db: Database) -> None:
    mail = await dead(db, 3, queue="mail")
    other = await dead(db, 2, kind="other")
    assert await jobs_of(db, LetterFilter()) == [*other[::-1], *mail[::-1]]
    assert await jobs_of(db, LetterFilter(queues=["mail"])) == mail[::-1]
    assert await jobs_of(db, LetterFilter(queues=["mail"], kinds=["other"])) == []
    assert await jobs_of(db, LetterFilter(kinds=["other", "none"])) == other[::-1]
    assert await jobs_of(db, LetterFilter(error_types=["oops"], fingerprints=["0" * 16])) == [
        *other[::-1],
        *mail[::-1],
    ]
    assert await jobs_of(db, LetterFilter(error_types=["none"])) == []
    assert await jobs_of(db, LetterFilter(fingerprints=["f" * 16])) == []


async def test_a_page_looks_at_a_bounded_number(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.store.letters.LOOKS_MAX", 3)
    (rare,) = await dead(db, kind="rare")
    await dead(db, 7)
    page = await db.letters.page(LetterFilter(kinds=["rare"]), 50)
    assert page.items == []
    assert page.next is not None
    assert await jobs_of(db, LetterFilter(kinds=["rare"])) == [rare]
    assert lists.LOOKS_MAX == 20_000


async def test_a_retry_resolves_the_letter_and_a_second_death_is_another(db: Database) -> None:
    (id_,) = await dead(db)
    assert await db.graphs.retry_job(id_, Renewal(by="ada"))
    first = await letter(db, id_)
    assert (first.resolution, first.resolved_by) == ("retried", "ada")
    assert first.resolved_at is not None
    assert await jobs_of(db, LetterFilter()) == []
    (run,) = await db.jobs.start([id_], await db.worker())
    await db.settle(run, making.FINAL_FAILURE)
    assert (await letter(db, id_)).attempt == 2
    assert await jobs_of(db, LetterFilter()) == [id_]
    assert await jobs_of(db, LetterFilter(which=Which.RESOLVED)) == [id_]
    assert await jobs_of(db, LetterFilter(which=Which.ALL)) == [id_, id_]


async def test_a_replay_may_bring_another_payload_and_queue(db: Database) -> None:
    (id_,) = await dead(db, unique_key="k")
    change = replace(REPLAY, payload='{"n":2}', queue="other", delay_s=60.0)
    moved = await db.graphs.retry_job(id_, change)
    assert moved is not None
    assert [(due.id, due.queue) for due in moved.due] == [(id_, "other")]
    job = await db.reads.job(id_)
    assert job is not None
    assert (job.queue, job.payload, job.state, job.attempt) == ("other", '{"n":2}', "scheduled", 1)
    assert (await letter(db, id_)).resolution == "replayed"
    counts = await db.session.fetch("SELECT queue, sum(delta) FROM queue_counts GROUP BY queue")
    assert {row[0]: row[1] for row in counts} == {"default": 0}
    held = await db.session.fetchval(
        "SELECT job_id FROM job_unique WHERE unique_id = job_unique_id('other', 'k')"
    )
    assert held == id_


async def test_what_cant_be_replayed_is_left_as_it_was(db: Database) -> None:
    (id_,) = await dead(db, unique_key="k")
    await db.submit(unique_key="k", queue="other")
    assert await db.graphs.retry_job(id_, replace(REPLAY, queue="other", payload="1")) is None
    job = await db.reads.job(id_)
    assert job is not None
    assert (job.queue, job.payload, job.state) == ("default", "null", "dead")
    assert (await letter(db, id_)).resolved_at is None


async def test_a_letter_that_was_discarded_is_not_replayed_but_its_job_is_retried(
    db: Database,
) -> None:
    (id_,) = await dead(db)
    assert await db.letters.discard(id_, "ada")
    assert not await db.letters.discard(id_, "bob")
    found = await letter(db, id_)
    assert (found.resolution, found.resolved_by) == ("discarded", "ada")
    with pytest.raises(WrongState):
        await db.graphs.retry_job(id_, REPLAY)
    assert await db.places([id_]) == ["dead"]
    assert await db.letters.replay_plain([id_], [0.0], "ada") == []
    assert await db.retry(id_)
    assert (await letter(db, id_)).resolution == "discarded"


async def test_what_is_no_death_is_not_replayed(db: Database) -> None:
    (id_,) = await db.submit()
    await db.jobs.cancel_due(id_)
    with pytest.raises(WrongState, match="the job is cancelled; it has no dead letter"):
        await db.graphs.retry_job(id_, REPLAY)
    assert await db.places([id_]) == ["cancelled"]
    woven = await weave(db, {"a": ()})
    await db.graphs.cancel_job(woven.ids["a"], woven.id)
    with pytest.raises(WrongState, match="the job is cancelled; it has no dead letter"):
        await db.graphs.retry_job(woven.ids["a"], REPLAY)


async def test_of_many_replays_and_discards_at_once_one_wins(db: Database) -> None:
    for _ in range(5):
        (id_,) = await dead(db)
        results = await asyncio.gather(
            *(db.graphs.retry_job(id_, REPLAY) for _ in range(3)),
            db.letters.replay_plain([id_], [0.0], "bulk"),
            db.letters.discard(id_, "ada"),
            return_exceptions=True,
        )
        won = [one for one in results if one and not isinstance(one, BaseException)]
        assert len(won) == 1, results
        odd = [one for one in results if isinstance(one, BaseException)]
        assert all(isinstance(one, WrongState) for one in odd), results


async def test_many_are_replayed_at_once_each_at_its_time(db: Database) -> None:
    ids = await dead(db, 20)
    found = await db.letters.to_replay(OLDER, 100)
    assert (found.plain, found.in_graphs, found.next) == (ids, [], None)
    dues = await db.letters.replay_plain(ids, [60.0 * n for n in range(20)], "ada")
    assert {due.id for due in dues} == set(ids)
    by_id = {due.id: due.ready_ms for due in dues}
    waits = [by_id[id_] - by_id[ids[0]] for id_ in ids]
    assert waits == [60_000 * n for n in range(20)]
    assert await db.places(ids) == ["ready"] + ["scheduled"] * 19
    assert await jobs_of(db, LetterFilter()) == []
    assert (await letter(db, ids[3])).resolved_by == "ada"


async def test_of_twins_by_a_unique_key_one_is_replayed(db: Database) -> None:
    ids = [(await dead(db, unique_key="k"))[0] for _ in range(3)]
    dues = await db.letters.replay_plain(ids, [0.0] * 3, "ada")
    assert [due.id for due in dues] == [ids[2]]
    assert await db.places(ids) == ["dead", "dead", "ready"]
    assert await jobs_of(db, LetterFilter()) == [ids[1], ids[0]]


async def test_what_to_replay_comes_oldest_first_and_goes_on(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await dead(db, 5)
    first = await db.letters.to_replay(OLDER, 3)
    assert first.plain == ids[:3]
    assert first.next is not None
    rest = await db.letters.to_replay(beyond(OLDER, first.next), 3)
    assert (rest.plain, rest.next) == (ids[3:], None)
    monkeypatch.setattr("penstock.store.letters.LOOKS_MAX", 2)
    none = await db.letters.to_replay(replace(OLDER, kinds=["none"]), 3)
    assert none.plain == []
    assert none.next is not None


async def test_groups_count_what_is_alike(db: Database) -> None:
    mail = await dead(db, 3, queue="mail")
    await dead(db, 2, kind="other")
    await db.session.execute(
        "UPDATE dead_letters SET fingerprint = $1 WHERE kind = 'other'", "f" * 16
    )
    found = await db.letters.groups(LetterFilter(), None, 50)
    assert [(one.fingerprint, one.kind, one.count) for one in found.items] == [
        ("f" * 16, "other", 2),
        ("0" * 16, "echo", 3),
    ]
    assert (found.next, found.looked_at, found.is_truncated) == (None, 5, False)
    alike = found.items[1]
    assert (alike.job, alike.queue, alike.error) == (mail[2], "mail", '{"type":"oops"}')
    assert alike.first < alike.last
    page = await db.letters.groups(LetterFilter(), None, 1)
    assert page.next is not None
    rest = await db.letters.groups(LetterFilter(), (page.next.last, page.next.fingerprint), 1)
    assert [one.count for one in rest.items] == [3]
    assert rest.next is None
    assert (await db.letters.groups(LetterFilter(queues=["none"]), None, 9)).items == []
    await db.letters.discard(mail[2], "ada")
    (left,) = (await db.letters.groups(LetterFilter(kinds=["echo"]), None, 9)).items
    assert (left.count, left.job) == (2, mail[1])


async def test_groups_say_that_older_letters_are_not_counted(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.store.letters.LOOKS_MAX", 3)
    ids = await dead(db, 4)
    found = await db.letters.groups(LetterFilter(), None, 9)
    assert ([one.count for one in found.items], found.is_truncated) == ([3], True)
    found = await db.letters.groups(LetterFilter(job=ids[0]), None, 9)
    assert ([one.job for one in found.items], found.is_truncated) == ([ids[0]], False)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [(None, Message.PENDING), ("delivered", Message.DELIVERED), ("failed", Message.FAILED)],
)
async def test_a_letter_says_where_its_message_is(
    db: Database, outcome: str | None, message: Message
) -> None:
    (id_,) = await dead(db)
    rows = "'topic', 'd', 'e', $1, 1, 'dead', now()"
    if outcome is None:
        await db.session.execute(
            "INSERT INTO effects (channel, endpoint, dedupe, event, job_id, attempt, state, at,"
            f" due_at) VALUES ('{Channel.DEAD_LETTER}', {rows}, now())",
            id_,
        )
    else:
        await db.session.execute(
            "INSERT INTO deliveries (effect_id, channel, endpoint, dedupe, event, job_id, attempt,"
            f" state, at, tries, outcome, finished_at) VALUES (gen_random_uuid(), 'dead-letter',"
            f" {rows},"
            f" 1, '{outcome}', now())",
            id_,
        )
    assert (await letter(db, id_)).message is message
