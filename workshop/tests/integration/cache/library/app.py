"""The service with a library in it, served by `uvicorn tests.integration.cache.library.app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.database import Base
from app.main import create_app
from app.settings import Settings
from tests.integration.cache.library import declared, functions, reads, texts, values, ways

IN_THE_DATABASE = (
    """
    CREATE OR REPLACE FUNCTION rename_author(which integer, new text) RETURNS text
    LANGUAGE sql AS 'UPDATE authors SET name = new WHERE author_id = which RETURNING name'
    """,
    """
    CREATE OR REPLACE PROCEDURE call_author(which integer, new text)
    LANGUAGE sql AS 'UPDATE authors SET name = new WHERE author_id = which'
    """,
    """
    CREATE OR REPLACE FUNCTION name_of_author(which integer) RETURNS text
    LANGUAGE sql STABLE AS 'SELECT name FROM authors WHERE author_id = which'
    """,
    "CREATE OR REPLACE VIEW author_names AS SELECT author_id, name FROM authors",
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
    """That of the service, over a database with the library's tables in it."""
    await _create_tables()
    async with _lifespan_of_service(app) as state:
        assert state is not None
        declared.service.append(state["sessions"])
        yield state


async def _create_tables() -> None:
    """As a migration would. Of several processes that start, one comes after the other."""
    engine = create_async_engine(Settings.load().database_url)
    async with engine.begin() as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(1)))
        await connection.run_sync(Base.metadata.create_all)
        for statement in IN_THE_DATABASE:
            await connection.execute(text(statement))
    await engine.dispose()


app = create_app()
_lifespan_of_service = app.router.lifespan_context
app.router.lifespan_context = lifespan
for module in (reads, functions, texts, values, ways):
    app.include_router(module.router)
