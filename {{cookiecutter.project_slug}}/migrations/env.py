"""Runs migrations on `DATABASE_URL`, one process at a time.

Several processes may start `alembic upgrade head` at once, as replicas do: the first one migrates,
the others wait for it and find nothing left to do. What was cached before a migration ends with it.
Callers inside Python may name another database in `config.attributes["database_url"]`, and its
cache in `["cache_url"]`.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

from alembic import context
from sqlalchemy import Connection, NullPool, func, select
from sqlalchemy.ext.asyncio import create_async_engine

from app.cache import Cache, invalidate, open_cache
from app.cache.policy import EVERYTHING
from app.cache.sql.observer import observe
from app.cache.sql.tables import Tables
from app.database import Base
from app.logging import configure_logging
from app.resources import import_models
from app.settings import Settings


def database_url() -> str:
    given: str | None = context.config.attributes.get("database_url")
    return given or Settings.load().database_url


def cache() -> AbstractAsyncContextManager[Cache]:
    attributes = context.config.attributes
    if "database_url" in attributes and "cache_url" not in attributes:
        return open_cache("memory://", strict=False)
    settings = Settings.load()
    url = attributes.get("cache_url", settings.cache_url)
    return open_cache(url, name=settings.service_name, strict=False)


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # Rows may have changed, or what they mean: the COMMIT ends what was cached before it.
        on_version_apply=lambda **_: invalidate(connection, EVERYTHING),
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_alone() -> None:
    engine = create_async_engine(database_url(), poolclass=NullPool)
    async with cache() as opened:
        observe(engine, opened, Tables(Base.registry))
        async with engine.connect() as connection:
            # Held by the connection, not by a transaction, and given up when the connection closes.
            await connection.execute(select(func.pg_advisory_lock(func.hashtext("alembic"))))
            await connection.commit()
            await connection.run_sync(migrate)
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
