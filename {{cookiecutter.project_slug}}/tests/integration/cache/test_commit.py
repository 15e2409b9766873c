"""P1, P3: what a transaction changes is invalidated around its COMMIT, and by nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import ForeignKey, delete, insert, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import Cache, open_cache
from app.cache.commit import invalidate, invalidate_on_commit


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


@dataclass
class World:
    cache: Cache
    sessions: async_sessionmaker  # type: ignore[type-arg]
    engine: AsyncEngine

    @asynccontextmanager
    async def invalidated(self, *expected: str) -> AsyncIterator[None]:
        """In the block, the generations of exactly these tags come to an end."""
        before = {tag: (await self.cache.backend.begin(tag, [tag], "t"))[0] for tag in ALL}
        assert None not in before.values()
        yield
        after = {tag: (await self.cache.backend.read(tag, [tag]))[1] for tag in ALL}
        assert {tag for tag in ALL if before[tag] != after[tag]} == set(expected)
        for tag in ALL:
            assert (await self.cache.backend.begin(tag, [tag], "t"))[0], f"{tag} is still held"


@pytest.fixture
async def world(empty_database_url: str, cache_url: str) -> AsyncIterator[World]:
    engine = create_async_engine(empty_database_url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with open_cache(cache_url, name="test") as cache:
        invalidate_on_commit(sessions, cache)
        async with sessions.begin() as session:
            session.add_all(
                [Planet(name="Mars", colour="red"), Planet(name="Venus", colour="white")]
            )
        yield World(cache, sessions, engine)
    await engine.dispose()


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
    async with world.invalidated("planets"), world.sessions.begin() as session:
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
    seen: list[bytes | None] = []
    release = world.cache.release

    async def look_then_release(*args: object, **kwargs: object) -> None:
        seen.append((await world.cache.backend.begin("k", ["planets"], "reader"))[0])
        await release(*args, **kwargs)  # type: ignore[arg-type]

    world.cache.release = look_then_release  # type: ignore[method-assign]
    async with world.sessions.begin() as session:
        (await session.get_one(Planet, "Mars")).colour = "rust"
    assert seen == [None]
