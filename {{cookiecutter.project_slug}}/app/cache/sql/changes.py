"""What a transaction changed, as tags: those of tables, and those that models declare.

Where the rows or their old values are not known, the families stand for them: each entry under a
template carries its family.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from functools import cache
from typing import Any

from sqlalchemy import CHAR, REAL, DateTime, Float, Numeric, Table, Uuid
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import InstanceState, Mapper, UOWTransaction
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.orm.base import PassiveFlag
from sqlalchemy.types import NULLTYPE, TypeEngine

from app.cache.policy import EVERYTHING, Tag
from app.cache.reads import Unclear
from app.cache.values import text_of

# More rows of one template are not worth telling apart: the family is one tag, and two small round
# trips hold and release it.
MAX_ROWS_PER_TEMPLATE = 200


class Changes:
    """The tags of what one transaction changed. A superset of them is right, too few are not."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}  # by family
        self.is_loose = True
        """Whether there is no transaction in the database yet."""
        self.is_over = False
        """Whether it has ended: what comes now belongs to another one."""
        self.flush: UOWTransaction | None = None
        """The last one that began, and has not told its rows."""
        self.unclear: tuple[Unclear, str] | None = None
        """Why it cannot be said what a statement changes, and the statement."""
        self.is_told = False
        """Whether `invalidate` has said it."""

    @property
    def rows_follow(self) -> bool:
        """Whether a flush sends its statements, and tells its rows after them."""
        transaction = getattr(self.flush, "transaction", None)
        return transaction is not None and transaction.is_active

    @property
    def tags(self) -> list[str]:
        if EVERYTHING in self._names:
            return [EVERYTHING]
        return sorted(name for names in self._names.values() for name in names)

    def add(self, name: str, family: str) -> None:
        names = self._names.setdefault(family, set())
        if family not in names:
            names.add(name)
            if name == family or len(names) > MAX_ROWS_PER_TEMPLATE + 1:  # and `author:?`
                self._names[family] = {family}

    def update(self, other: "Changes") -> None:
        for family, names in other._names.items():
            for name in names:
                self.add(name, family)
        self.flush = self.flush or other.flush
        self.unclear = self.unclear or other.unclear
        self.is_told |= other.is_told

    def clear(self) -> None:
        self._names.clear()
        self.unclear = None

    def add_row(self, state: InstanceState[Any]) -> None:
        for tag, family in _declared(state.mapper):
            for name in _names(tag, family, state) if tag.fields else (family,):
                self.add(name, family)

    def add_parameters(
        self, table: Table, tags: Iterable[Tag], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """The rows of an association table, by the parameters of the statement of a flush."""
        for tag in tags:
            for row in rows:
                kept = all(
                    field in row and _is_kept(row[field], table.c[field].type)
                    for field in tag.fields
                )
                for name in tag.changed(row) if kept else (tag.family,):
                    self.add(name, tag.family)

    def add_families(self, families: Iterable[str]) -> None:
        for family in families:
            self.add(family, family)


@cache
def _declared(mapper: Mapper[Any]) -> tuple[tuple[Tag, str], ...]:
    """The tags that a model and its bases declare, each with its family."""
    texts = (
        text for each in mapper.class_.__mro__ for text in vars(each).get("__cache_tags__", ())
    )
    tags = (Tag.parse(text) for text in dict.fromkeys(texts))
    return tuple((tag, tag.family) for tag in tags)


def _names(tag: Tag, family: str, state: InstanceState[Any]) -> Iterable[str]:
    """The tag of a row by its values now, and by those it had before the flush."""
    now: dict[str, Any] = {}
    before: dict[str, Any] = {}
    for field in tag.fields:
        if field not in state.dict:  # not loaded, or made by the database in this flush
            return (family,)
        now[field] = before[field] = state.dict[field]
        if state.key is not None:  # else a new row
            changed = get_history(state.obj(), field, PassiveFlag.PASSIVE_NO_INITIALIZE)
            if changed.deleted:
                before[field] = changed.deleted[0]
            elif changed.added:  # the old value was not loaded
                return (family,)
        stored = _stored(state.mapper, field)
        if not (_is_kept(now[field], stored) and _is_kept(before[field], stored)):
            return (family,)
    return {*tag.changed(now), *tag.changed(before)}


@cache
def _stored(mapper: Mapper[Any], field: str) -> TypeEngine[Any]:
    column = mapper.column_attrs.get(field)
    return NULLTYPE if column is None else column.columns[0].type


def _is_kept(value: Any, stored: TypeEngine[Any]) -> bool:
    """Whether readers will find this value. Of another (`"1"` for an integer, more decimals than a
    column has) the database makes one that the transaction has not seen."""
    try:
        kind = stored.python_type
    except NotImplementedError:
        return False
    if isinstance(value, Enum) and not issubclass(kind, Enum):
        value = value.value
    text = text_of(value)
    # A driver has classes of its own; and these two are not what they inherit from.
    same = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if text is None or not same or (kind is date and isinstance(value, datetime)):
        return value is None
    match stored:
        case CITEXT() | REAL() | Uuid(as_uuid=False):
            return False
        case CHAR():
            return len(value) == stored.length
        case Float():
            return (stored.precision or 53) > 24
        case Numeric() if stored.scale is not None:
            return "e" not in text and len(text.partition(".")[2]) <= stored.scale
        case DateTime():
            return stored.timezone is (value.tzinfo is not None)
    return True
