"""The way to PostgreSQL: one engine for the process, sessions that read and sessions that write.

A `ReadSession` sees one snapshot and is refused every write by PostgreSQL. A `WriteSession` commits
when the endpoint returns, before the response is sent, and rolls back when anything is raised.
Models inherit from `Base`, and from `Versioned` when clients may change them.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import DateTime, MetaData, event, func, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from app.cache import Cache, shared_dependency
from app.cache.sql.observer import observe
from app.cache.sql.tables import Tables
from app.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5
POOL_TIMEOUT_SECONDS = 5
LEAVE_SECONDS = 0.2


class Base(DeclarativeBase):
    # Names that are the same in every database, so that migrations and error messages can use them.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class Versioned:
    """A row with an ETag: `version` changes with every change of the row."""

    # Random, not counted: a row that is deleted and made again never repeats an ETag.
    version: Mapped[uuid.UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"version_id_col": cls.version, "version_id_generator": lambda _: uuid.uuid4()}

    def touch(self) -> None:
        """For a change in a relationship alone, which leaves the row and its version alone."""
        self.updated_at = datetime.now(UTC)


class ReadSession(AsyncSession):
    """One snapshot of the database, read only."""


class WriteSession(AsyncSession):
    """One transaction, committed when the endpoint returns."""


@dataclass(frozen=True, slots=True)
class Sessions:
    read: async_sessionmaker[ReadSession]
    write: async_sessionmaker[WriteSession]


def create_engine(
    settings: Settings, cache: Cache, tables: Tables, pool_size: int | None = None
) -> AsyncEngine:
    """No connection is made before it is needed, so the service starts without PostgreSQL.

    There is no engine without a cache that is told of what is written through it.
    """
    engine = create_async_engine(
        settings.database_url,
        # Per process, and never more: a burst waits here, where it is cheap, and leaves the other
        # processes their connections. README.md says how to choose the number.
        pool_size=pool_size or settings.database_pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        # Off: asyncpg's ping is three round trips at every checkout. See _discard_if_closed.
        pool_pre_ping=False,
        connect_args={
            "timeout": CONNECT_TIMEOUT_SECONDS,
            "command_timeout": settings.database_timeout_seconds,
            "server_settings": {"application_name": settings.service_name},
        },
    )
    event.listen(engine.sync_engine, "checkout", _discard_if_closed)
    event.listen(engine.sync_engine, "invalidate", _take_short_leave)
    observe(engine, cache, tables, strict=settings.cache_strict_writes)
    return engine


def create_sessions(engine: AsyncEngine) -> Sessions:
    # One snapshot for all statements of a request, so that `items` and `total` of a page agree.
    snapshots = engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    return Sessions(
        read=async_sessionmaker(snapshots, class_=ReadSession, expire_on_commit=False),
        write=async_sessionmaker(engine, class_=WriteSession, expire_on_commit=False),
    )


@shared_dependency  # it looks at nothing that tells one client from another
async def read_session(request: Request) -> AsyncIterator[ReadSession]:
    sessions: Sessions = request.state.sessions
    async with _time_limit(request), sessions.read() as session:
        yield session


async def write_session(request: Request) -> AsyncIterator[WriteSession]:
    sessions: Sessions = request.state.sessions
    async with _time_limit(request), sessions.write.begin() as session:
        yield session


# scope="function" ends the session before the response is sent. FastAPI's default ends it after:
# a client could then read, or be told of success, before COMMIT.
ReadSessionDep = Annotated[ReadSession, Depends(read_session, scope="function")]
WriteSessionDep = Annotated[WriteSession, Depends(write_session, scope="function")]


def _time_limit(request: Request) -> asyncio.Timeout:
    """For all that a request does with its session: the wait for a connection, connecting, each
    statement and COMMIT have limits of their own, which add up. Raises TimeoutError."""
    settings: Settings = request.state.settings
    return asyncio.timeout(settings.database_timeout_seconds)


def _take_short_leave(connection: Any, _record: object, _error: object) -> None:
    # A server that answers ends the statement that was given up in this time. SQLAlchemy would give
    # a silent one two seconds.
    driver = connection.driver_connection
    asyncio.get_running_loop().call_later(LEAVE_SECONDS, driver.terminate)


def _discard_if_closed(_connection: object, record: Any, _proxy: object) -> None:
    # asyncpg has noticed when PostgreSQL hung up, which costs nothing to ask. The pool then
    # takes another connection.
    if record.driver_connection.is_closed():
        raise DisconnectionError
