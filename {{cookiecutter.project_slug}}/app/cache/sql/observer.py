"""The statements of an engine: what they read is told to the computation that runs them, and what
they change to the fence around their COMMIT."""

from functools import partial
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Table, event
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cache.engine import CacheEngine
from app.cache.reads import recording
from app.cache.sql.catalog import Catalog
from app.cache.sql.changes import Changes
from app.cache.sql.commit import Fencing, execute_fenced, fence_commits, fence_of
from app.cache.sql.sessions import listen_to_sessions
from app.cache.sql.statements import Effect, effect_of
from app.cache.sql.tables import Tables


def observe(
    engine: AsyncEngine, cache: CacheEngine, tables: Tables, *, strict: bool = False
) -> None:
    """From now on the cache knows what is read and changed through the engine, whoever does it:
    sessions of any kind, connections, statements of the ORM and of Core.

    When the cache cannot be told, a write goes on and its invalidation is repeated until it is
    taken; with `strict` its COMMIT raises CacheUnavailable instead, and nothing is written.
    """
    fence_commits(engine.dialect, Fencing(cache, tables, strict))
    event.listen(engine.sync_engine, "before_cursor_execute", _Observer(tables).note)
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(
            engine.sync_engine, name, partial(execute_fenced, getattr(engine.dialect, name))
        )
    listen_to_sessions()


class _Observer:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._catalog: Catalog | None = None
        self._asked: set[str] = set()

    def note(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: ExecutionContext | None,
        _many: bool,
    ) -> None:
        effect = effect_of(getattr(context, "compiled", None), statement)
        if effect.changes:
            self._note_changes(effect, connection, context)
        if effect.changes or effect.changes_unknown or effect.calls:
            self._note_unclear_changes(effect, connection, statement)
        reads = recording.get()
        if reads is None:
            return
        reads.tables |= effect.reads
        if reads.unclear is None:
            reads.unclear = self._known(connection, effect).unclear_reads(effect)

    def _note_changes(self, effect: Effect, connection: Connection, context: Any) -> None:
        if (fence := fence_of(connection)) is None:
            return
        changes = fence.changes
        rows_follow = changes.rows_follow and not fence.is_autocommit
        if rows_follow and not _is_of_flush(connection, context):
            one = len(effect.changes) == 1
            rows_follow = one and self._note_association(changes, context)
        changes.add_families(self._tables.ended_by(effect.changes, rows_follow=rows_follow))

    def _note_association(self, changes: Changes, context: Any) -> bool:
        """Notes what a flush adds to and removes from an association table, which has no mapper."""
        statement = getattr(getattr(context, "compiled", None), "statement", None)
        table = getattr(statement, "table", None)
        if not isinstance(statement, Insert | Delete) or not isinstance(table, Table):
            return False
        if table.fullname in self._tables.mapped:
            return False
        tags = self._tables.declared(table.fullname)
        changes.add_parameters(table, tags, context.compiled_parameters)
        return True

    def _note_unclear_changes(self, effect: Effect, connection: Connection, statement: str) -> None:
        why = self._known(connection, effect).unclear_changes(effect)
        if why is None or connection.get_execution_options().get("postgresql_readonly"):
            return
        if (fence := fence_of(connection)) is not None:
            fence.changes.unclear = fence.changes.unclear or (why, statement)

    def _known(self, connection: Connection, effect: Effect) -> Catalog:
        """Asked anew for names that are new: they may have been created meanwhile."""
        if self._catalog is None or not effect.names <= self._asked:
            self._catalog = Catalog.ask(connection)
            self._asked |= effect.names
        return self._catalog


def _is_of_flush(connection: Connection, context: ExecutionContext | None) -> bool:
    """Whether the ORM made the statement for rows of models, and no listener of the flush did.

    It compiles those through a cache of the mapper; association tables have no mapper.
    """
    compiled_cache = getattr(context, "execution_options", {}).get("compiled_cache")
    return compiled_cache is not connection.get_execution_options().get("compiled_cache")
