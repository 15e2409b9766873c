"""Pages of tables of any key, over rows that sort alike."""

import uuid
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Sessions
from app.listing import (
    Key,
    ListQuery,
    Shown,
    SortedQuery,
    SortText,
    fetch_page,
    fetch_slice,
    sortable,
)
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


@pytest.mark.parametrize(
    ("ordered", "total"),
    [
        (select(Star).order_by(Star.id), ROWS),
        (select(Orbit.number).join(Star, Star.id == -Orbit.number).order_by(Star.id), ROWS - 1),
        (select(Orbit.planet).distinct().order_by(Orbit.planet), 2),
        (select(Orbit.planet, func.count()).group_by(Orbit.planet).order_by(Orbit.planet), 2),
        (
            select(Orbit.planet.label("p"), func.count()).group_by("p").having(func.count() > ROWS),
            0,
        ),
    ],
    ids=["rows of a model", "join", "distinct", "groups", "groups by a label, none"],
)
async def test_the_total_counts_what_is_shown(
    sessions: Sessions, ordered: Shown, total: int
) -> None:
    async with sessions.read() as session:
        rows, counted = await fetch_slice(session, ordered, ListQuery(limit=1))
    assert (len(rows), counted) == (min(1, total), total)
