"""What sessions know of a write: the rows of a flush, and what `invalidate` names.

The events are those of all sessions; a session over an engine that no cache is told of does nothing
there. The hooks run in the greenlet of an AsyncSession.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction
from sqlalchemy.util import await_only

from app.cache.policy import EVERYTHING, PolicyError
from app.cache.sql.changes import Changes
from app.cache.sql.commit import Fencing, fence_of, fencing_of
from app.cache.sql.names import tags_of

_CHANGES = "cache_changes"


def listen_to_sessions() -> None:
    if not event.contains(Session, "after_begin", _begin):
        event.listen(Session, "after_begin", _begin)
        event.listen(Session, "before_flush", _before_flush)
        event.listen(Session, "after_flush", _after_flush)
        event.listen(Session, "after_commit", _after_commit)


def invalidate(session: AsyncSession | Session | AsyncConnection | Connection, *names: str) -> None:
    """Says what the textual SQL of a transaction changes, before or after it is executed.

    A table ends all that depends on it. A tag of a row, `author:7`, is finer: it ends what depends
    on the row, on the whole table, or on all values (`author:?`). Without names nothing that is
    cached is changed. The COMMIT invalidates it.

    Raises PolicyError for a name that nobody declares; in production that ends everything instead.
    """
    target: Any = getattr(session, "sync_session", getattr(session, "sync_connection", session))
    bind = target.get_bind() if isinstance(target, Session) else target
    if (fencing := fencing_of(bind.dialect)) is None:
        raise PolicyError(
            "invalidate(…): no cache is told of the writes of this engine. Take the engine or the "
            "sessions of open_service(), or tell a cache of yours: observe(engine, cache, tables)"
        )
    fence = fence_of(target) if isinstance(target, Connection) else None
    changes = fence.changes if fence is not None else _changes(target)
    changes.is_told = True
    for name in names:
        for tag, family in _tags_of(name, fencing):
            changes.add(tag, family)


def _tags_of(name: str, fencing: Fencing) -> Iterable[tuple[str, str]]:
    try:
        return tags_of(name, fencing.tables)
    except PolicyError as error:
        where = f"invalidate(…, {name!r})"
        fencing.cache.refuse("unknown-name", where, error, instead="invalidates everything")
        return [(EVERYTHING, EVERYTHING)]


def _changes(session: Session) -> Changes:
    changes: Changes | None = session.info.get(_CHANGES)
    if changes is None or changes.is_over:
        changes = session.info[_CHANGES] = Changes()
    return changes


def _begin(session: Session, _: SessionTransaction, connection: Connection) -> None:
    """From here on the session collects for the transaction of the connection.

    Who else works in that transaction collects for it too: it has one COMMIT.
    """
    changes = _changes(session)
    if (fence := fence_of(connection, changes)) is None:
        return
    changes.is_loose = False
    if fence.changes is not changes:
        fence.changes.update(changes)
        session.info[_CHANGES] = fence.changes


def _before_flush(session: Session, flush: UOWTransaction, _: object) -> None:
    _changes(session).flush = flush


def _after_flush(session: Session, flush: UOWTransaction) -> None:
    changes = _changes(session)
    changes.flush = None
    # More than the new, dirty and deleted objects of the session: also what they drag along.
    for state, (is_delete, only_for_order) in flush.states.items():
        if is_delete or not only_for_order:
            changes.add_row(state)


def _after_commit(session: Session) -> None:
    """After a commit that sent no COMMIT, what `invalidate` named is told all the same."""
    changes: Changes | None = session.info.get(_CHANGES)
    if changes and changes.is_loose and not session.in_nested_transaction():
        changes.is_over = True
        if changes.tags and (fencing := fencing_of(session.get_bind().dialect)):
            await_only(fencing.cache.writes.invalidate(*changes.tags))
