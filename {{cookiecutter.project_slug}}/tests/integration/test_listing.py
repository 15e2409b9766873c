"""Pages of tables of any key, over rows that sort alike."""

import uuid
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Sessions
from app.listing import Key, SortedQuery, SortText, fetch_page, sortable
from app.service import open_service
from app.settings import Settings

ROWS, LIMIT = 12, 5


class Base(DeclarativeBase):
    pass


class Star(Base):
    __tablename__ = "stars"
    id: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[str]


class Moon(Base):
    __tablename__ = "moons"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    colour: Mapped[str]


class Orbit(Base):
    __tablename__ = "orbits"
    planet: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[str]


class Query(SortedQuery):
    sort: Annotated[SortText, sortable("colour")] = "-colour"


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    async with open_service(settings) as service:
        async with service.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with service.sessions.write.begin() as session:
            for number in range(ROWS):
                orbit = Orbit(planet="ab"[number % 2], number=-number, colour="red")
                session.add_all([Star(colour="red"), Moon(colour="red"), orbit])
        yield service.sessions


@pytest.mark.parametrize(
    "key",
    [Star.id, Moon.id, (Orbit.planet, Orbit.number)],
    ids=["integer", "UUID", "composite"],
)
async def test_each_row_is_on_one_page_whatever_the_key(
    sessions: Sessions, key: Key | tuple[Key, ...]
) -> None:
    columns = key if isinstance(key, tuple) else (key,)
    shown: list[tuple[object, ...]] = []
    for offset in range(0, ROWS, LIMIT):
        async with sessions.read() as session:
            query = Query(limit=LIMIT, offset=offset)
            rows, total = await fetch_page(session, select(*columns), query, key=key)
        assert total == ROWS
        shown += [tuple(row)[: len(columns)] for row in rows]
    assert len(set(shown)) == len(shown) == ROWS
    assert shown == sorted(shown)
