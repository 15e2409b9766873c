"""P1, P2: a COMMIT that was sent and not answered is fenced until PostgreSQL has settled it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import Cache, open_cache
from app.cache.events import Counters
from app.cache.flights import Miss
from app.cache.policy import Policy
from app.cache.reads import Learned
from app.cache.sql.observer import observe
from app.cache.sql.tables import Tables
from app.cache.store import Computed
from tests.faults import FaultProxy, fault_proxy

TAG, HOLD_SECONDS, TIMEOUT_SECONDS, SLOW_SECONDS = "counter:1", 0.6, 0.4, 2.0
WAIT_SECONDS = 20

# As a WAL that does not reach the disk: it takes long, and cannot be cancelled.
SLOW_COMMIT = f"""
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + interval '{SLOW_SECONDS} s';
BEGIN
    WHILE clock_timestamp() < until LOOP
        BEGIN
            PERFORM pg_sleep(0.05);
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slowly AFTER UPDATE ON counters
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly();
"""
REFUSED_COMMIT = "ALTER TABLE counters ADD UNIQUE (value) DEFERRABLE INITIALLY DEFERRED"


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counters"
    __cache_tags__ = ("counter:{id}",)

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class World:
    """One who writes through a proxy, and one who reads past it; each has a cache of its own."""

    def __init__(
        self, writer: Cache, reader: Cache, database_url: str, proxy: FaultProxy, proxied: str
    ) -> None:
        self.writer, self.reader, self.proxy = writer, reader, proxy
        self.engine = create_async_engine(database_url)
        self.slow_engine = create_async_engine(
            proxied, connect_args={"command_timeout": TIMEOUT_SECONDS, "timeout": 1}
        )
        self.sessions = async_sessionmaker(self.slow_engine, expire_on_commit=False)
        observe(self.slow_engine, writer, Tables(Base.registry))

    async def read(self, through: Cache | None = None) -> int:
        async def compute() -> Computed:
            return Computed(b"%d" % await self.stored())

        policy = Policy(60)
        miss = Miss("key", [TAG, "counter:*"], policy, Learned("key", policy), compute)
        return int(await (through or self.reader).fetch(miss))

    async def stored(self) -> int:
        async with self.engine.connect() as connection:
            return int(await connection.scalar(text("SELECT value FROM counters WHERE id = 1")))

    async def write(self, value: int) -> None:
        async with self.sessions.begin() as session:
            (await session.get_one(Counter, 1)).value = value

    async def execute(self, statement: str) -> None:
        async with self.engine.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.execute(statement)

    async def reads_while_in_doubt(self, expected: int, seconds: float) -> None:
        """For so long nobody finds an entry: what is read is computed, and not stored."""
        async with asyncio.timeout(WAIT_SECONDS):
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                assert self.writer.pending == 3  # its tag, counter:? and table:counters
                for cache in (self.reader, self.writer):
                    assert await self.read(cache) == expected
                    assert (await cache.store.lookup("key", [TAG, "counter:*"])).entry is None
                await asyncio.sleep(0.05)

    async def settled(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self.writer.pending:
                await asyncio.sleep(0.02)

    async def becomes_hit(self, value: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while (await self.reader.store.lookup("key", [TAG, "counter:*"])).state != "fresh":
                assert await self.read() == value
        assert await self.read() == value


@asynccontextmanager
async def opened(database_url: str, cache_url: str, writers_url: str = "") -> AsyncIterator[World]:
    async with (
        fault_proxy(database_url) as (proxy, proxied),
        open_cache(writers_url or cache_url, name="test", recorder=Counters()) as writer,
        open_cache(cache_url, name="test") as reader,
    ):
        world = World(writer, reader, database_url, proxy, proxied)
        try:
            async with world.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(text("INSERT INTO counters VALUES (1, 0), (2, 99)"))
            await world.becomes_hit(0)
            yield world
        finally:
            proxy.let_through()
            await proxy.become("none")
            await world.slow_engine.dispose()
            await world.engine.dispose()


@pytest.fixture
async def world(
    empty_database_url: str, cache_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    for module in ("backends.redis.backend", "writes"):
        monkeypatch.setattr(f"app.cache.{module}.HOLD_SECONDS", HOLD_SECONDS)
    async with opened(empty_database_url, cache_url) as world:
        yield world


def counted(world: World) -> dict[str, float]:
    totals = world.writer.recorder.totals  # type: ignore[attr-defined]
    return {label: totals["commit_in_doubt", label] for label in ("open", "settled")}


async def test_a_commit_that_arrives_after_its_client_gave_up_is_seen(world: World) -> None:
    world.proxy.hold_back(b"COMMIT")
    with pytest.raises(TimeoutError):
        await world.write(1)
    await world.reads_while_in_doubt(0, 3 * HOLD_SECONDS)
    assert counted(world) == {"open": 1, "settled": 0}
    world.proxy.let_through()
    await world.settled()
    assert await world.read() == await world.stored() == 1
    await world.becomes_hit(1)
    assert counted(world) == {"open": 1, "settled": 1}


async def test_a_commit_that_outlasts_its_client_is_seen(world: World) -> None:
    await world.execute(SLOW_COMMIT)
    with pytest.raises(TimeoutError):
        await world.write(1)
    await world.reads_while_in_doubt(0, SLOW_SECONDS / 2)
    await world.settled()
    await world.becomes_hit(1)


async def test_a_commit_that_outlasts_its_hold_keeps_it(world: World) -> None:
    await world.execute(SLOW_COMMIT.replace("2.0 s", "1.2 s"))
    patient = create_async_engine(world.engine.url)  # without a timeout
    observe(patient, world.writer, Tables(Base.registry))
    world.sessions.configure(bind=patient)
    writing = asyncio.create_task(world.write(1))
    async with asyncio.timeout(WAIT_SECONDS):
        while (await world.reader.backend.begin("key", [TAG], "t")).generations is not None:
            await asyncio.sleep(0.01)
    while not writing.done():
        begun = await world.reader.backend.begin("key", [TAG], "t")
        assert begun.generations is None or await world.stored() == 1
        await asyncio.sleep(0.02)
    await writing
    await patient.dispose()
    assert counted(world) == {"open": 0, "settled": 0}
    await world.becomes_hit(1)


async def test_a_commit_whose_server_process_is_gone_leaves_the_old_row(world: World) -> None:
    world.proxy.hold_back(b"COMMIT")
    writing = asyncio.create_task(world.write(1))
    await world.proxy.holding.wait()
    await world.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    with pytest.raises(Exception, match=r"connection|terminat"):
        await writing
    await world.settled()
    assert counted(world) == {"open": 1, "settled": 1}
    await world.becomes_hit(0)


async def test_a_commit_of_a_cancelled_request_is_seen(world: World) -> None:
    world.proxy.hold_back(b"COMMIT")
    writing = asyncio.create_task(world.write(1))
    await world.proxy.holding.wait()
    writing.cancel()
    await asyncio.wait([writing])
    await world.reads_while_in_doubt(0, HOLD_SECONDS)
    world.proxy.let_through()
    await world.settled()
    await world.becomes_hit(await world.stored())


async def test_a_commit_that_is_refused_is_not_in_doubt(world: World) -> None:
    await world.execute(REFUSED_COMMIT)
    with pytest.raises(IntegrityError):
        await world.write(99)
    assert counted(world) == {"open": 0, "settled": 0}
    await world.becomes_hit(0)


async def test_a_database_that_does_not_answer_is_asked_again(world: World) -> None:
    world.proxy.hold_back(b"COMMIT")
    with pytest.raises(TimeoutError):
        await world.write(1)
    await world.proxy.become("refuse")
    await world.reads_while_in_doubt(0, 2 * HOLD_SECONDS)
    await world.proxy.become("none")
    world.proxy.let_through()
    await world.settled()
    await world.becomes_hit(await world.stored())


async def test_a_process_that_ends_in_doubt_says_so_and_leaves_the_hold(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.engine.DRAIN_SECONDS", 0.1)
    world.proxy.hold_back(b"COMMIT")
    with pytest.raises(TimeoutError):
        await world.write(1)
    with caplog.at_level(logging.ERROR):
        await world.writer.aclose()
    assert "1 COMMITs in doubt" in caplog.text
    assert (await world.reader.backend.begin("key", [TAG], "t")).generations is None


async def test_a_hold_that_redis_did_not_take_is_taken_while_in_doubt(
    empty_database_url: str, cache_url: str
) -> None:
    async with (
        fault_proxy(cache_url) as (redis_proxy, redis_url),
        opened(empty_database_url, cache_url, redis_url) as world,
    ):
        assert await world.read(world.writer) == 0
        world.proxy.hold_back(b"COMMIT")
        await redis_proxy.become("refuse")
        with pytest.raises(TimeoutError):
            await world.write(1)
        assert (await world.writer.store.lookup("key", [TAG])).entry is None
        await redis_proxy.become("none")
        async with asyncio.timeout(WAIT_SECONDS):
            while (await world.reader.backend.begin("key", [TAG], "t")).generations is not None:
                await asyncio.sleep(0.02)
        world.proxy.let_through()
        await world.settled()
        await world.becomes_hit(1)
