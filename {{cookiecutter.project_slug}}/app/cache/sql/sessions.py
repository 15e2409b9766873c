"""What sessions know of a write: the rows of a flush, and what `invalidate` names.

The events are those of all sessions; a session over an engine that no cache is told of does nothing
there. The hooks run in the greenlet of an AsyncSession.
"""

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction
from sqlalchemy.util import await_only

from app.cache.sql.changes import Changes
from app.cache.sql.commit import fence_of, fencing_of

_CHANGES = "cache_changes"


def listen_to_sessions() -> None:
    if not event.contains(Session, "after_begin", _begin):
        event.listen(Session, "after_begin", _begin)
        event.listen(Session, "before_flush", _before_flush)
        event.listen(Session, "after_flush", _after_flush)
        event.listen(Session, "after_commit", _after_commit)


def invalidate(session: AsyncSession | Session, *tags: str) -> None:
    """Adds tags to what the COMMIT of this session invalidates: for textual SQL."""
    changes = _changes(session)
    for tag in tags:
        changes.add(tag, tag)


def _changes(session: AsyncSession | Session) -> Changes:
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
