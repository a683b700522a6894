"""The heap as a server has it, for tests that measure how long the loop is held."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heap_of_a_server() -> Iterator[None]:
    """What was there at the start isn't looked through again (`server.serve`): a test's process
    holds hundreds of modules more than a server's, and a full collection of it takes 100 ms."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
