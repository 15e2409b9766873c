"""The probes, with real servers."""

import asyncio

from sqlalchemy import event, text

from app.cache import cache
from app.database import WriteSessionDep
from app.health import PROBE_TIMEOUT_SECONDS
from app.main import create_app
from app.settings import Settings
from tests.clients import Client, cache_status, make_settings, serving, until_hit
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


async def test_slow_statements_in_all_connections_leave_a_service_ready(
    settings: Settings,
) -> None:
    app = create_app(settings.model_copy(update={"database_pool_size": 2}))
    taken = asyncio.Barrier(3)

    @app.get("/cached")
    @cache(60, public=True)
    async def cached() -> str:
        return "hit"

    @app.post("/slow")
    async def slow(session: WriteSessionDep) -> None:
        await session.connection()
        await taken.wait()
        await session.execute(text("SELECT pg_sleep(30)"))

    async with serving(app=app) as client:
        await until_hit(client, "/cached")
        requests = [asyncio.create_task(client.post("/slow")) for _ in range(2)]
        await taken.wait()
        assert (await client.get("/health/ready")).status_code == 200
        assert cache_status(await client.get("/cached")) == "hit"
        for request in requests:
            request.cancel()
        await asyncio.wait(requests)


async def test_who_asks_at_the_same_time_shares_one_question(client: Client) -> None:
    asked: list[str] = []
    engine = client.state["prober"].engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    answers = await asyncio.gather(*(client.get("/health/ready") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert 1 <= len(asked) <= 3
    await client.get("/health/ready")
    assert len(asked) >= 2


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
