"""What changes the library outside of its requests: scripts, task queues, cron jobs; and programs
that know no cache, whose writes triggers tell to a process that listens."""

import asyncio
import json
import uuid

import asyncpg
import pytest

from tests.integration.cache.library.client import Library, Shelf
from tests.integration.cache.library.paths import paths_of
from tests.integration.cache.library.programs import run
from tests.services import asyncpg_dsn

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRIGGER = """
    CREATE TRIGGER notify_cache_tags AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON authors
    EXECUTE FUNCTION notify_cache_tags()
"""
# What is promised is a second; a busy machine may need longer.
SECONDS, POLL_SECONDS = 10.0, 0.01


async def run_script(library: Library, **programs: Shelf) -> dict[str, str]:
    """The error of each program, on a shelf of its own; or nothing."""
    arguments = [f"{name}={shelf['author_id']}" for name, shelf in programs.items()]
    lines = await run("script", library.servers.environment, *arguments)
    return dict(json.loads(line) for line in lines)


async def test_what_a_script_writes_is_seen(library: Library) -> None:
    shelves = {name: await library.shelf() for name in ("told", "told_over_engine")}
    before = [
        await library.warm(*paths_of(shelf, ["author", "joined", "function"]))
        for shelf in shelves.values()
    ]
    assert set((await run_script(library, **shelves)).values()) == {""}
    for answers in before:
        await library.check(answers)


async def test_a_trigger_that_names_no_tag_tells_of_its_table(library: Library) -> None:
    shelf = await library.shelf()
    reads = ("author", "joined", "joinedload", "function", "text, told")
    before = await library.warm(*paths_of(shelf, reads))
    psql = await asyncpg.connect(asyncpg_dsn(library.servers.environment["DATABASE_URL"]))
    try:
        await psql.execute(TRIGGER)
        rename = "UPDATE authors SET name = $1 WHERE author_id = $2"
        await psql.execute(rename, name := uuid.uuid4().hex, shelf["author_id"])
        async with asyncio.timeout(SECONDS):
            for path in before:
                while name not in (await library.read("b", path)).body:
                    await asyncio.sleep(POLL_SECONDS)
    finally:
        await psql.execute("DROP TRIGGER notify_cache_tags ON authors")
        await psql.close()
