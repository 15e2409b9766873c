"""The names that `invalidate` takes: of tables, and of tags."""

import re
from collections.abc import Iterator
from functools import lru_cache
from string import Formatter

from app.cache.policy import EVERYTHING, PolicyError, Tag, manual_tags, table_tag
from app.cache.sql.statements import Change
from app.cache.sql.tables import Tables


def tags_of(name: str, tables: Tables) -> list[tuple[str, str]]:
    """The tags that a name ends, each with its family. Raises PolicyError for an unknown name."""
    if name == EVERYTHING or name.startswith(("GET /", table_tag(""))):
        found = {(name, name)}
    else:
        found = set(_tags_of_declared(name, tables))
    if (table := name.removeprefix(table_tag(""))) in tables.names:
        found.update((tag, tag) for tag in tables.ended_by(_any_change(table)))
    if not found:
        raise PolicyError(
            f"invalidate(…, {name!r}): no table has this name, no model declares this tag, and no "
            f"function names it in manual=[…]{tables.nearest(name)}"
        )
    return sorted(found)


def _tags_of_declared(name: str, tables: Tables) -> Iterator[tuple[str, str]]:
    for tag in tables.tables_of.keys() | manual_tags:
        if not _pattern(tag).fullmatch(name):
            continue
        if tag.fields and tag.text == name:
            raise PolicyError(
                f'invalidate(…, {name!r}): this is a template. Put the value in: f"{name}"'
            )
        yield from ((name, tag.family), (tag.any if tag.fields else name, tag.family))
        for table in tables.tables_of.get(tag, ()):
            # Of a row, what stands for its table, and what goes with it.
            ended = tables.ended_by(_any_change(table), rows_follow=bool(tag.fields))
            static = (each.text for each in tables.declared(table) if not each.fields)
            yield from ((each, each) for each in (*ended, *static))


@lru_cache(maxsize=1024)
def _pattern(tag: Tag) -> re.Pattern[str]:
    parts = Formatter().parse(tag.text)
    return re.compile(
        "".join(re.escape(text) + (".+" if field is not None else "") for text, field, *_ in parts),
        re.DOTALL,
    )


def _any_change(table: str) -> frozenset[Change]:
    return frozenset([Change(table, "update"), Change(table, "delete")])
