"""What changes the library outside of its requests: scripts, task queues, cron jobs; and programs
that know no cache, whose writes triggers tell to a process that listens."""

import asyncio
import os
import sys
import uuid

import asyncpg
import pytest

from tests.integration.cache.library.client import Library
from tests.integration.cache.library.paths import paths_of
from tests.services import SERVICE, asyncpg_dsn

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCRIPT, SCRIPT_SECONDS = "tests.integration.cache.library.script", 60
TRIGGER = """
    CREATE TRIGGER notify_cache_tags AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON authors
    EXECUTE FUNCTION notify_cache_tags()
"""
# What is promised is a second; a busy machine may need longer.
SECONDS, POLL_SECONDS = 10.0, 0.01


async def test_what_a_script_writes_is_seen(library: Library) -> None:
    shelves = [await library.shelf(), await library.shelf()]
    reads = ("author", "joined", "function")
    before = await library.warm(*(path for shelf in shelves for path in paths_of(shelf, reads)))
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", SCRIPT, *(str(shelf["author_id"]) for shelf in shelves)),
        cwd=SERVICE,
        env=os.environ | library.servers.environment,
    )
    assert await asyncio.wait_for(program.wait(), SCRIPT_SECONDS) == 0
    await library.check(before)


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
