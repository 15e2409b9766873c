"""P5: one computation, over all processes, as PostgreSQL itself counts them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx
import redis.asyncio

from app.settings import Settings
from tests.processes import uvicorn
from tests.services import asyncpg_dsn

URL = "/countries?limit=20"


@asynccontextmanager
async def processes(settings: Settings, count: int) -> AsyncIterator[list[httpx.AsyncClient]]:
    """`count` servers, each in a process of its own, on one database and one Redis."""
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(uvicorn(settings)) for _ in range(count)]
        limits = httpx.Limits(max_connections=100)
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, limits=limits, timeout=30)
            )
            for url in urls
        ]


async def scans(settings: Settings) -> int:
    """How often the table was scanned, by the statistics of PostgreSQL. Those of a process are
    complete once its connections are closed."""
    connection = await asyncpg.connect(asyncpg_dsn(settings.database_url))
    try:
        return int(
            await connection.fetchval(
                "SELECT sum(seq_scan + idx_scan) FROM pg_stat_user_tables"
                " WHERE relname = 'countries'"
            )
        )
    finally:
        await connection.close()


async def test_200_cold_requests_over_4_processes_send_one_query(settings: Settings) -> None:
    start = await scans(settings)
    async with processes(settings, 1) as (client,):
        assert (await client.get(URL)).json()["total"] == 249
    one_query = await scans(settings) - start
    assert one_query > 0
    async with redis.asyncio.Redis.from_url(settings.cache_url) as server:
        await server.flushdb()

    async with processes(settings, 4) as clients:
        for client in clients:  # connections and imports are warm, the cache is not
            await client.get("/health/ready")
        answers = await asyncio.gather(*(c.get(URL) for c in clients for _ in range(50)))
    assert len(answers) == 200

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert await scans(settings) - start == 2 * one_query
