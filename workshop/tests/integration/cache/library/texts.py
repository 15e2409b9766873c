"""Textual SQL: which tables it reads or changes, nobody but its author can say. A name may be that
of a view, and a function may read and write what it likes: PostgreSQL knows."""

import uuid
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import ColumnClause, column, func, literal_column, select, table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cache import invalidate
from app.database import ReadSessionDep, WriteSession, WriteSessionDep
from tests.integration.cache.library.declared import cached, reading
from tests.integration.cache.library.models import Author, Book
from tests.integration.cache.library.reads import Rows, rows

router = APIRouter()

NAME = text("SELECT name FROM authors WHERE author_id = :author_id")
JOINED = text(
    "SELECT title, name FROM books JOIN authors USING (author_id)"
    " WHERE author_id = :author_id ORDER BY title"
)


@router.get("/authors/{author_id}/text")
@cached("author:{author_id}")
async def read_untold(author_id: int, session: ReadSessionDep) -> Rows:
    return rows(await session.execute(JOINED, {"author_id": author_id}))


@router.get("/authors/{author_id}/text-told")
@cached("author:{author_id}", reads=["authors", "books"])
async def read_told(author_id: int, session: ReadSessionDep) -> Rows:
    return rows(await session.execute(JOINED, {"author_id": author_id}))


@router.get("/authors/{author_id}/text-by-expiry")
@cached(reads=[])
async def read_by_expiry(author_id: int, session: ReadSessionDep) -> Rows:
    return rows(await session.execute(JOINED, {"author_id": author_id}))


@router.get("/authors/{author_id}/fragment")
@cached("books-of:{author_id}")
async def read_fragment(author_id: int, session: ReadSessionDep) -> Rows:
    """The tables of the statement are known; what its text reads is not."""
    name: ColumnClause[str] = literal_column(
        "(SELECT name FROM authors a WHERE a.author_id = books.author_id)"
    )
    return rows(await session.execute(select(Book.title, name).where(Book.author_id == author_id)))


@router.get("/authors/{author_id}/from-text")
@cached("author:{author_id}")
async def read_from_text(author_id: int, session: ReadSessionDep) -> Rows:
    query = text("SELECT author_id, name FROM authors WHERE author_id = :author_id")
    of_text = select(Author).from_statement(query.columns(column("author_id"), column("name")))
    found = await session.scalars(of_text, {"author_id": author_id})
    return rows((author.author_id, author.name) for author in found)


@cached("author:{author_id}")
async def told_by_nobody(author_id: int) -> Rows:
    async with reading() as session:
        return rows(await session.execute(NAME, {"author_id": author_id}))


@router.get("/authors/{author_id}/text-in-function")
@cached("author:{author_id}")
async def read_by_function(author_id: int) -> Rows:
    """What calls a function whose result is not stored is not stored either."""
    return await told_by_nobody(author_id)


@router.get("/authors/{author_id}/view")
@cached("author:{author_id}")
async def read_view(author_id: int, session: ReadSessionDep) -> Rows:
    names = table("author_names", column("author_id"), column("name"))
    query = select(names.c.name).where(names.c.author_id == author_id)
    return rows(await session.execute(query))


@router.get("/authors/{author_id}/database-function")
@cached("author:{author_id}")
async def read_database_function(author_id: int, session: ReadSessionDep) -> Rows:
    return rows(await session.execute(select(func.name_of_author(author_id))))


# Writes.


class Rename(BaseModel):
    author_id: int
    tell: list[str] | None = None
    """What `invalidate` is called with; None when the author of the endpoint forgot it."""


UPDATE = "UPDATE authors SET name = :name WHERE author_id = :author_id"
Text = Callable[[WriteSession, int, str], Awaitable[object]]


def executed(statement: str) -> Text:
    return lambda session, author_id, name: session.execute(
        text(statement), {"author_id": author_id, "name": name}
    )


async def by_connection(session: WriteSession, author_id: int, name: str) -> None:
    values = {"author_id": author_id, "name": name}
    await (await session.connection()).execute(text(UPDATE), values)


async def by_driver(session: WriteSession, author_id: int, name: str) -> None:
    statement = f"UPDATE authors SET name = '{name}' WHERE author_id = {author_id}"
    await (await session.connection()).exec_driver_sql(statement)


TEXTS: dict[str, Text] = {
    "update": executed(UPDATE),
    "commented update": executed(f"/* a note */ -- another\n {UPDATE.lower()}"),
    "writing CTE": executed(f"WITH changed AS ({UPDATE} RETURNING 1) SELECT * FROM changed"),
    "function": executed("SELECT rename_author(:author_id, :name)"),
    "call": executed("CALL call_author(:author_id, :name)"),
    "merge": executed(
        "MERGE INTO authors USING (VALUES (1)) AS one(n) ON author_id = :author_id"
        " WHEN MATCHED THEN UPDATE SET name = :name"
    ),
    "by the connection of a session": by_connection,
    "by the driver": by_driver,
    "function without a text": lambda session, author_id, name: session.scalar(
        select(func.rename_author(author_id, name))
    ),
    "only reading": lambda session, author_id, _: session.execute(NAME, {"author_id": author_id}),
}


@router.post("/texts/{way}", status_code=204)
async def change_by_text(way: str, body: Rename, session: WriteSessionDep) -> None:
    if body.tell is not None:
        invalidate(session, *body.tell)
    await TEXTS[way](session, body.author_id, uuid.uuid4().hex)


@router.post("/engine-texts", status_code=204)
async def change_over_engine(body: Rename, request: Request) -> None:
    engine: AsyncEngine = request.state.engine
    async with engine.begin() as connection:
        values = {"author_id": body.author_id, "name": uuid.uuid4().hex}
        await connection.execute(text(UPDATE), values)


@router.post("/told", status_code=204)
async def tell(body: Rename, session: WriteSessionDep) -> None:
    """Only `invalidate`, beside a write that needs no word."""
    (await session.get_one(Author, body.author_id)).name = uuid.uuid4().hex
    invalidate(session, *body.tell or ())
