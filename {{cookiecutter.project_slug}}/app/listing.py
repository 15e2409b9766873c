"""What all lists have in common: `limit`, `offset`, `sort`, and the body of a page.

A resource declares its parameters as a subclass of `SortedQuery`, writes one `select` of what it
shows, with its filters, and hands both to `fetch_page`.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Generic, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Row, Select, func, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute

from app.database import ReadSession

MAX_LIMIT = 250
MAX_OFFSET = 100_000

Item = TypeVar("Item")
Key: TypeAlias = InstrumentedAttribute[Any]  # of any type
Shown: TypeAlias = Select[*tuple[Any, ...]]  # any columns
ShownRow: TypeAlias = Row[*tuple[Any, ...]]
PageRows: TypeAlias = tuple[Sequence[ShownRow], int]  # of one page, and how many match in all


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
    matching: Shown,
    query: SortedQuery,
    *,
    key: Key | tuple[Key, ...],
) -> PageRows:
    """One page of the rows that match, and how many match in all.

    `key` is the primary key: one column, or a tuple of columns.
    """
    keys = key if isinstance(key, tuple) else (key,)
    # The key comes last, so that rows that sort alike keep one order over all pages.
    model: Any = keys[0].class_
    order = [*_order(model, query.sort), *keys]
    return await fetch_slice(session, matching.order_by(*order), query)


async def fetch_slice(session: ReadSession, ordered: Shown, query: ListQuery) -> PageRows:
    count = select(func.count()).select_from(_counted(ordered).subquery())
    # In the statement of the page, which spares a round trip. A window (`count(*) OVER ()`) would
    # read and keep every row that matches, where the count alone is done by an index.
    counted = ordered.add_columns(count.scalar_subquery().label("total"))
    rows = (await session.execute(counted.limit(query.limit).offset(query.offset))).all()
    if rows:
        return rows, rows[0].total
    # A page behind the end has no row to carry the total.
    return rows, await session.scalar(count) or 0


def _counted(ordered: Shown) -> Shown:
    """The rows without their columns, which cost SQLAlchemy and PostgreSQL time, where columns do
    not decide how many rows there are. (A function that makes rows belongs into FROM.)"""
    unordered = ordered.order_by(None)
    if ordered._distinct or ordered._group_by_clauses:
        return unordered
    return unordered.with_only_columns(literal_column("1"), maintain_column_froms=True)


@lru_cache(maxsize=256)
def _order(model: Any, sort: str) -> Sequence[Any]:
    columns = [(name, getattr(model, name.removeprefix("-"))) for name in _sort_names(sort)]
    return [column.desc() if name.startswith("-") else column.asc() for name, column in columns]


def _sort_names(sort: str) -> list[str]:
    return [name.strip() for name in sort.split(",")]
