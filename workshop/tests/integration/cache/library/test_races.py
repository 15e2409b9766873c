"""P2: what was computed from data older than a write is never served after it.

The endpoints wait at a gate after they have read (functions.py). The write comes in between.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.cache.library.client import Library, Shelf
from tests.integration.cache.library.paths import paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

ARRIVE_SECONDS, POLL_SECONDS = 10.0, 0.01
# What a route has read before the gate, or reads after it, and what is written meanwhile.
GATED = {"query": "rename", "function": "rename", "two-levels": "rename", "then-query": "add"}


def gate(library: Library, shelf: Shelf, name: str) -> Path:
    return library.servers.folder / f"{shelf['author_id']}.{name}"


@asynccontextmanager
async def reading(library: Library, path: str, shelf: Shelf) -> AsyncIterator[None]:
    """In the block, process A has read and waits; at its end A has answered."""
    arrived, opened = (gate(library, shelf, name) for name in ("arrived", "open"))
    read = asyncio.create_task(library.read("a", path))
    async with asyncio.timeout(ARRIVE_SECONDS):
        while not arrived.exists():
            assert not read.done(), read.result()
            await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        opened.touch()
        await read


async def check(library: Library, path: str) -> None:
    """A few times over, so that what was stored late is looked at."""
    truth = await library.read("plain", path)
    for process in ("b", "a", "b", "a"):
        answer = await library.read(process, path)
        assert answer == truth, answer.cache


@pytest.mark.parametrize("known", [False, True], ids=["route is new", "route is known"])
@pytest.mark.parametrize("gated", GATED)
async def test_a_write_while_an_answer_is_computed_is_seen_by_the_next(
    library: Library, gated: str, known: bool
) -> None:
    if known:
        other = await library.shelf()
        gate(library, other, "open").touch()
        await library.warm(f"/gated/{other['author_id']}/{gated}")
    shelf = await library.shelf()
    path = f"/gated/{shelf['author_id']}/{gated}"
    async with reading(library, path, shelf):
        await library.change("b", f"/statements/{GATED[gated]}/in a session", shelf)
    await check(library, path)


@pytest.mark.parametrize(
    ("level", "gated"), [("function", "function"), ("two levels", "two-levels")]
)
async def test_a_function_hands_on_the_generations_that_it_read_itself(
    library: Library, level: str, gated: str
) -> None:
    """Its result was a hit, from before the write; the answer around it was computed after it."""
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, [level]))
    path = f"/gated/{shelf['author_id']}/{gated}"
    async with reading(library, path, shelf):
        await library.change("b", "/statements/rename/in a session", shelf)
    await library.check(before)
    await check(library, path)
