"""Items that are found by values of each type, in each spelling that a client may choose."""

import uuid
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel
from sqlalchemy import ColumnElement, DateTime, Numeric, select
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, ReadSession, ReadSessionDep, WriteSessionDep
from tests.integration.cache.library.declared import cached, reading, tags

router = APIRouter(prefix="/items")


class Kind(Enum):
    PAPER = "paper"
    AUDIO = "audio"


class Item(Base):
    __tablename__ = "items"
    __cache_tags__ = tags(
        "items", "item:{item_id}", "item-code:{code}", "item-slug:{slug}", "items-at:{price}",
        "items-like:{kind}", "items-in-use:{active}", "items-made:{made}", "items-of:{day}",
    )  # fmt: skip

    item_id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    code: Mapped[uuid.UUID]
    slug: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 3))
    kind: Mapped[Kind]
    active: Mapped[bool]
    made: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    day: Mapped[date]


class NewItem(BaseModel):
    label: str
    code: uuid.UUID
    slug: str
    price: Decimal
    kind: Kind
    active: bool
    made: datetime
    day: date


@router.post("", status_code=201)
async def create_item(new: NewItem, session: WriteSessionDep) -> int:
    session.add(item := Item(**new.model_dump()))
    await session.flush()
    return item.item_id


@router.post("/{item_id}/label", status_code=204)
async def relabel_item(item_id: int, session: WriteSessionDep) -> None:
    (await session.get_one(Item, item_id)).label = uuid.uuid4().hex


async def labels(session: ReadSession, *conditions: ColumnElement[bool]) -> list[str]:
    query = select(Item.label).where(*conditions).order_by(Item.item_id.desc()).limit(20)
    return [*await session.scalars(query)]


@router.get("/number/{item_id}")
@cached("item:{item_id}")
async def read_item(item_id: int, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.item_id == item_id)


@router.get("/convertor/{item_id:int}")
@cached("item:{item_id}")
async def read_converted(item_id: int, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.item_id == item_id)


@router.get("/query")
@cached("item:{item_id}")
async def read_queried(item_id: int, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.item_id == item_id)


@router.get("/alias")
@cached("item:{item_id}")
async def read_aliased(
    item_id: Annotated[int, Query(alias="item-number")], session: ReadSessionDep
) -> list[str]:
    return await labels(session, Item.item_id == item_id)


@router.get("/code/{code}")
@cached("item-code:{code}")
async def read_coded(code: uuid.UUID, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.code == code)


Slug = Annotated[str, AfterValidator(str.upper)]


@router.get("/slug/{slug}")
@cached("item-slug:{slug}")
async def read_named(slug: Slug, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.slug == slug)


@router.get("/price/{price}")
@cached("items-at:{price}")
async def list_priced(price: Decimal, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.price == price)


@router.get("/kind/{kind}")
@cached("items-like:{kind}")
async def list_alike(kind: Kind, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.kind == kind)


@router.get("/use/{active}")
@cached("items-in-use:{active}")
async def list_active(active: bool, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.active == active)


@router.get("/time/{made}")
@cached("items-made:{made}")
async def list_made(made: datetime, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.made == made)


@router.get("/day/{day}")
@cached("items-of:{day}")
async def list_of_day(day: date, session: ReadSessionDep) -> list[str]:
    return await labels(session, Item.day == day)


@cached("items-like:{kind}")
async def alike(kind: Kind) -> list[str]:
    async with reading() as session:
        return await labels(session, Item.kind == kind)


@router.get("/function/kind/{kind}")
@cached()
async def call_alike(kind: Kind) -> list[str]:
    return await alike(kind)


@cached("items-at:{price}")
async def priced(price: Decimal) -> list[str]:
    async with reading() as session:
        return await labels(session, Item.price == price)


@router.get("/function/price/{price}")
@cached()
async def call_priced(price: Decimal) -> list[str]:
    return await priced(price)


# What the endpoint can tell apart, and what it cannot.


@router.get("/limited")
@cached("items")
async def list_limited(session: ReadSessionDep, limit: int = 20, kind: Kind | None = None) -> int:
    return min(limit, len(await labels(session, *([Item.kind == kind] if kind else []))))


class Given(BaseModel):
    limit: int = 20


@router.get("/given")
@cached("items")
async def list_given(given: Annotated[Given, Query()]) -> dict[str, int]:
    return given.model_dump(exclude_unset=True)


@router.get("/either")
@cached("items")
async def tell_type(limit: int | str = 20) -> dict[str, Any]:
    return {"type": type(limit).__name__}


@router.get("/written/{price}")
@cached("items-at:{price}")
async def write_price(price: Decimal) -> str:
    return str(price)
