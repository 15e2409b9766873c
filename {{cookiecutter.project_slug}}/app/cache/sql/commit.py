"""The fence around each COMMIT of an engine: what its transaction changed is invalidated.

It is around the COMMIT itself, where the dialect sends it: no event comes later, so nothing that
listeners change is missed; SAVEPOINTs do not pass there. Readers are held off before the COMMIT and
told after it, so that the response of a write cannot begin earlier. Statements (`observer.py`) and
flushes (`sessions.py`) say what changed.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only

from app.cache.backends.base import CacheUnavailable
from app.cache.engine import CacheEngine
from app.cache.policy import EVERYTHING, UntoldWrite
from app.cache.reads import Unclear
from app.cache.sql.changes import Changes
from app.cache.sql.doubt import Doubt, is_refusal
from app.cache.sql.statements import excerpt
from app.cache.sql.tables import Tables

_FENCE = "cache_fence"

log = logging.getLogger("app.cache")


@dataclass(frozen=True, slots=True, eq=False)
class Fencing:
    """Who is told of the writes of an engine, and whether a write fails that cannot be told."""

    cache: CacheEngine
    tables: Tables
    strict: bool

    def refuse(self, why: Unclear, statement: str) -> None:
        """Raises UntoldWrite where the cache is strict."""
        begin = excerpt(statement)
        names = sorted(self.tables.names & set(re.findall(r"[\w.]+", statement))) or ["books"]
        line = f"invalidate(session, {', '.join(map(json.dumps, names))})"
        error = UntoldWrite(
            f"nobody knows what this changes ({why}): {begin}. Say it in the same transaction: "
            f"{line}, with tables or tags; or with none, where it changes nothing that is cached"
        )
        self.cache.refuse(why, repr(begin), error, instead="invalidates everything")


# By dialect: that is the one thing which an engine shares with those made from it by options.
_fencing: WeakKeyDictionary[Dialect, Fencing] = WeakKeyDictionary()


def fence_commits(dialect: Dialect, fencing: Fencing) -> None:
    """From now on each COMMIT that the dialect sends goes through the fence of its connection."""
    if dialect in _fencing:
        raise ValueError("a cache is told of the writes of this engine already")
    _fencing[dialect] = fencing
    for end in ("", "_twophase"):
        commit, roll_back = (
            getattr(dialect, f"do_commit{end}"),
            getattr(dialect, f"do_rollback{end}"),
        )
        setattr(dialect, f"do_commit{end}", partial(_commit, commit, roll_back))
        setattr(dialect, f"do_rollback{end}", partial(_roll_back, roll_back))


def fencing_of(dialect: Dialect) -> Fencing | None:
    return _fencing.get(dialect)


def fence_of(connection: Connection, changes: Changes | None = None) -> "Fence | None":
    """The fence of the transaction of a connection, made now if there is none.

    None where no cache is told of the writes of its engine.
    """
    fence: Fence | None = connection.info.get(_FENCE)
    if fence is None and (fencing := _fencing.get(connection.dialect)):
        driver = connection.connection.dbapi_connection
        is_autocommit = driver is not None and connection.dialect.detect_autocommit_setting(driver)
        fence = Fence(changes or Changes(), fencing, connection.engine, is_autocommit)
        connection.info[_FENCE] = fence
    return fence


@dataclass(slots=True)
class Fence:
    """Goes around the COMMIT of one transaction of a connection."""

    changes: Changes
    fencing: Fencing
    engine: Engine
    is_autocommit: bool
    """Whether each statement is its own COMMIT."""

    def commit(self, commit: Callable[[], None], roll_back: Callable[[], None]) -> None:
        changes = self.changes
        if changes.unclear is not None and not changes.is_told:
            try:
                self.fencing.refuse(*changes.unclear)
            except UntoldWrite:
                roll_back()
                raise
            changes.add(EVERYTHING, EVERYTHING)
        tags = changes.tags
        if not tags:
            return commit()
        writes = self.fencing.cache.writes
        hold = await_only(writes.hold(tags))
        if self.fencing.strict and not hold.told:
            roll_back()
            await_only(writes.release(hold, changed=False))
            raise CacheUnavailable("the cache cannot be told of this write")
        try:
            commit()
        except BaseException as error:
            if is_refusal(error):
                await_only(writes.release(hold, changed=False))
            else:
                writes.doubt(hold, Doubt(self.engine).is_over)
            raise
        try:
            await_only(writes.release(hold, changed=True))
        except Exception:  # it would make commit() fail although the row is stored
            log.exception("invalidation failed after COMMIT: %s", ", ".join(hold.tags))


def execute_fenced(
    execute: Callable[..., None], cursor: DBAPICursor, statement: str, *arguments: Any
) -> bool:
    """Executes a statement that is its own COMMIT; False leaves that to SQLAlchemy."""
    context: ExecutionContext = arguments[-1]
    fence: Fence | None = _info(context.root_connection).get(_FENCE)
    if fence is None or not fence.is_autocommit:
        return False
    try:
        fence.commit(partial(execute, cursor, statement, *arguments), roll_back=lambda: None)
    finally:
        fence.changes.clear()
    return True


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


def _ended(connection: Connection | PoolProxiedConnection) -> Fence | None:
    fence: Fence | None = _info(connection).pop(_FENCE, None)
    if fence is not None:
        fence.changes.is_over = True
    return fence


def _info(connection: Connection | PoolProxiedConnection) -> dict[Any, Any]:
    try:
        return connection.info
    except NotImplementedError:  # SQLAlchemy's own first look at the server
        return {}
