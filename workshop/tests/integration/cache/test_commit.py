"""P1, P3: what a transaction changes is invalidated around its COMMIT, and by nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from sqlalchemy import ForeignKey, delete, insert, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import CacheUnavailable, RedisBackend, invalidate, open_cache
from app.cache.backends.base import Generations
from app.cache.entry import Entry
from app.cache.policy import EVERYTHING
from tests.faults import fault_proxy
from tests.integration.cache.fenced import World, fenced, observed
from tests.services import StoppableRedis


class Base(DeclarativeBase):
    pass


class Planet(Base):
    __tablename__ = "planets"
    __cache_tags__ = ("planets", "planet:{name}")

    name: Mapped[str] = mapped_column(primary_key=True)
    colour: Mapped[str]


class Moon(Base):
    __tablename__ = "moons"
    __cache_tags__ = ("moons", "moons:{planet}")

    name: Mapped[str] = mapped_column(primary_key=True)
    planet: Mapped[str] = mapped_column(ForeignKey("planets.name"))


class Note(Base):
    __tablename__ = "notes"

    text: Mapped[str] = mapped_column(primary_key=True)


ALL = ["planets", "planet:*", "planet:Mars", "planet:Venus", "moons", "moons:*", "moons:Mars"]


@pytest.fixture
async def world(empty_database_url: str, cache_url: str) -> AsyncIterator[World]:
    async with fenced(Base, ALL, empty_database_url, cache_url) as world:
        async with world.sessions.begin() as session:
            session.add_all(
                [Planet(name="Mars", colour="red"), Planet(name="Venus", colour="white")]
            )
        yield world


async def test_an_insert_invalidates_the_tags_of_its_row(world: World) -> None:
    async with world.invalidated("moons", "moons:Mars"), world.sessions.begin() as session:
        session.add(Moon(name="Phobos", planet="Mars"))


async def test_an_update_invalidates_the_tags_of_the_row_before_and_after(world: World) -> None:
    async with world.sessions.begin() as session:
        session.add(Moon(name="Phobos", planet="Venus"))
    async with world.invalidated("moons", "moons:Mars"), world.sessions.begin() as session:
        moon = await session.get_one(Moon, "Phobos")
        moon.planet = "Mars"
    # Venus is not in ALL by this template; its tag is checked on its own.
    before = (await world.cache.backend.begin("k", ["moons:Mars"], "t"))[0]
    async with world.sessions.begin() as session:
        moon = await session.get_one(Moon, "Phobos")
        moon.planet = "Venus"
    assert (await world.cache.backend.read("k", ["moons:Mars"]))[1] != before


async def test_a_delete_invalidates_the_tags_of_its_row(world: World) -> None:
    async with world.invalidated("planets", "planet:Mars"), world.sessions.begin() as session:
        await session.delete(await session.get_one(Planet, "Mars"))


async def test_an_explicit_flush_before_commit_is_not_forgotten(world: World) -> None:
    async with world.invalidated("planets", "planet:Mars"), world.sessions.begin() as session:
        (await session.get_one(Planet, "Mars")).colour = "rust"
        await session.flush()


@pytest.mark.parametrize(
    "statement",
    [
        update(Planet).values(colour="grey"),
        delete(Planet).where(Planet.name == "Mars"),
        insert(Planet).values(name="Pluto", colour="grey"),
    ],
)
async def test_a_bulk_statement_invalidates_every_row_of_its_model(
    world: World, statement: object
) -> None:
    async with world.invalidated("planets", "planet:*"), world.sessions.begin() as session:
        await session.execute(statement)


async def test_textual_sql_says_itself_what_it_changes(world: World) -> None:
    async with world.invalidated("planets", "planet:*"), world.sessions.begin() as session:
        await session.execute(text("UPDATE planets SET colour = 'grey'"))
        invalidate(session, "planets")


async def test_reading_and_models_without_tags_invalidate_nothing(world: World) -> None:
    async with world.invalidated(), world.sessions.begin() as session:
        await session.get_one(Planet, "Mars")
        session.add(Note(text="hello"))


async def test_a_rollback_leaves_no_trace(world: World) -> None:
    async with world.invalidated(), world.sessions() as session:
        (await session.get_one(Planet, "Mars")).colour = "rust"
        await session.flush()
        await session.rollback()
        await session.commit()


async def test_what_a_savepoint_rolled_back_is_not_invalidated(world: World) -> None:
    async with (
        world.invalidated("planets", "planet:Venus"),
        world.sessions() as session,
    ):
        (await session.get_one(Planet, "Venus")).colour = "yellow"
        savepoint = await session.begin_nested()
        (await session.get_one(Planet, "Mars")).colour = "rust"
        await savepoint.rollback()
        await session.commit()


async def test_a_released_savepoint_that_is_rolled_back_later_leaves_no_trace(world: World) -> None:
    async with world.invalidated(), world.sessions() as session:
        async with session.begin_nested():
            (await session.get_one(Planet, "Mars")).colour = "rust"
        await session.rollback()


async def test_what_a_released_savepoint_changed_is_invalidated_by_the_commit(
    world: World,
) -> None:
    async with world.sessions() as session, world.invalidated("planets", "planet:Mars"):
        async with world.invalidated(), session.begin_nested():
            (await session.get_one(Planet, "Mars")).colour = "rust"
        await session.commit()


async def test_a_write_is_seen_after_a_failed_flush_in_a_savepoint(world: World) -> None:
    async with world.invalidated("planets", "planet:Mars"), world.sessions.begin() as session:
        (await session.get_one(Planet, "Mars")).colour = "rust"
        await session.flush()
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(Note(text="hello"))
                await session.flush()
                await session.execute(insert(Note).values(text="hello"))
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add_all([Moon(name="Phobos", planet="Vulcan")])


async def test_a_session_in_the_transaction_of_a_connection_invalidates_at_its_commit(
    world: World,
) -> None:
    async with (
        world.invalidated("planets", "planet:Mars"),
        world.engine.begin() as connection,
        world.invalidated(),
        world.sessions(bind=connection) as session,
    ):
        (await session.get_one(Planet, "Mars")).colour = "rust"
        await session.commit()


async def test_tags_named_without_any_statement_are_invalidated_by_the_commit(
    world: World,
) -> None:
    async with world.invalidated("moons", "moons:*"), world.sessions.begin() as session:
        invalidate(session, "moons")


async def test_a_session_that_commits_twice_invalidates_twice(world: World) -> None:
    async with world.sessions() as session:
        for colour in ("rust", "orange"):
            async with world.invalidated("planets", "planet:Mars"):
                (await session.get_one(Planet, "Mars")).colour = colour
                await session.commit()


async def test_a_failed_commit_releases_what_it_held(world: World) -> None:
    with pytest.raises(Exception, match="planets_pkey"):
        async with world.sessions.begin() as session:
            session.add(Planet(name="Mars", colour="again"))
    async with world.invalidated():
        pass


async def test_readers_are_held_off_between_hold_and_release(world: World) -> None:
    seen: list[Generations | None] = []
    release = world.cache.writes.release

    async def look_then_release(*args: object, **kwargs: object) -> None:
        seen.append((await world.cache.backend.begin("k", ["planets"], "reader"))[0])
        await release(*args, **kwargs)  # type: ignore[arg-type]

    world.cache.writes.release = look_then_release  # type: ignore[method-assign]
    async with world.sessions.begin() as session:
        (await session.get_one(Planet, "Mars")).colour = "rust"
    assert seen == [None]


async def test_a_write_is_two_round_trips_whatever_it_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(world.cache.backend, RedisBackend)
    client, calls = world.cache.backend._client, list[str]()
    call = client.call

    def counted(operation: str, *arguments: Any) -> Any:
        calls.append(operation)
        return call(operation, *arguments)

    monkeypatch.setattr(client, "call", counted)
    async with world.sessions.begin() as session:
        session.add_all([Planet(name=f"Planet {n}", colour="grey") for n in range(50)])
        session.add(Moon(name="Phobos", planet="Mars"))
    assert calls == ["hold", "release"]


async def test_an_invalidation_costs_the_same_with_10_and_with_10000_pages(
    own_redis: StoppableRedis,
) -> None:
    async with (
        redis.asyncio.Redis.from_url(own_redis.url) as server,
        open_cache(own_redis.url, name="test") as cache,
    ):
        costs = []
        for pages in (10, 10_000):
            generations, _, _ = await cache.backend.begin("key", ["pages"], "reader")
            entry = Entry(0, 0, 0, 0, 0, generations or {}, b"page").encode()
            async with server.pipeline(transaction=False) as pipeline:
                for page in range(pages):
                    pipeline.set(f"test:e:{page}", entry)
                await pipeline.execute()
            await server.config_resetstat()
            await cache.writes.release(await cache.writes.hold(["pages"]), changed=True)
            stats: dict[str, dict[str, int]] = await server.info("commandstats")
            costs.append({name: values["calls"] for name, values in stats.items()})
        assert costs[0] == costs[1]
        assert not {"cmdstat_scan", "cmdstat_keys"} & set(costs[1])


async def test_a_strict_write_fails_before_commit_when_the_cache_cannot_be_told(
    world: World, own_redis: StoppableRedis
) -> None:
    async with (
        open_cache(own_redis.url, name="test") as cache,
        observed(Base, world.url, cache, strict=True) as engine,
    ):
        sessions = async_sessionmaker(engine)
        own_redis.stop()
        with pytest.raises(CacheUnavailable):
            async with sessions.begin() as session:
                session.add(Planet(name="Pluto", colour="grey"))
        async with world.sessions() as session:
            assert await session.get(Planet, "Pluto") is None
        async with engine.begin() as connection:  # the refused one left no transaction open
            assert await connection.scalar(text("SELECT pg_current_xact_id_if_assigned()")) is None
        own_redis.start()
        async with asyncio.timeout(5):
            while True:
                try:
                    async with sessions.begin() as session:
                        session.add(Planet(name="Pluto", colour="grey"))
                    break
                except CacheUnavailable:
                    await asyncio.sleep(0.05)


async def test_a_redis_that_dies_after_commit_fails_nothing(
    world: World, own_redis: StoppableRedis
) -> None:
    async with (
        open_cache(own_redis.url, name="test") as cache,
        observed(Base, world.url, cache) as engine,
    ):
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        release = cache.writes.release

        async def stop_then_release(*args: Any, **kwargs: Any) -> None:
            own_redis.stop()
            await release(*args, **kwargs)

        cache.writes.release = stop_then_release  # type: ignore[method-assign]
        async with sessions() as session:
            session.add(Planet(name="Pluto", colour="grey"))
            await session.commit()
            assert await session.get(Planet, "Pluto") is not None
        assert cache.pending == 4  # planets, planet:Pluto, planet:? and table:planets
        own_redis.start()
        async with asyncio.timeout(5):
            while cache.pending:
                await asyncio.sleep(0.05)


async def test_so_many_owed_invalidations_become_one(
    cache_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.writes.MAX_OWED_TAGS", 3)
    async with fault_proxy(cache_url) as (proxy, url), open_cache(url, name="test") as cache:
        assert (await cache.backend.begin("key", [EVERYTHING], "reader")).generations
        await proxy.become("refuse")
        await cache.invalidate(*(f"tag{number}" for number in range(10)))
        await proxy.become("none")
        async with asyncio.timeout(5):
            while cache.pending:
                await asyncio.sleep(0.05)
        assert (await cache.backend.read("key", [EVERYTHING])).generations is None
