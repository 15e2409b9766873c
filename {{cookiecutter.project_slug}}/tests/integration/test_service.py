"""What runs outside of a request tells the cache: scripts, tasks of a queue, cron jobs, psql."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import cache
from app.database import ReadSessionDep
from app.main import create_app
from app.service import Service, open_service
from app.settings import Settings
from devtools.servers import free_port
from tests.clients import Client, cache_status, serving, until_hit
from tests.faults import FaultProxy, fault_proxy
from tests.services import SERVICE, asyncpg_dsn

DRAIN_SECONDS = 1.0
LISTEN_SECONDS = 5.0


class Base(DeclarativeBase):
    pass


class Score(Base):
    __tablename__ = "scores"
    __cache_tags__ = ("scores", "score:{id}")
    id: Mapped[int] = mapped_column(primary_key=True)
    points: Mapped[int]


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with serving_scores(settings) as client:
        yield client


@asynccontextmanager
async def serving_scores(settings: Settings) -> AsyncIterator[Client]:
    """A service with cached routes over a table of its own."""
    app = create_app(settings)

    @app.get("/total")
    @cache(expire=300, manual=["scores"])
    async def total(session: ReadSessionDep) -> int:
        return await session.scalar(select(func.sum(Score.points))) or 0

    @app.get("/untagged-total")
    @cache(expire=300)
    async def untagged_total(session: ReadSessionDep) -> int:
        return await session.scalar(select(func.sum(Score.points))) or 0

    async with serving(app=app) as client:
        async with client.state["engine"].begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield client


async def task(settings: Settings) -> None:
    async with open_service(settings) as service:
        await with_session(service)


async def cached_total(client: Client, path: str = "/total") -> int:
    return int((await until_hit(client, path)).json())


async def read_total(client: Client, path: str = "/total") -> int:
    return int((await client.get(path)).json())


async def with_session(service: Service) -> None:
    async with service.sessions.write.begin() as session:
        session.add(Score(points=1))


async def with_own_session(service: Service) -> None:
    async with async_sessionmaker(service.engine).begin() as session:
        await session.execute(insert(Score).values(points=1))


async def with_connection(service: Service) -> None:
    async with service.engine.begin() as connection:
        await connection.execute(insert(Base.metadata.tables["scores"]).values(points=1))


@pytest.mark.parametrize("write", [with_session, with_own_session, with_connection])
@pytest.mark.parametrize("path", ["/total", "/untagged-total"])
async def test_what_a_script_writes_is_seen_by_the_next_read(
    client: Client, settings: Settings, path: str, write: Callable[[Service], Awaitable[None]]
) -> None:
    assert await cached_total(client, path) == 0
    async with open_service(settings) as service:
        await write(service)
    assert await read_total(client, path) == 1


async def test_a_task_of_a_queue_may_run_in_a_new_event_loop_each_time(
    client: Client, settings: Settings
) -> None:
    for points in range(1, 4):
        await cached_total(client)
        await asyncio.to_thread(lambda: asyncio.run(task(settings)))
        assert await read_total(client) == points


@pytest.fixture
async def away(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FaultProxy, Settings]]:
    """The settings of a script that finds no Redis, and the proxy that keeps it from there."""
    monkeypatch.setattr("app.cache.engine.DRAIN_SECONDS", DRAIN_SECONDS)
    async with fault_proxy(settings.cache_url) as (proxy, url):
        yield proxy, settings.model_copy(update={"cache_url": url})


async def test_the_end_waits_until_what_is_owed_has_been_told(
    client: Client, away: tuple[FaultProxy, Settings]
) -> None:
    proxy, settings = away
    await cached_total(client)
    async with open_service(settings) as service:
        await proxy.become("refuse")
        await with_session(service)
        assert service.cache.pending
        await proxy.become("none")
    assert await read_total(client) == 1


async def test_the_end_says_what_has_not_been_told(
    client: Client, away: tuple[FaultProxy, Settings], caplog: pytest.LogCaptureFixture
) -> None:
    proxy, settings = away
    await proxy.become("refuse")
    async with open_service(settings) as service:
        await with_session(service)
        started = time.monotonic()
    assert DRAIN_SECONDS <= time.monotonic() - started < 2 * DRAIN_SECONDS
    (said,) = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert "closing before" in said
    assert "scores" in said


MIGRATION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "scores", None, None, None


def upgrade():
    op.execute("INSERT INTO scores (points) VALUES (5)")


def downgrade():
    op.execute("DELETE FROM scores")
"""


