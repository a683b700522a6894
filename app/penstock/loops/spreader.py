"""The spreader: goes on with what one step on a graph had no room for.

In: a wake-up after a commit that left something, or a slow look. Out: one more transaction a
graph, until nothing is left; nested workflows are stopped whose job was asked to stop. Several
replicas may be at it: the graph's lock puts them in a row, and each reads what is left after it has
it. If we die, what is left is stored where the next one finds it.
"""

import asyncio

from penstock import chaos
from penstock.commands.sequel import Sequel
from penstock.domain.errors import WrongWorkflowState
from penstock.store.graphs import Graphs

_TICK_S = 1.0


class Spreader:
    def __init__(self, graphs: Graphs, sequel: Sequel) -> None:
        self._graphs = graphs
        self._sequel = sequel
        self.wake = asyncio.Event()

    async def step(self) -> float:
        """One step of each graph that has more to do; the pause until the next look."""
        left = False
        for graph in await self._graphs.unfinished():
            moved = await self._graphs.advance(graph)
            await chaos.point("between_steps")
            await self._sequel.play(moved)
            left = left or moved.unfinished
        for inner in await self._graphs.holders_to_stop():
            try:
                await self._sequel.play(await self._graphs.cancel_workflow(inner))
            except WrongWorkflowState:
                continue  # it ended meanwhile, and its job with it
        return 0.0 if left else _TICK_S
