"""Items that are found by values of each type, in each spelling that a client may choose."""

import uuid
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
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


def route(path: str, kind: Any, column: Any, tag: str) -> None:
    """An endpoint that is given a value of this type, and finds the items that have it."""

    async def find(session: ReadSessionDep, value: Any) -> list[str]:
        return await labels(session, column == value)

    find.__annotations__["value"] = kind
    router.get(path)(cached(tag)(find))


route("/number/{item_id}", Annotated[int, Path(alias="item_id")], Item.item_id, "item:{item_id}")
route("/convertor/{value:int}", int, Item.item_id, "item:{value}")
route("/query", Annotated[int, Query(alias="item-id")], Item.item_id, "item:{value}")
route("/code/{value}", uuid.UUID, Item.code, "item-code:{value}")
route("/slug/{value}", Annotated[str, AfterValidator(str.upper)], Item.slug, "item-slug:{value}")
route("/price/{value}", Decimal, Item.price, "items-at:{value}")
route("/kind/{value}", Kind, Item.kind, "items-like:{value}")
route("/use/{value}", bool, Item.active, "items-in-use:{value}")
route("/time/{value}", datetime, Item.made, "items-made:{value}")
route("/day/{value}", date, Item.day, "items-of:{value}")


@cached("items-like:{kind}")
async def alike(kind: Kind) -> list[str]:
    async with reading() as session:
        return await labels(session, Item.kind == kind)


@router.get("/function/kind/{kind}")
@cached()
async def call_alike(kind: Kind) -> list[str]:
    return await alike(kind)


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
