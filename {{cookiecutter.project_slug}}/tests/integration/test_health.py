"""The probes, with real servers."""

import asyncio

from app.health import PROBE_TIMEOUT_SECONDS
from tests.clients import Client, make_settings, serving
from tests.services import StoppableRedis


async def test_a_service_with_all_it_needs_is_ready(client: Client) -> None:
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "database": "up",
        "cache": "up",
        "pending_invalidations": 0,
        "warnings": [],
    }
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_service_without_cache_is_ready_but_degraded(
    database_url: str, own_redis: StoppableRedis
) -> None:
    own_redis.stop()
    async with serving(make_settings(database_url=database_url, cache_url=own_redis.url)) as client:
        response = await client.get("/health/ready")
        assert response.status_code == 200
        assert response.json()["status"] == "degraded"
        assert response.json()["cache"] == "down"


async def test_probes_that_hang_are_given_up() -> None:
    over = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = make_settings(
            database_url=f"postgresql://app:app@127.0.0.1:{port}/app",
            cache_url=f"redis://127.0.0.1:{port}/0",
        )
        async with serving(settings) as client:
            start = asyncio.get_running_loop().time()
            response = await client.get("/health/ready")
            took = asyncio.get_running_loop().time() - start
        over.set()
        assert response.status_code == 503
        assert took < 2 * PROBE_TIMEOUT_SECONDS
