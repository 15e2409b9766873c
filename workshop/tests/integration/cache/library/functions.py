"""Cached functions within endpoints: what they depend on, their callers depend on. And endpoints
that wait after they have read, so that a test writes in between.

The gate of an author is a file in the folder LIBRARY_GATES: the endpoint says that it has arrived,
and goes on when the test has opened it.
"""

import asyncio
import os
import uuid
from pathlib import Path

from fastapi import APIRouter
from sqlalchemy import select

from app.database import ReadSessionDep
from tests.integration.cache.library.declared import cached, reading
from tests.integration.cache.library.models import Author, Book
from tests.integration.cache.library.reads import Rows, rows

router = APIRouter()

GATES = Path(os.environ.get("LIBRARY_GATES", "."))
POLL_SECONDS = 0.01


@cached("author:{author_id}")
async def name_of(author_id: int) -> str | None:
    async with reading() as session:
        return await session.scalar(select(Author.name).where(Author.author_id == author_id))


@cached("books-of:{author_id}")
async def report_on(author_id: int) -> Rows:
    """Two levels: it calls another cached function, and reads a table that this one does not."""
    async with reading() as session:
        query = select(Book.title).where(Book.author_id == author_id).order_by(Book.title)
        titles = (await session.scalars(query)).all()
    name = await name_of(author_id)
    return rows((name, title) for title in titles)


@router.get("/authors/{author_id}/summary")
@cached()
async def read_summary(author_id: int) -> str | None:
    return await name_of(author_id)


@router.get("/authors/{author_id}/report")
@cached()
async def read_report(author_id: int) -> Rows:
    return await report_on(author_id)


@router.get("/books/{book_id}/card")
@cached("book:{book_id}")
async def read_card(book_id: uuid.UUID, session: ReadSessionDep) -> Rows:
    """Another endpoint calls `name_of` too: what it depends on is known to both."""
    query = select(Book.title, Book.author_id).where(Book.book_id == book_id)
    found = (await session.execute(query)).all()
    return rows([(title, await name_of(author_id)) for title, author_id in found])


# Endpoints that wait.


async def wait_at_gate(author_id: int) -> None:
    (GATES / f"{author_id}.arrived").touch()
    while not (GATES / f"{author_id}.open").exists():
        await asyncio.sleep(POLL_SECONDS)


@router.get("/gated/{author_id}/query")
@cached("books-of:{author_id}")
async def read_and_wait(author_id: int) -> Rows:
    """It reads a table that no tag of it covers. Its session is closed while it waits."""
    async with reading() as session:
        query = select(Book.title, Author.name).join(Author).where(Author.author_id == author_id)
        found = rows(await session.execute(query.order_by(Book.title)))
    await wait_at_gate(author_id)
    return found


@router.get("/gated/{author_id}/function")
@cached()
async def call_and_wait(author_id: int) -> Rows:
    name = await name_of(author_id)
    await wait_at_gate(author_id)
    return [[name]]


@router.get("/gated/{author_id}/two-levels")
@cached()
async def call_deeply_and_wait(author_id: int) -> Rows:
    found = await report_on(author_id)
    await wait_at_gate(author_id)
    return found


@router.get("/gated/{author_id}/then-query")
@cached("author:{author_id}")
async def wait_and_read(author_id: int, session: ReadSessionDep) -> Rows:
    """A second table is read after the write, the first one before it, in one snapshot."""
    name = await session.scalar(select(Author.name).where(Author.author_id == author_id))
    await wait_at_gate(author_id)
    query = select(Book.title).where(Book.author_id == author_id).order_by(Book.title)
    return rows((name, title) for title in await session.scalars(query))
