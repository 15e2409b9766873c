"""A write and a read of one value meet, however each has spelled it: over PostgreSQL and Redis."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import DateTime, Numeric, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import cache
from tests.integration.cache.fenced import World, fenced
from tests.unit.cache.serving import serving, status

ID = uuid.UUID("c56a4180-65aa-42ec-a945-5fd21dec0538")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
bearer = OAuth2PasswordBearer("/token")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    __cache_tags__ = (
        "item:{id}", "code:{code}", "colour:{colour}", "sold:{sold}", "price:{price}",
        "made:{made}", "owner:{owner_id}",
    )  # fmt: skip

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[uuid.UUID]
    colour: Mapped[Colour]
    sold: Mapped[bool]
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    made: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    owner_id: Mapped[int | None]
    name: Mapped[str]


@pytest.fixture
async def world(empty_database_url: str, cache_url: str) -> AsyncIterator[World]:
    async with fenced(Base, [], empty_database_url, cache_url) as world:
        async with world.sessions.begin() as session:
            session.add(item(1))
        yield world


def item(number: int, **values: Any) -> Item:
    usual = {
        "code": ID, "colour": Colour.RED, "sold": True, "price": Decimal("1.50"), "made": MOMENT,
        "owner_id": 7, "name": "old",
    }  # fmt: skip
    return Item(id=number, **(usual | values))


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()

    def route(field: str, kind: Any, path: str, tag: str) -> None:
        async def names(value: kind = None) -> list[str]:
            async with world.sessions() as session:
                found = select(Item.name).order_by(Item.id)
                if value is not None:
                    found = found.where(getattr(Item, field) == value)
                return [*await session.scalars(found)]

        app.get(path, name=path)(cache(60, public=True, tags=[tag])(names))

    route("id", int, "/id/{value}", "item:{value}")
    route("id", int, "/convertor/{value:int}", "item:{value}")
    route("code", uuid.UUID, "/code/{value}", "code:{value}")
    route("colour", Colour, "/colour/{value}", "colour:{value}")
    route("sold", bool, "/sold/{value}", "sold:{value}")
    route("price", Decimal, "/price/{value}", "price:{value}")
    route("price", float, "/float/{value}", "price:{value}")
    route("made", datetime, "/made/{value}", "made:{value}")
    route("owner_id", int | None, "/owned", "owner:{value}")
    async with serving(app, world.cache) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("/id/", "01", "1.0"),
        ("/id/", "1", "%201"),
        ("/convertor/", "1", "0001"),
        ("/code/", str(ID).upper(), f"urn:uuid:{ID}"),
        ("/code/", str(ID), ID.hex),
        ("/colour/", "red", "red"),
        ("/sold/", "true", "1"),
        ("/price/", "1.5", "1.50"),
        ("/float/", "1.5", "15e-1"),
        ("/made/", "2026-01-02T03:04:05Z", "2026-01-02T05:04:05%2B02:00"),
        ("/owned?value=", "7", "%2B7"),
    ],
)
async def test_after_a_write_every_spelling_reads_what_is_true(
    path: str, one: str, other: str, client: httpx.AsyncClient, world: World
) -> None:
    for text in (one, other):
        assert (await client.get(path + text)).json() == ["old"]
        assert status(await client.get(path + text)) == "hit"
    async with world.sessions.begin() as session:
        (await session.get_one(Item, 1)).name = "new"
    for text in (other, one):
        assert (await client.get(path + text)).json() == ["new"]


@pytest.mark.parametrize("owner", [7, None])
async def test_a_list_that_asked_for_no_owner_sees_the_rows_of_each(
    owner: int | None, client: httpx.AsyncClient, world: World
) -> None:
    assert (await client.get("/owned")).json() == ["old"]
    assert (await client.get("/owned?value=8")).json() == []
    async with world.sessions.begin() as session:
        session.add(item(2, owner_id=owner))
    assert (await client.get("/owned")).json() == ["old", "old"]
    assert status(await client.get("/owned?value=8")) == "hit"


async def test_a_row_that_gets_an_owner_leaves_no_list_as_it_was(
    client: httpx.AsyncClient, world: World
) -> None:
    async with world.sessions.begin() as session:
        session.add(item(2, owner_id=None))
    assert (await client.get("/owned?value=8")).json() == []
    async with world.sessions.begin() as session:
        (await session.get_one(Item, 2)).owner_id = 8
    assert (await client.get("/owned?value=8")).json() == ["old"]
    async with world.sessions.begin() as session:
        (await session.get_one(Item, 2)).owner_id = None
    assert (await client.get("/owned?value=8")).json() == []


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/price/2.01", {"price": Decimal("2.0051")}),
        ("/price/2.5", {"price": 2.5}),
        ("/colour/blue", {"colour": "BLUE"}),
    ],
)
async def test_a_value_that_the_database_makes_another_of_is_found_as_that(
    path: str, values: dict[str, Any], client: httpx.AsyncClient, world: World
) -> None:
    assert (await client.get(path)).json() == []
    async with world.sessions.begin() as session:
        session.add(item(2, **values))
    assert (await client.get(path)).json() == ["old"]


async def test_a_moment_in_another_zone_is_the_same_in_a_row(
    client: httpx.AsyncClient, world: World
) -> None:
    assert (await client.get("/made/2026-05-01T00:00:00Z")).json() == []
    async with world.sessions.begin() as session:
        there = datetime(2026, 5, 1, 2, tzinfo=timezone(timedelta(hours=2)))
        session.add(item(2, made=there))
    assert (await client.get("/made/2026-05-01T00:00:00Z")).json() == ["old"]


async def user(token: Annotated[str, Depends(bearer)]) -> int:
    return int(token)


async def test_the_write_of_one_user_drops_the_list_of_that_user_alone(world: World) -> None:
    app = FastAPI()

    async def mine(owner: Annotated[int, Depends(user)]) -> list[str]:
        async with world.sessions() as session:
            return [*await session.scalars(select(Item.name).where(Item.owner_id == owner))]

    app.get("/mine")(cache(60, guard=user, per_user=True, tags=["owner:{owner}"])(mine))
    async with serving(app, world.cache) as client:

        async def read(name: int) -> httpx.Response:
            return await client.get("/mine", headers={"authorization": f"Bearer {name}"})

        assert [(await read(name)).json() for name in (7, 8)] == [["old"], []]
        async with world.sessions.begin() as session:
            (await session.get_one(Item, 1)).name = "new"
        assert (await read(7)).json() == ["new"]
        assert status(await read(8)) == "hit"
