"""What a statement reads and changes: the tables in it.

SQLAlchemy hands each compiled statement to the events of its engine. The tables are a property of
the statement, so they are found once and remembered for as long as SQLAlchemy remembers it.
Text is not parsed for tables: it shows only whether it may read or change one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy.dialects.postgresql.dml import OnConflictDoUpdate
from sqlalchemy.engine import Compiled
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.schema import DDL, CreateTable, Table
from sqlalchemy.sql import visitors
from sqlalchemy.sql.ddl import BaseDDLElement
from sqlalchemy.sql.dml import Delete, Insert, UpdateBase
from sqlalchemy.sql.elements import ColumnClause, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Alias, TableClause, TextualSelect

# Strings, dollar-quoted strings, comments.
_LITERALS = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
_ROW_LOCKS = re.compile(r"\bfor\s+(?:no\s+key\s+)?update\b")
_READS = re.compile(r"\b(?:from|join|table|using)\b")
# These begin a statement that changes no row, unless a word of `_CHANGES` is in it as well.
_HARMLESS = re.compile(
    r"[\s(]*(?:select|values|table|with|show|set|reset|begin|start|savepoint|release|rollback"
    r"|declare|fetch|close|listen|unlisten|notify|lock|discard|deallocate|explain|analyze|vacuum)\b"
)
# Where one can begin: a word alone may be the name of a column.
_CHANGES = re.compile(
    r"(?:^|[();]|\b(?:explain|analyze|verbose)\b)\s*(?:insert|update|delete|merge)\s+\w"
    r"|\binto\b|;\s*\w"
)
_CALLS = re.compile(r"(\w+)\s*\(")
MAX_EXCERPT_CHARS = 80


class Change(NamedTuple):
    table: str
    how: Literal["insert", "update", "delete"]


@dataclass(frozen=True)
class Effect:
    """Tables by their full names: `schema.name` outside the default schema."""

    reads: frozenset[str] = frozenset()
    changes: frozenset[Change] = frozenset()
    calls: frozenset[str] = frozenset()
    """Names of functions, in lower case. PostgreSQL knows what they may read and change."""
    reads_unknown: bool = False
    changes_unknown: bool = False

    @cached_property
    def names(self) -> frozenset[str]:
        """Those that PostgreSQL knows: of tables, views and functions."""
        return self.reads | self.calls | {change.table for change in self.changes}


def effect_of(compiled: Compiled | None, text: str) -> Effect:
    """The effect of a statement; `text` is what is sent, and all there is of textual SQL."""
    if compiled is None:
        return _effect_of_text(text)
    effect = _remembered.get(compiled)
    if effect is None:
        effect = _remembered[compiled] = _effect_of_compiled(compiled)
    return effect


_remembered: WeakKeyDictionary[Compiled, Effect] = WeakKeyDictionary()


def _effect_of_compiled(compiled: Compiled) -> Effect:
    statement: Any = _innermost(compiled.statement)
    if isinstance(statement, BaseDDLElement):
        return _effect_of_ddl(statement)
    reads, changes, calls = set[str](), set[Change](), set[str]()
    fragments = list[Effect]()
    for element in _elements(compiled):
        if isinstance(element, UpdateBase):
            changes.add(_change(element))
        elif isinstance(element, OnConflictDoUpdate):
            changes |= {change._replace(how="update") for change in changes}
        elif isinstance(element, TableClause):
            reads.add(_name(element))
        elif isinstance(element, TextClause):
            whole = element is statement
            fragments.append(_effect_of_text(element.text, fragment=not whole))
        elif isinstance(element, ColumnClause) and element.is_literal:
            fragments.append(_effect_of_text(element.name, fragment=True))
        elif isinstance(element, FunctionElement):
            calls.add(str(getattr(element, "name", "")).lower())
        elif not type(element).__module__.startswith("sqlalchemy."):
            # A construct of somebody's own, compiled to nobody knows what.
            whole = element is statement
            fragments.append(Effect(reads_unknown=True, changes_unknown=whole))
    return Effect(
        frozenset(reads),
        frozenset(changes),
        frozenset(calls).union(*(fragment.calls for fragment in fragments)),
        any(fragment.reads_unknown for fragment in fragments),
        any(fragment.changes_unknown for fragment in fragments),
    )


def excerpt(text: str) -> str:
    """The beginning of a statement, without the values that stand in it."""
    words = " ".join(_LITERALS.sub(lambda found: "…" if found[0][0] in "'$" else " ", text).split())
    return words if len(words) <= MAX_EXCERPT_CHARS else f"{words[:MAX_EXCERPT_CHARS]}…"


def _elements(compiled: Compiled) -> Iterator[Any]:
    """All parts of a statement, and the tables of its columns.

    The ORM joins what `joinedload`, `join(Book.author)` and inheritance ask for when it compiles:
    that is in the statement of the compile state alone.
    """
    state: Any = getattr(compiled, "compile_state", None)
    for statement in (compiled.statement, getattr(state, "statement", None)):
        for element in visitors.iterate(statement):
            yield element
            if isinstance(element, ColumnClause) and element.table is not None:
                yield element.table


def _change(statement: UpdateBase) -> Change:
    table = _name(_innermost(statement.table))
    if isinstance(statement, Delete):
        return Change(table, "delete")
    return Change(table, "insert" if isinstance(statement, Insert) else "update")


def _innermost(element: Any) -> Any:
    """The table of an alias; the text of `text(…).columns(…)` and of `from_statement(text(…))`."""
    while isinstance(element, Alias | TextualSelect | FromStatement):
        element = element.element
    return element


def _name(table: Any) -> str:
    return str(getattr(table, "fullname", table.name))


def _effect_of_ddl(statement: BaseDDLElement) -> Effect:
    target: Any = getattr(statement, "element", None)
    if isinstance(statement, DDL):
        return Effect(changes_unknown=True)
    if isinstance(target, Table) and not isinstance(statement, CreateTable):
        return Effect(changes=frozenset([Change(target.fullname, "delete")]))
    return Effect()


@lru_cache(maxsize=256)
def _effect_of_text(text: str, *, fragment: bool = False) -> Effect:
    """Of a whole statement, or of a fragment, which cannot begin one."""
    words = _ROW_LOCKS.sub(" ", _LITERALS.sub(" ", text).lower().replace('"', " "))
    return Effect(
        calls=frozenset(_CALLS.findall(words)),
        reads_unknown=_READS.search(words) is not None,
        changes_unknown=_CHANGES.search(words) is not None
        or (not fragment and _HARMLESS.match(words) is None),
    )
