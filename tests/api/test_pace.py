import asyncio

from penstock.api.pace import Pace


async def turns(done: asyncio.Event) -> int:
    """How often the loop comes round until `done`."""
    count = 0
    while not done.is_set():
        await asyncio.sleep(0)
        count += 1
    return count


def burn_out(pace: Pace) -> None:
    """Works until this turn of the loop has had its 4 ms of work."""
    while not pace.is_over:
        pass


async def held(pace: Pace, entered: asyncio.Event, leave: asyncio.Event) -> None:
    async with pace:
        entered.set()
        await leave.wait()


async def test_one_at_a_time_is_let_in_and_all_others_after_him() -> None:
    pace, inside, most = Pace(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with pace:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(50)))
    assert (inside, most) == (0, 1)


async def test_who_has_just_left_goes_on_ahead_of_those_who_wait() -> None:
    pace, steps = Pace(), list[str]()

    async def work(name: str) -> None:
        for _ in range(3):
            async with pace:
                steps.append(name)
                await asyncio.sleep(0)

    await asyncio.gather(*(work(name) for name in "abcd"))
    assert "".join(steps) == "aaabbbcccddd"


async def test_who_leaves_while_he_waits_keeps_nobody_from_entering() -> None:
    pace, entered, leave = Pace(), asyncio.Event(), asyncio.Event()
    leave.set()
    async with pace:
        waiting = [asyncio.create_task(held(pace, entered, leave)) for _ in range(4)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # before he could be called
    waiting[1].cancel()  # called, and not there any more
    await asyncio.wait(waiting, timeout=5)
    assert [task.cancelled() for task in waiting if task.done()] == [True, True, False, False]


async def test_who_is_cancelled_while_he_breathes_at_the_entrance_leaves_it_open() -> None:
    pace, never = Pace(), asyncio.Event()
    burn_out(pace)
    late = asyncio.create_task(held(pace, asyncio.Event(), never))
    asyncio.get_running_loop().call_soon(late.cancel)
    await asyncio.wait([late])
    assert late.cancelled()
    async with asyncio.timeout(5), pace:
        pass


async def test_a_crowd_that_breathes_shares_the_turns_of_the_loop() -> None:
    pace, done, crowd = Pace(), asyncio.Event(), 10

    async def brief() -> None:
        await pace.breathe()
        burn_out(pace)

    counting = asyncio.create_task(turns(done))
    await asyncio.gather(*(brief() for _ in range(crowd)))
    done.set()
    assert await counting >= crowd
