"""Runs migrations on `DATABASE_URL`, one process at a time.

Several processes may start `alembic upgrade head` at once, as replicas do: the first one migrates,
the others wait for it and find nothing left to do. What was cached before a migration ends with it.
Callers inside Python may name another database in `config.attributes["database_url"]`, and its
cache in `["cache_url"]`.
"""

import asyncio
import logging
from typing import Any

from alembic import context
from sqlalchemy import Connection, NullPool, func, select
from sqlalchemy.ext.asyncio import create_async_engine

from app.cache import open_cache
from app.cache.policy import EVERYTHING
from app.database import Base
from app.logging import configure_logging
from app.resources import import_models
from app.settings import Settings

log = logging.getLogger("alembic")


def database_url() -> str:
    given: str | None = context.config.attributes.get("database_url")
    return given or Settings.load().database_url


def cache_url() -> str:
    if "database_url" not in context.config.attributes:
        return Settings.load().cache_url
    given: str = context.config.attributes.get("cache_url", "memory://")
    return given


def migrate(connection: Connection) -> bool:
    """Whether there was anything to do."""
    applied: list[Any] = []
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        on_version_apply=lambda **version: applied.append(version),
    )
    with context.begin_transaction():
        context.run_migrations()
    return bool(applied)


async def end_what_is_cached() -> None:
    """The migration may have changed rows, or what they mean."""
    if cache_url() == "memory://":
        log.info("CACHE_URL is not set: processes that run with memory:// keep what they cached")
        return
    async with open_cache(cache_url(), name=Settings.load().service_name) as cache:
        await cache.invalidate(EVERYTHING)  # repeated until the cache takes it, or closes


async def migrate_alone() -> None:
    engine = create_async_engine(database_url(), poolclass=NullPool)
    async with engine.connect() as connection:
        # Held by the connection, not by a transaction, and given up when the connection closes.
        await connection.execute(select(func.pg_advisory_lock(func.hashtext("alembic"))))
        await connection.commit()
        changed = True  # when it fails halfway, too
        try:
            changed = await connection.run_sync(migrate)
        finally:
            if changed:
                await end_what_is_cached()
    await engine.dispose()


def print_sql() -> None:
    context.configure(url=database_url(), target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


import_models()
if context.config.cmd_opts is not None:  # started from a command line
    configure_logging(Settings.load())
if context.is_offline_mode():
    print_sql()
else:
    asyncio.run(migrate_alone())