@pytest.fixture
def migrations(settings: Settings, tmp_path: Path) -> Config:
    """With one more, that changes rows."""
    (tmp_path / "scores.py").write_text(MIGRATION)
    config = Config(SERVICE / "alembic.ini")
    config.attributes |= {"database_url": settings.database_url, "cache_url": settings.cache_url}
    folders = [str(SERVICE / "migrations" / "versions"), str(tmp_path)]
    config.set_main_option("version_locations", os.pathsep.join(folders))
    return config


@pytest.mark.parametrize("path", ["/total", "/untagged-total"])
async def test_what_a_migration_changes_is_seen_by_the_next_read(
    client: Client, migrations: Config, path: str
) -> None:
    assert await cached_total(client, path) == 0
    await asyncio.to_thread(command.upgrade, migrations, "heads")
    assert await read_total(client, path) == 5
    assert await cached_total(client, path) == 5
    await asyncio.to_thread(command.downgrade, migrations, "scores@base")
    assert await read_total(client, path) == 0


async def test_nothing_is_cached_while_a_migration_commits(
    client: Client, migrations: Config, settings: Settings
) -> None:
    await cached_total(client)
    async with fault_proxy(settings.database_url) as (proxy, url):
        migrations.attributes["database_url"] = url
        proxy.hold_back(b"INSERT INTO scores")
        migrating = asyncio.create_task(asyncio.to_thread(command.upgrade, migrations, "heads"))
        await proxy.holding.wait()
        assert cache_status(await client.get("/total")) == "hit"
        proxy.let_through()
        proxy.hold_back(b"COMMIT")
        await proxy.holding.wait()
        for _ in range(2):
            answer = await client.get("/total")
            assert (answer.text, cache_status(answer)) == ("0", "fwd=uri-miss")
        proxy.let_through()
        await migrating
    assert await read_total(client) == 5


async def test_without_a_migration_to_apply_the_cache_is_left_alone(
    client: Client, migrations: Config
) -> None:
    await asyncio.to_thread(command.upgrade, migrations, "heads")
    await cached_total(client)
    await asyncio.to_thread(command.upgrade, migrations, "heads")
    assert cache_status(await client.get("/total")) == "hit"


async def test_a_migration_without_the_cache_is_applied_and_says_what_was_not_told(
    client: Client,
    migrations: Config,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.cache.engine.DRAIN_SECONDS", 0.1)
    migrations.attributes["cache_url"] = f"redis://127.0.0.1:{free_port()}/0"
    await asyncio.to_thread(command.upgrade, migrations, "heads")
    assert await read_total(client) == 5
    (said,) = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert "Cache.clear()" in said


@pytest.mark.parametrize("path", ["/total", "/untagged-total"])
async def test_what_psql_writes_is_seen_where_the_table_has_a_trigger(
    settings: Settings, path: str
) -> None:
    psql = await asyncpg.connect(asyncpg_dsn(settings.database_url))
    async with serving_scores(settings.model_copy(update={"cache_listen": True})) as client:
        await psql.execute(
            "CREATE TRIGGER notify_cache_tags AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE"
            " ON scores EXECUTE FUNCTION notify_cache_tags()"
        )
        assert await cached_total(client, path) == 0
        await psql.execute("INSERT INTO scores (points) VALUES (7)")
        async with asyncio.timeout(LISTEN_SECONDS):
            while await read_total(client, path) != 7:
                await asyncio.sleep(0.01)
    await psql.close()
