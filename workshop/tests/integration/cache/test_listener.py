"""What is notified is invalidated, through lost connections and whatever else is notified."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import Cache, open_cache
from app.cache.events import Counters
from app.cache.policy import EVERYTHING
from app.cache.sql import listener
from app.cache.sql.listener import listening
from app.cache.sql.tables import Tables
from app.settings import Settings
from devtools.servers import free_port
from tests.clients import serving
from tests.faults import fault_proxy
from tests.services import Services, asyncpg_dsn

# What is promised is a second; a busy machine may need longer to reconnect.
SECONDS = 1.0
RECONNECT_SECONDS = 10.0

Connection = Any  # asyncpg.Connection, which is generic in its stubs alone


class Base(DeclarativeBase):
    pass


class Planet(Base):
    __tablename__ = "planets"
    __cache_tags__ = ("planets", "planet:{id}")
    id: Mapped[int] = mapped_column(primary_key=True)


class Star(Base):
    """One that names the schema which the others leave to the database."""

    __tablename__ = "stars"
    __table_args__ = ({"schema": "public"},)
    __cache_tags__ = ("stars",)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())


class Moon(Base):
    __tablename__ = "moons"
    __table_args__ = ({"schema": "far", "info": {"cache_tags": ("skies",)}},)
    __cache_tags__ = ("moon:{id}",)
    id: Mapped[int] = mapped_column(primary_key=True)


class Comet(Base):
    """One that declares nothing."""

    __tablename__ = "comets"
    id: Mapped[int] = mapped_column(primary_key=True)


# What a change that bypasses the service ends.
ENDED = {
    "planets": {"table:planets", "planets", "planet:*"},
    "stars": {"table:public.stars", "stars"},
    "far.moons": {"table:far.moons", "skies", "moon:*"},
    "comets": {"table:comets"},
}
CHANGES = [
    "INSERT INTO {} DEFAULT VALUES",
    "UPDATE {} SET id = id",
    "DELETE FROM {}",
    "TRUNCATE {}",
]
TRIGGER = (
    "CREATE TRIGGER notify_cache_tags AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {}"
    " EXECUTE FUNCTION notify_cache_tags()"
)


@dataclass
class World:
    cache: Cache
    counters: Counters
    psql: Connection
    url: str

    async def generation(self, tag: str) -> bytes | None:
        return ((await self.cache.backend.read(tag, [tag])).generations or {}).get(tag)

    async def renew(self, *tags: str) -> None:
        """Give these tags a generation, as reads do."""
        for tag in tags:
            assert (await self.cache.backend.begin(tag, [tag], "t"))[0]

    async def notify(self, tag: str) -> None:
        await self.psql.execute("SELECT pg_notify('cache_tags', $1)", tag)

    async def until_gone(self, *tags: str, seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            for tag in tags:
                while await self.generation(tag) is not None:
                    await asyncio.sleep(0.01)

    async def until(self, label: str, times: int, seconds: float = RECONNECT_SECONDS) -> None:
        await until(lambda: self.counters.totals["listener", label] >= times, seconds)

    @asynccontextmanager
    async def listening(self, url: str = "") -> AsyncIterator[None]:
        """A listener that is connected and has done what it does then."""
        async with listening(self.cache, url or self.url, Tables(Base.registry)):
            await self.until("invalidated", 1)
            yield


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def no_new_connections(services: Services, database_url: str) -> AsyncIterator[None]:
    admin = await asyncpg.connect(asyncpg_dsn(services.database_url))
    database = f'ALTER DATABASE "{make_url(database_url).database}" ALLOW_CONNECTIONS'
    await admin.execute(f"{database} false")
    try:
        yield
    finally:
        await admin.execute(f"{database} true")
        await admin.close()


async def listeners(psql: Connection) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '% cache listener'"
    mine = " AND datname = current_database()"
    return [row["pid"] for row in await psql.fetch(query + mine)]


async def until_nobody_listens(psql: Connection) -> None:
    async with asyncio.timeout(SECONDS):
        while await listeners(psql):
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(database_url: str, cache_url: str) -> AsyncIterator[World]:
    psql = await asyncpg.connect(asyncpg_dsn(database_url))
    counters = Counters()
    async with open_cache(cache_url, name="test", recorder=counters) as cache:
        yield World(cache, counters, psql, database_url)
    await psql.close()


async def test_what_is_notified_is_invalidated_and_nothing_else(world: World) -> None:
    async with world.listening():
        await world.renew("planets", "planet:*")
        await world.notify("planets")
        await world.until_gone("planets")
        assert await world.generation("planet:*")


@pytest.fixture
async def tables(world: World) -> None:
    """With triggers that name no tag."""
    await world.psql.execute("CREATE SCHEMA far")
    engine = create_async_engine(world.url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()
    for table in ENDED:
        await world.psql.execute(TRIGGER.format(table))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("table", ENDED)
async def test_a_trigger_without_arguments_ends_its_table_and_what_covers_it(
    world: World, table: str
) -> None:
    all_tags = set().union(*ENDED.values())
    async with world.listening():
        for change in CHANGES:
            await world.renew(*all_tags)
            await world.psql.execute(change.format(table))
            await world.until_gone(*ENDED[table])
            left = {tag for tag in all_tags if await world.generation(tag)}
            assert left == all_tags - ENDED[table], change


@pytest.mark.usefixtures("tables")
async def test_whoever_writes_may_have_another_default_schema(world: World) -> None:
    async with world.listening():
        await world.renew(*ENDED["planets"], *ENDED["far.moons"])
        await world.psql.execute("SET search_path = far, public")
        await world.psql.execute("DELETE FROM planets")
        await world.until_gone(*ENDED["planets"])
        await world.psql.execute("DELETE FROM moons")
        await world.until_gone(*ENDED["far.moons"])


@pytest.mark.usefixtures("tables")
async def test_arguments_of_a_trigger_end_beside_its_table(world: World) -> None:
    trigger = TRIGGER.format("comets").replace("notify_cache_tags()", "notify_cache_tags('sky')")
    await world.psql.execute(trigger.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER"))
    async with world.listening():
        await world.renew("sky", "table:comets")
        await world.psql.execute("DELETE FROM comets")
        await world.until_gone("sky", "table:comets")


async def test_a_table_that_no_model_knows_is_told_by_its_name(world: World) -> None:
    await world.psql.execute("CREATE TABLE legacy (id int)")
    await world.psql.execute(TRIGGER.format("legacy"))
    async with world.listening():
        await world.renew("table:legacy")
        await world.psql.execute("INSERT INTO legacy VALUES (1)")
        await world.until_gone("table:legacy")


async def test_notifications_of_one_turn_are_one_invalidation(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    invalidate = world.cache.invalidate

    async def recorded(*tags: str) -> None:
        calls.append(tags)
        await invalidate(*tags)

    monkeypatch.setattr(world.cache, "invalidate", recorded)
    async with world.listening():
        calls.clear()
        async with world.psql.transaction():
            for tag in ("b", "a", "b", "c"):
                await world.notify(tag)
        await until(lambda: bool(calls), SECONDS)
    assert calls == [("a", "b", "c")]


async def test_a_transaction_that_is_rolled_back_notifies_nobody(world: World) -> None:
    async with world.listening():
        await world.renew("planets", "planet:*")
        transaction = world.psql.transaction()
        await transaction.start()
        await world.notify("planets")
        await transaction.rollback()
        await world.notify("planet:*")  # notifications come in the order of commits
        await world.until_gone("planet:*")
        assert await world.generation("planets")


@pytest.mark.parametrize("payload", ["", "x" * 201, "a\nb", "\x1b[31m"])
async def test_a_notification_that_is_no_tag_is_ignored(
    world: World, payload: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.listening():
        await world.renew("planets")
        await world.notify(payload)
        await world.notify("planets")
        await world.until_gone("planets")
    assert world.counters.totals["listener", "invalidated"] == 2
    assert "no tag" in caplog.text
    assert "\x1b" not in caplog.text
    assert len(caplog.records[-1].getMessage()) < 150


async def test_the_connection_begins_with_what_nobody_heard(world: World) -> None:
    await world.renew(EVERYTHING)
    async with world.listening():
        await world.until_gone(EVERYTHING)


async def test_a_lost_connection_is_replaced_and_what_it_missed_invalidated(
    world: World, services: Services
) -> None:
    async with world.listening():
        async with no_new_connections(services, world.url):
            for pid in await listeners(world.psql):
                await world.psql.execute("SELECT pg_terminate_backend($1)", pid)
            await world.until("lost", 1)
            await world.renew(EVERYTHING)
            await world.notify("planets")  # nobody hears it
        await world.until_gone(EVERYTHING, seconds=RECONNECT_SECONDS)
        await world.renew("planets")
        await world.notify("planets")
        await world.until_gone("planets")


async def test_a_connection_that_dies_in_silence_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HEARTBEAT_SECONDS", 0.2)
    async with fault_proxy(world.url) as (proxy, url), world.listening(url):
        await proxy.become("silence")
        await world.until("lost", 1)
        await world.renew(EVERYTHING)
        await proxy.become("cut")  # what the proxy has swallowed stays lost
        await proxy.become("none")
        await world.until_gone(EVERYTHING, seconds=RECONNECT_SECONDS)


async def test_a_quiet_connection_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEARTBEAT_SECONDS", 0.05)
    async with world.listening():
        (pid,) = await listeners(world.psql)
        query = "SELECT query FROM pg_stat_activity WHERE pid = $1"
        async with asyncio.timeout(RECONNECT_SECONDS):
            while await world.psql.fetchval(query, pid) != "SELECT 1":
                await asyncio.sleep(0.01)
        assert await listeners(world.psql) == [pid]
    assert world.counters.totals["listener", "lost"] == 0


async def test_postgres_may_come_after_the_listener(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "LAST_RETRY_SECONDS", 0.2)
    async with fault_proxy(world.url) as (proxy, url):
        await proxy.become("refuse")
        async with listening(world.cache, url, Tables()):
            await until(lambda: bool(caplog.records), SECONDS)
            await proxy.become("cut")
            await until(lambda: proxy.connections >= 3, RECONNECT_SECONDS)
            await world.renew(EVERYTHING)
            await proxy.become("none")
            await world.until_gone(EVERYTHING, seconds=RECONNECT_SECONDS)
    assert sum("retrying" in line for line in caplog.messages) == 1  # not one for each try


@pytest.mark.parametrize("fault", ["none", "silence", "refuse"])
async def test_it_ends_at_once(world: World, fault: Any) -> None:
    async with fault_proxy(world.url) as (proxy, url):
        async with world.listening(url):
            await proxy.become(fault)
            started = time.monotonic()
        assert time.monotonic() - started < SECONDS
    await until_nobody_listens(world.psql)


async def test_a_database_without_triggers_is_told_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [line for line in caplog.messages if "no trigger named notify_cache_tags" in line]

    async with world.listening():
        assert len(told()) == 1
        for pid in await listeners(world.psql):
            await world.psql.execute("SELECT pg_terminate_backend($1)", pid)
        await world.until("connected", 2)
        await world.until("invalidated", 2)
    assert len(told()) == 1


async def test_nothing_is_told_of_a_database_with_triggers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.psql.execute("CREATE TABLE planets (id int)")
    await world.psql.execute(TRIGGER.format("planets"))
    async with world.listening():
        assert "no trigger" not in caplog.text


async def test_a_service_without_postgres_starts_and_ends(cache_url: str) -> None:
    url = f"postgresql+asyncpg://app:app@127.0.0.1:{free_port()}/app"
    settings = Settings(
        environment="test",
        log_level="WARNING",
        database_url=url,
        cache_url=cache_url,
        cache_listen=True,
    )
    async with asyncio.timeout(SECONDS), serving(settings) as client:
        assert (await client.get("/health/live")).status_code == 200


async def test_the_service_listens_only_when_it_is_told_to(settings: Settings) -> None:
    psql = await asyncpg.connect(asyncpg_dsn(settings.database_url))
    async with serving(settings) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert await listeners(psql) == []
    async with serving(settings.model_copy(update={"cache_listen": True})):
        async with asyncio.timeout(RECONNECT_SECONDS):
            while len(await listeners(psql)) != 1:
                await asyncio.sleep(0.01)
    await until_nobody_listens(psql)
    await psql.close()


async def test_parameters_that_sqlalchemy_understands_may_be_in_the_url(world: World) -> None:
    query = {"ssl": "prefer", "prepared_statement_cache_size": "0"}
    url = make_url(world.url).update_query_dict(query)
    async with world.listening(url.render_as_string(hide_password=False)):
        pass
