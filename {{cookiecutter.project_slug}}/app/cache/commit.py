"""Writes that cannot forget: the tags of what a transaction changed, fenced around its COMMIT.

Models declare the tags that depend on them (`__cache_tags__`, static or templates over columns).
Session events collect them at each flush and each ORM-enabled bulk statement, hold them before
COMMIT and release them after it, so that the response of a write cannot begin before readers are
told. Events of SAVEPOINTs are left alone: only the outer COMMIT makes a change visible.
"""

import logging
from collections.abc import Iterable
from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, UOWTransaction
from sqlalchemy.util import await_only

from app.cache.backend import CacheUnavailable
from app.cache.core import Cache
from app.cache.policy import Tag
from app.cache.writes import Hold

_TAGS, _HOLD = "cache_tags", "cache_hold"

log = logging.getLogger("app.cache")


def invalidate_on_commit(
    sessions: async_sessionmaker[Any], cache: Cache, *, strict: bool = False
) -> None:
    """From now on the sessions that `sessions` makes invalidate what they change.

    When the cache cannot be told, a write goes on and its invalidation is repeated until it is
    taken; with `strict` its COMMIT raises CacheUnavailable instead, and nothing is written.
    """
    fenced = type("FencedSession", (Session,), {})
    sessions.configure(sync_session_class=fenced)
    hooks = _Hooks(cache, strict=strict)
    event.listen(fenced, "after_flush", hooks.collect_flush)
    event.listen(fenced, "do_orm_execute", hooks.collect_statement)
    event.listen(fenced, "before_commit", hooks.hold)
    event.listen(fenced, "after_commit", hooks.release)
    event.listen(fenced, "after_soft_rollback", hooks.roll_back)


def invalidate(session: AsyncSession | Session, *tags: str) -> None:
    """Adds tags to what the COMMIT of this session invalidates: for textual SQL and Core tables."""
    _collected(session).update(tags)


def _collected(session: AsyncSession | Session) -> set[str]:
    tags: set[str] = session.info.setdefault(_TAGS, set())
    return tags


class _Hooks:
    """The events of one session class. The hooks run in the greenlet of an AsyncSession."""

    def __init__(self, cache: Cache, *, strict: bool) -> None:
        self._cache, self._strict = cache, strict

    def collect_flush(self, session: Session, _: UOWTransaction) -> None:
        for changed in (*session.new, *session.dirty, *session.deleted):
            _collected(session).update(_tags_of_row(changed))

    def collect_statement(self, state: ORMExecuteState) -> None:
        if not (state.is_insert or state.is_update or state.is_delete):
            return
        mapper = state.bind_mapper
        if mapper is not None:
            # Which rows a bulk statement touches is not known: every row of the model.
            _collected(state.session).update(tag.family for tag in _declared(mapper.class_))

    def hold(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        session.flush()  # before_commit comes before the flush that COMMIT would do
        if tags := _collected(session):
            hold = session.info[_HOLD] = await_only(self._cache.writes.hold(sorted(tags)))
            if self._strict and not hold.told:
                raise CacheUnavailable("the cache cannot be told of this write")

    def release(self, session: Session) -> None:
        # What is raised here would make commit() fail although the row is stored.
        if session.in_nested_transaction():
            return
        self._end(session, changed=True)

    def roll_back(self, session: Session, previous: SessionTransaction) -> None:
        if not previous.nested:
            self._end(session, changed=False)

    def _end(self, session: Session, *, changed: bool) -> None:
        session.info.pop(_TAGS, None)
        hold: Hold | None = session.info.pop(_HOLD, None)
        if hold is not None:
            try:
                await_only(self._cache.writes.release(hold, changed=changed))
            except Exception:
                log.exception("invalidation failed after COMMIT: %s", ", ".join(hold.tags))


def _declared(model: type) -> Iterable[Tag]:
    return [Tag.parse(text) for text in getattr(model, "__cache_tags__", ())]


def _tags_of_row(row: Any) -> Iterable[str]:
    """The tags of a row, by its new column values and by those it had before the flush."""
    state = inspect(row)
    for tag in _declared(type(row)):
        now = {field: getattr(row, field) for field in tag.fields}
        yield tag.render(now)
        for field in tag.fields:
            for before in state.attrs[field].history.deleted or ():
                yield tag.render(now | {field: before})
