"""What sessions promise, whatever the resources are."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, text
from sqlalchemy.exc import DBAPIError

from app.database import ReadSessionDep, Sessions, WriteSessionDep
from app.main import create_app
from app.service import open_service
from app.settings import Settings
from tests.clients import Client, make_settings, serving
from tests.faults import fault_proxy

MARGIN_SECONDS = 1.0

notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True))


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    async with open_service(settings) as service:
        async with service.engine.begin() as connection:
            await connection.run_sync(notes.metadata.create_all)
        yield service.sessions


async def count(sessions: Sessions) -> int | None:
    async with sessions.read() as session:
        number: int | None = await session.scalar(text("SELECT count(*) FROM notes"))
    return number


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO notes VALUES (1)", "CREATE TABLE more (id int)", "DELETE FROM notes"],
)
async def test_postgresql_refuses_writes_of_a_read_session(
    sessions: Sessions, statement: str
) -> None:
    async with sessions.read() as session:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await session.execute(text(statement))


async def test_a_read_session_sees_one_snapshot(sessions: Sessions) -> None:
    async with sessions.read() as session:
        before = await session.scalar(text("SELECT count(*) FROM notes"))
        async with sessions.write.begin() as writer:
            await writer.execute(insert(notes).values(id=1))
        assert await session.scalar(text("SELECT count(*) FROM notes")) == before == 0
    assert await count(sessions) == 1


async def test_a_write_session_can_write_after_a_read_session_used_its_connection(
    settings: Settings, sessions: Sessions
) -> None:
    async with open_service(settings.model_copy(update={"database_pool_size": 1})) as service:
        assert await count(service.sessions) == 0
        async with service.sessions.write.begin() as session:
            await session.execute(insert(notes).values(id=1))
        assert await count(service.sessions) == 1


async def test_what_an_endpoint_raises_rolls_its_writes_back(
    settings: Settings, sessions: Sessions
) -> None:
    app = create_app(settings)

    @app.post("/notes")
    async def make_note(session: WriteSessionDep) -> None:
        await session.execute(insert(notes).values(id=1))
        raise RuntimeError

    async with serving(app=app) as client:
        assert (await client.post("/notes")).status_code == 500
    assert await count(sessions) == 0


async def test_a_connection_that_postgresql_closed_is_replaced_without_an_error(
    client: Client, sessions: Sessions
) -> None:
    assert (await client.get("/health/ready")).status_code == 200
    async with sessions.write() as session:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await asyncio.sleep(0.1)  # until the goodbye has arrived
    assert (await client.get("/health/ready")).status_code == 200


async def test_a_slow_statement_is_given_up_and_answered_with_503(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"database_timeout_seconds": 0.2}))

    @app.post("/slow")
    async def slow(session: WriteSessionDep) -> None:
        await session.execute(text("SELECT pg_sleep(30)"))

    async with serving(app=app) as client:
        async with asyncio.timeout(5):
            response = await client.post("/slow")
        assert response.status_code == 503
        assert "Retry-After" in response.headers


async def test_a_silent_postgresql_keeps_no_request_longer_than_the_setting_says(
    settings: Settings,
) -> None:
    """Whether a request has a connection, waits for one, or has to make one."""
    seconds = 1.0
    async with fault_proxy(settings.database_url) as (proxy, url):
        update = {"database_url": url, "database_pool_size": 3, "database_timeout_seconds": seconds}
        app = create_app(settings.model_copy(update=update))
        inside = asyncio.Barrier(2)

        @app.get("/reads")
        async def reads(session: ReadSessionDep, together: bool = False) -> None:
            await session.execute(text("SELECT 1"))
            if together:
                await inside.wait()

        @app.post("/writes")
        async def writes(session: WriteSessionDep) -> None:
            await session.execute(insert(notes).values(id=1))

        async with serving(app=app) as client:
            both = [client.get("/reads?together=true") for _ in range(2)]
            assert [answer.status_code for answer in await asyncio.gather(*both)] == [200, 200]
            await proxy.become("silence")
            started = time.monotonic()
            requests = [client.get("/reads") for _ in range(4)] + [client.post("/writes")]
            answers = await asyncio.gather(*requests)
            took = time.monotonic() - started
            assert {answer.status_code for answer in answers} == {503}
            assert seconds <= took < seconds + MARGIN_SECONDS
            await proxy.become("none")
            assert (await client.get("/reads")).status_code == 200


async def test_a_statement_that_was_given_up_does_not_go_on_in_postgresql(
    settings: Settings,
) -> None:
    app = create_app(settings.model_copy(update={"database_timeout_seconds": 0.2}))

    @app.post("/slow")
    async def slow(session: WriteSessionDep) -> None:
        await session.execute(text("SELECT pg_sleep(30)"))

    asleep = text(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        " AND state = 'active' AND datname = current_database()"
    )
    async with serving(app=app) as client:
        assert (await client.post("/slow")).status_code == 503
        async with client.state["engine"].connect() as connection, asyncio.timeout(5):
            while await connection.scalar(asleep):
                await asyncio.sleep(0.02)


async def test_a_pool_without_a_free_connection_is_answered_with_503(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.POOL_TIMEOUT_SECONDS", 0.1)
    app = create_app(settings.model_copy(update={"database_pool_size": 1}))

    @app.post("/one")
    async def take_one(session: WriteSessionDep) -> None:
        await session.connection()

    async with serving(app=app) as client:
        async with client.state["engine"].connect():
            assert (await client.post("/one")).status_code == 503
        assert (await client.post("/one")).status_code == 200


async def test_a_burst_waits_for_the_connections_there_are_and_is_served(
    settings: Settings,
) -> None:
    app = create_app(settings.model_copy(update={"database_pool_size": 2}))

    @app.get("/connections")
    async def count_connections(session: ReadSessionDep) -> int:
        connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        return await session.scalar(text(connections)) or 0

    async with serving(app=app) as client:
        answers = await asyncio.gather(*(client.get("/connections") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.json() for answer in answers) == 2


async def test_an_unknown_database_is_answered_with_503(settings: Settings) -> None:
    missing = make_settings(database_url=settings.database_url + "x", cache_url="memory://")
    app = create_app(missing)

    @app.post("/one")
    async def take_one(session: WriteSessionDep) -> None:
        await session.connection()

    async with serving(app=app) as client:
        assert (await client.post("/one")).status_code == 503
        assert (await client.get("/health/ready")).status_code == 503
