"""Mechanisms of the cache that a run can go without, to show that it finds what they are for."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction

from app.cache import flights, store
from app.cache.backends.base import Generations
from app.cache.backends.redis.backend import RedisBackend
from app.cache.backends.redis.server import Server
from app.cache.entry import Entry
from app.cache.reads import Coverage, Learned, Reads
from app.cache.sql import commit, sessions
from app.cache.sql.tables import Tables
from app.cache.writes import Writes


async def _nothing(*_: object) -> None:
    """Says that it is done."""


_release, _judge, _collect = RedisBackend.release, store._judge, sessions._after_flush
_judge_reads = Learned.judge


async def _release_as_unchanged(
    backend: RedisBackend, tags: Sequence[str], writer: str, *, changed: bool
) -> None:
    await _release(backend, tags, writer, changed=False)


def _judge_as_valid(entry: Entry | None, now: int, *, valid: bool) -> Any:
    return _judge(entry, now, valid=True)


def _judge_without_learning(
    learned: Learned, coverage: Coverage, reads: Reads, generations: Generations | None
) -> tuple[Generations | None, str]:
    """As if what was read had been fenced before."""
    result, why = _judge_reads(learned, coverage, reads, generations)
    return (generations, "") if why == "learning" else (result, why)


def _collect_until_rollback(session: Session, flush: UOWTransaction) -> None:
    """A flush that fails in a SAVEPOINT ends a transaction of its own, which is not nested."""
    _collect(session, flush)
    if not event.contains(session, "after_soft_rollback", _forget):
        event.listen(session, "after_soft_rollback", _forget)


def _forget(session: Session, previous: SessionTransaction) -> None:
    if not previous.nested:
        sessions._changes(session)._names.clear()


# What is replaced, and by what.
MECHANISMS: dict[str, tuple[object, str, object]] = {
    "hold": (RedisBackend, "hold", _nothing),
    "release": (RedisBackend, "release", _release_as_unchanged),
    "validation": (store, "_judge", _judge_as_valid),
    "joining": (flights, "may_join", lambda *_: True),
    "incarnation": (Server, "incarnation", property(lambda _: bytes(8), lambda _, _value: None)),
    "doubt": (commit, "is_refusal", lambda _error: True),
    "renewal": (Writes, "_renew", _nothing),
    "owed": (Writes, "owed", property(lambda _: frozenset())),
    "learning": (Learned, "judge", _judge_without_learning),
    "tables": (Tables, "ended_by", lambda *_, **__: frozenset()),
    "savepoint": (sessions, "_after_flush", _collect_until_rollback),
}


def switched_off(name: str) -> AbstractContextManager[object]:
    owner, attribute, replacement = MECHANISMS[name]
    return patch.object(owner, attribute, replacement, create=True)
