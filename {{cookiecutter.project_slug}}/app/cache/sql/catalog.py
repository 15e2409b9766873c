"""What only PostgreSQL knows of a statement: which names are views, and what functions may do.

Asked on the connection of the statement, when a name in it is new to the process. Functions of
PostgreSQL itself and of extensions touch no table of the service, with the exceptions below; an
IMMUTABLE function reads none, a STABLE one changes none
(postgresql.org/docs/current/xfunc-volatility.html).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from app.cache.reads import Unclear
from app.cache.sql.statements import Effect

_VIEWS_AND_FUNCTIONS = """
SELECT c.relkind::text, n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
UNION ALL
SELECT 'function ' || p.provolatile::text, n.nspname::text, lower(p.proname::text)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.provolatile <> 'i' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
AND NOT EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
)
"""
# They run SQL that they are handed as text.
_RUN_SQL: Mapping[str, str] = {
    "cursor_to_xml": "s",
    "database_to_xml": "s",
    "dblink": "v",
    "dblink_exec": "v",
    "query_to_xml": "v",
    "schema_to_xml": "s",
    "table_to_xml": "s",
    "ts_stat": "v",
}


@dataclass(frozen=True, slots=True)
class Catalog:
    views: frozenset[str]
    """Foreign tables and materialised views too: nobody tells when what they show has changed."""
    functions: Mapping[str, str]
    """By name, how volatile: `s` (STABLE) may read tables, `v` (VOLATILE) may change them."""

    @classmethod
    def ask(cls, connection: Connection) -> "Catalog":
        views, functions = set[str](), dict(_RUN_SQL)
        cursor = (
            connection.connection.cursor()
        )  # of the driver: this is no statement of the service
        cursor.execute(_VIEWS_AND_FUNCTIONS)
        for kind, schema, name in cursor.fetchall():
            if kind.startswith("function"):
                # Of several with one name the most volatile counts: `v` comes after `s`.
                functions[name] = max(functions.get(name, "s"), kind[-1])
            else:
                views |= {name, f"{schema}.{name}"}
        return cls(frozenset(views), functions)

    def unclear_reads(self, effect: Effect) -> Unclear | None:
        """Why it cannot be said which tables the statement reads; None when it can."""
        if effect.reads_unknown:
            return "textual-sql"
        if not self.views.isdisjoint(effect.reads):
            return "view"
        return None if self.functions.keys().isdisjoint(effect.calls) else "function"

    def unclear_changes(self, effect: Effect) -> Unclear | None:
        """Why it cannot be said which tables the statement changes; None when it can."""
        if effect.changes_unknown:
            return "textual-sql"
        if any(self.functions.get(call) == "v" for call in effect.calls):
            return "function"
        # PostgreSQL, or a trigger of the view, changes the tables behind it.
        return "view" if any(change.table in self.views for change in effect.changes) else None
