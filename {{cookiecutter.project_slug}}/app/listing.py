"""What all lists have in common: `limit`, `offset`, `sort`, and the body of a page.

A resource declares its parameters as a subclass of `ListQuery` with a `sort` field, writes one
`select` for its filters, and hands both to `fetch_page`.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from app.database import Base, ReadSession

MAX_LIMIT = 250
MAX_OFFSET = 100_000

Item = TypeVar("Item")
Row = TypeVar("Row", bound=Base)


class ListQuery(BaseModel):
    limit: int = Field(default=50, ge=1, le=MAX_LIMIT)
    offset: int = Field(default=0, ge=0, le=MAX_OFFSET)


class SortedQuery(ListQuery):
    sort: str


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    total: int = Field(description="How many there are on all pages together.")
    limit: int
    offset: int

    @classmethod
    def of(cls, rows: Iterable[object], total: int, query: ListQuery) -> Self:
        page = {"items": rows, "total": total, "limit": query.limit, "offset": query.offset}
        return cls.model_validate(page, from_attributes=True)


def sortable(*fields: str) -> AfterValidator:
    """Comma separated names out of `fields`, each with `-` in front for descending order."""

    def check(value: str) -> str:
        for name in _sort_names(value):
            if name.removeprefix("-") not in fields:
                raise ValueError(f"cannot sort by {name!r}: sort by {', '.join(fields)}")
        return value

    return AfterValidator(check)


SortText = Annotated[
    str,
    Field(
        max_length=200,
        description="Field names, separated by commas; `-` in front means descending.",
        examples=["-name"],
    ),
]


async def fetch_page(
    session: ReadSession,
    matching: Select[Row],
    query: SortedQuery,
    *,
    key: InstrumentedAttribute[str],
) -> tuple[Sequence[Row], int]:
    """One page of the rows that match, and how many match in all. `key` is the primary key."""
    # The key comes last, so that rows that sort alike keep one order over all pages.
    order = [*_order(key.class_, query.sort), key]
    rows = await session.scalars(matching.order_by(*order).limit(query.limit).offset(query.offset))
    total = await session.scalar(select(func.count()).select_from(matching.subquery()))
    return rows.all(), total or 0


def _order(model: Any, sort: str) -> Iterable[Any]:
    for name in _sort_names(sort):
        column = getattr(model, name.removeprefix("-"))
        yield column.desc() if name.startswith("-") else column.asc()


def _sort_names(sort: str) -> list[str]:
    return [name.strip() for name in sort.split(",")]
