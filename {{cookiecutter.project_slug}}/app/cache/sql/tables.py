"""What models say of their tables: the tags that stand for each, and what a change drags along.

Any change to a table ends the table's own tag, `table:books`. Tags that models declare are finer:
they cover the table for whoever depends on one of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Table
from sqlalchemy.orm import Mapper, registry

from app.cache.policy import Policy, PolicyError, Tag, table_tag
from app.cache.sql.statements import Change

# Of a foreign key: what PostgreSQL does to the rows that refer to a changed one.
_DELETES, _UPDATES = ("CASCADE",), ("SET NULL", "SET DEFAULT")


class Tables:
    """The tables of some registries, by full name.

    Raises PolicyError for `__cache_tags__` that cannot be right.
    """

    def __init__(self, *registries: registry) -> None:
        self._declared: defaultdict[str, set[Tag]] = defaultdict(set)
        self._beside_rows: defaultdict[str, set[Tag]] = defaultdict(set)
        self._dragged: defaultdict[Change, set[Change]] = defaultdict(set)
        for each in registries:
            for table in each.metadata.tables.values():
                self._beside_rows[table.fullname].update(_tags_of_table(table))
                for constraint in table.foreign_key_constraints:
                    self._add_actions(constraint)
            for mapper in each.mappers:
                for part in mapper.tables:
                    self._declared[_full_name(part)].update(_declared_tags(mapper))
        self.mapped = frozenset(self._declared)
        self._add_tables_of_several(mapper for each in registries for mapper in each.mappers)
        for name, tags in self._beside_rows.items():
            self._declared[name] |= tags
        self._tables = {table: table for table in self._declared}
        self._families = {table_tag(table): table_tag(table) for table in self._declared}
        self.tables_of: defaultdict[Tag, set[str]] = defaultdict(set)
        for name, tags in self._declared.items():
            self._families.update((tag.family, tag.text) for tag in tags)
            for tag in tags:
                self.tables_of[tag].add(name)

    def declared(self, table: str) -> Set[Tag]:
        """The tags that stand for rows of the table."""
        return self._declared.get(table, frozenset())

    @lru_cache(maxsize=1024)  # noqa: B019 - for as long as the process
    def covered(self, families: frozenset[str]) -> Set[str]:
        """The tables of which every change ends a tag of one of these families."""
        return frozenset(
            table
            for table, tags in self._declared.items()
            if any(tag.family in families for tag in tags)
        )

    def problems(self, policy: Policy) -> Iterator[str]:
        """What the policy names and no model has, and what to write."""
        for tag in policy.tags:
            if tag.family not in self._families and not tag.manual:
                yield (
                    f"no model declares the tag {tag.text!r}, so no write ends it"
                    f"{_nearest(tag.family, self._families)}. Add it to __cache_tags__ of a model; "
                    "or, where your own code ends it with invalidate, move it to "
                    f"manual=[{tag.text!r}]"
                )
        for table in policy.reads or ():
            if table not in self._tables:
                yield (
                    f"reads names {table!r}, which is no table of a model"
                    f"{_nearest(table, self._tables)}. Of a view or a function, name the tables "
                    "that it reads; for a table without a model, of whose changes your own code "
                    f"tells with invalidate, write reads=[], manual=[{table!r}]"
                )

    @lru_cache(maxsize=1024)  # noqa: B019 - for as long as the process
    def ended_by(self, changes: frozenset[Change], *, rows_follow: bool = False) -> Set[str]:
        """The tags that stand for all rows of the changed tables, and of those dragged along.

        With `rows_follow` the rows that the changes name are told by themselves.
        """
        dragged = self.dragged_along(changes)
        whole = dragged if rows_follow else changes | dragged
        names = {table_tag(change.table) for change in changes | dragged}
        beside = {change for change in changes if change.table in self.mapped}
        for tables, declared in ((whole, self._declared), (beside, self._beside_rows)):
            for change in tables:
                names.update(tag.family for tag in declared.get(change.table, ()))
        return frozenset(names)

    @property
    def names(self) -> Set[str]:
        return self._tables.keys()

    def nearest(self, name: str) -> str:
        """A hint for a name that is no table and no tag."""
        return _nearest(name, {**self._families, **self._tables})

    def dragged_along(self, changes: Iterable[Change]) -> frozenset[Change]:
        """What PostgreSQL does because of the changes: ON DELETE, ON UPDATE."""
        found, pending = set[Change](), list(changes)
        while pending:
            new = self._dragged.get(pending.pop(), set()) - found
            found |= new
            pending += new
        return frozenset(found)

    def _add_tables_of_several(self, mappers: Iterable[Mapper[Any]]) -> None:
        """A row of one model is a row of the other, which the flush of the first does not know."""
        bases = defaultdict[str, set[Mapper[Any]]](set)
        for mapper in mappers:
            for table in mapper.tables:
                bases[_full_name(table)].add(mapper.base_mapper)
        for name, of_table in bases.items():
            if len(of_table) > 1:
                self._beside_rows[name] |= self._declared[name]

    def _add_actions(self, constraint: ForeignKeyConstraint) -> None:
        parent, child = constraint.referred_table.fullname, constraint.table.fullname
        on_delete, on_update = (
            (action or "").upper() for action in (constraint.ondelete, constraint.onupdate)
        )
        if on_delete.startswith(_DELETES):
            self._dragged[Change(parent, "delete")].add(Change(child, "delete"))
        if on_delete.startswith(_UPDATES):
            self._dragged[Change(parent, "delete")].add(Change(child, "update"))
        if on_update.startswith(_DELETES + _UPDATES):
            self._dragged[Change(parent, "update")].add(Change(child, "update"))


def _declared_tags(mapper: Mapper[Any]) -> Iterator[Tag]:
    """Those of a model and of its bases: a row of the model is one of theirs as well."""
    for each in mapper.class_.__mro__:
        yield from parse_declared(
            vars(each).get("__cache_tags__", ()),
            f"{each.__qualname__}.__cache_tags__",
            mapper.column_attrs.keys(),
        )


def _tags_of_table(table: Table) -> Iterator[Tag]:
    return parse_declared(
        table.info.get("cache_tags", ()), f"cache_tags of table {table.fullname}", table.c.keys()
    )


def parse_declared(texts: object, where: str, fields: Iterable[str]) -> Iterator[Tag]:
    """Raises PolicyError, which begins with `where`, unless `texts` are tags over these fields."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise PolicyError(f'{where} is {texts!r}: write a tuple, such as ("books", "book:{{id}}")')
    known = set(fields)
    for text in texts:
        try:
            tag = Tag.parse(text)
        except ValueError as error:
            raise PolicyError(f"{where}: {error}") from error
        if missing := sorted(set(tag.fields) - known):
            columns = ", ".join(sorted(known))
            raise PolicyError(
                f"{where}: tag {text!r} needs {', '.join(missing)}, and there are {columns}"
            )
        yield tag


def _nearest(name: str, known: Mapping[str, str]) -> str:
    """A hint; `known` are the texts that people write, by the names that are compared."""
    found = get_close_matches(name, known, 1)
    return f" (did you mean {known[found[0]]!r}?)" if found else ""


def _full_name(table: Any) -> str:
    return str(getattr(table, "fullname", table.name))
