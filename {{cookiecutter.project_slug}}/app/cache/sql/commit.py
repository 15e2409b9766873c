"""Writes that cannot forget: what a transaction changed is fenced around its COMMIT.

Session events collect the tags of each flush and of each ORM-enabled bulk statement, for as long as
the transaction lasts. The fence is around the COMMIT itself, where the dialect sends it: no event
comes later, so nothing that listeners change is missed; SAVEPOINTs do not pass there. Readers are
held off before the COMMIT and told after it, so that the response of a write cannot begin earlier.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only

from app.cache.backends.base import CacheUnavailable
from app.cache.engine import CacheEngine
from app.cache.sql.changes import Changes
from app.cache.sql.doubt import Doubt, is_refusal
from app.cache.writes import Writes

_CHANGES, _FENCE = "cache_changes", "cache_fence"

log = logging.getLogger("app.cache")


def invalidate_on_commit(
    sessions: async_sessionmaker[Any], cache: CacheEngine, *, strict: bool = False
) -> None:
    """From now on the sessions that `sessions` makes invalidate what they change.

    When the cache cannot be told, a write goes on and its invalidation is repeated until it is
    taken; with `strict` its COMMIT raises CacheUnavailable instead, and nothing is written.
    """
    fenced = type("FencedSession", (Session,), {})
    sessions.configure(sync_session_class=fenced)
    hooks = _Hooks(cache.writes, strict=strict)
    event.listen(fenced, "after_begin", hooks.begin)
    event.listen(fenced, "after_flush", hooks.collect_flush)
    event.listen(fenced, "do_orm_execute", hooks.collect_statement)
    event.listen(fenced, "after_commit", hooks.end)


def invalidate(session: AsyncSession | Session, *tags: str) -> None:
    """Adds tags to what the COMMIT of this session invalidates: for textual SQL and Core tables."""
    changes = _changes(session)
    for tag in tags:
        changes.add(tag, tag)


def _changes(session: AsyncSession | Session) -> Changes:
    changes: Changes | None = session.info.get(_CHANGES)
    if changes is None or changes.is_over:
        changes = session.info[_CHANGES] = Changes()
    return changes


class _Hooks:
    """The events of one session class. The hooks run in the greenlet of an AsyncSession."""

    def __init__(self, writes: Writes, *, strict: bool) -> None:
        self._writes, self._strict = writes, strict

    def begin(self, session: Session, _: SessionTransaction, connection: Connection) -> None:
        """From here on the session collects for the transaction of the connection.

        Who else works in that transaction collects for it too: it has one COMMIT.
        """
        if connection.dialect not in _fenced:
            _fence(connection.dialect)
        changes = _changes(session)
        changes.is_loose = False
        fence = _Fence(changes, self._writes, self._strict, connection.engine)
        fence = connection.info.setdefault(_FENCE, fence)
        if fence.changes is not changes:
            fence.changes.update(changes)
            session.info[_CHANGES] = fence.changes

    def collect_flush(self, session: Session, flush: UOWTransaction) -> None:
        changes = _changes(session)
        # More than the new, dirty and deleted objects of the session: also what they drag along.
        for state, (is_delete, only_for_order) in flush.states.items():
            if is_delete or not only_for_order:
                changes.add_row(state)

    def collect_statement(self, state: ORMExecuteState) -> None:
        if state.bind_mapper is not None and (
            state.is_insert or state.is_update or state.is_delete
        ):
            _changes(state.session).add_model(state.bind_mapper)

    def end(self, session: Session) -> None:
        """After a commit that sent no COMMIT, what `invalidate` named is told all the same."""
        changes: Changes | None = session.info.get(_CHANGES)
        if changes and changes.is_loose and not session.in_nested_transaction():
            changes.is_over = True
            await_only(self._writes.invalidate(*changes.tags))


@dataclass(slots=True)
class _Fence:
    """Goes around the COMMIT of one transaction of a connection."""

    changes: Changes
    writes: Writes
    strict: bool
    engine: Engine

    def commit(self, commit: Callable[[], None], roll_back: Callable[[], None]) -> None:
        tags = self.changes.tags
        if not tags:
            return commit()
        hold = await_only(self.writes.hold(tags))
        if self.strict and not hold.told:
            roll_back()
            await_only(self.writes.release(hold, changed=False))
            raise CacheUnavailable("the cache cannot be told of this write")
        try:
            commit()
        except BaseException as error:
            if is_refusal(error):
                await_only(self.writes.release(hold, changed=False))
            else:
                self.writes.doubt(hold, Doubt(self.engine).is_over)
            raise
        try:
            await_only(self.writes.release(hold, changed=True))
        except Exception:  # it would make commit() fail although the row is stored
            log.exception("invalidation failed after COMMIT: %s", ", ".join(hold.tags))


_fenced: WeakSet[Dialect] = WeakSet()


def _fence(dialect: Dialect) -> None:
    """From now on each COMMIT that the dialect sends goes through the fence of its connection."""
    _fenced.add(dialect)
    for end in ("", "_twophase"):
        commit, roll_back = (
            getattr(dialect, f"do_commit{end}"),
            getattr(dialect, f"do_rollback{end}"),
        )
        setattr(dialect, f"do_commit{end}", partial(_commit, commit, roll_back))
        setattr(dialect, f"do_rollback{end}", partial(_roll_back, roll_back))


def _commit(
    commit: Callable[..., None],
    roll_back: Callable[..., None],
    connection: Connection | PoolProxiedConnection,
    *arguments: Any,
    **options: Any,
) -> None:
    fence = _ended(connection)
    if fence is None:
        commit(connection, *arguments, **options)
    else:
        fence.commit(
            partial(commit, connection, *arguments, **options),
            partial(roll_back, connection, *arguments, **options),
        )


def _roll_back(
    roll_back: Callable[..., None],
    connection: Connection | PoolProxiedConnection,
    *arguments: Any,
    **options: Any,
) -> None:
    _ended(connection)
    roll_back(connection, *arguments, **options)


def _ended(connection: Connection | PoolProxiedConnection) -> _Fence | None:
    fence: _Fence | None = connection.info.pop(_FENCE, None)
    if fence is not None:
        fence.changes.is_over = True
    return fence
