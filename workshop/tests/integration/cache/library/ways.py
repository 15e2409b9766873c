"""Endpoints that make a shelf, and that change it in each of the ways that SQLAlchemy has.

A statement is run in a session, over its connection or over the engine.
What each of them changes is said in test_writes.py.
"""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import Executable, Table, Update, delete, insert, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.database import WriteSession, WriteSessionDep
from tests.integration.cache.library.models import (
    Author,
    Book,
    Favourite,
    Genre,
    Order,
    OrderLine,
    Review,
    Stock,
    book_genres,
)

router = APIRouter()


class Shelf(BaseModel):
    """One test's own data: an author with two books. All that hangs on books hangs on the first."""

    author_id: int
    other_author_id: int
    book_id: uuid.UUID
    second_book_id: uuid.UUID
    slug: str
    other_slug: str
    order_id: int
    review_id: int
    user: str
    other_user: str


@router.post("/shelves", status_code=201)
async def make_shelf(session: WriteSessionDep) -> Shelf:
    author, other = Author(name=new()), Author(name=new())
    first, second = (Book(title=new(), price=5, author=author) for _ in "12")
    first.genres = [used := Genre(slug=new(), name=new())]
    unused, order = Genre(slug=new(), name=new()), Order(user=new())
    session.add_all([author, other, first, second, unused, order])
    await session.flush()
    review = Review(book_id=first.book_id, stars=3)
    hanging = [
        review,
        Stock(book_id=first.book_id, copies=1),
        Favourite(user=order.user, book_id=first.book_id),
        OrderLine(order_id=order.order_id, book_id=first.book_id, quantity=2),
    ]
    session.add_all([*hanging, Favourite(user=(other_user := new()), book_id=second.book_id)])
    await session.flush()
    return Shelf(
        author_id=author.author_id,
        other_author_id=other.author_id,
        book_id=first.book_id,
        second_book_id=second.book_id,
        slug=used.slug,
        other_slug=unused.slug,
        order_id=order.order_id,
        review_id=review.review_id,
        user=order.user,
        other_user=other_user,
    )


@router.post("/statements/{name}/{how}", status_code=204)
async def run_statement(
    name: str, how: str, shelf: Shelf, session: WriteSessionDep, request: Request
) -> None:
    statement = STATEMENTS[name](shelf)
    if how in OVER_ENGINE:
        await OVER_ENGINE[how](request.state.engine, statement)
    else:
        await IN_SESSION[how](session, statement)


@router.post("/in-session/{name}", status_code=204)
async def use_session(name: str, shelf: Shelf, session: WriteSessionDep) -> None:
    await session.run_sync(USES[name], shelf)


def new() -> str:
    return uuid.uuid4().hex


def table(model: type) -> Table:
    found = model.__table__  # type: ignore[attr-defined]
    assert isinstance(found, Table)
    return found


AUTHORS, BOOKS, GENRES, STOCK = map(table, (Author, Book, Genre, Stock))


def rename(shelf: Shelf) -> Update:
    return update(AUTHORS).where(AUTHORS.c.author_id == shelf.author_id).values(name=new())


def third_book(shelf: Shelf) -> dict[str, Any]:
    return {"book_id": uuid.uuid4(), "title": new(), "price": 7, "author_id": shelf.author_id}


def copy_of_book(shelf: Shelf) -> Executable:
    copied = select(literal(uuid.uuid4()), literal(new()), BOOKS.c.price, BOOKS.c.author_id)
    copied = copied.where(BOOKS.c.book_id == shelf.book_id)
    return insert(BOOKS).from_select(["book_id", "title", "price", "author_id"], copied)


def upsert(what: Any, key: str, **values: Any) -> Executable:
    row = postgresql.insert(what).values(**values)
    set_ = {name: row.excluded[name] for name in values if name != key}
    return row.on_conflict_do_update(index_elements=[key], set_=set_)


STATEMENTS: dict[str, Callable[[Shelf], Executable]] = {
    "rename": rename,
    "rename by the model": lambda s: (
        update(Author).where(Author.author_id == s.author_id).values(name=new())
    ),
    "rename, returning": lambda s: (
        update(Author).where(Author.author_id == s.author_id).values(name=new()).returning(Author)
    ),
    "rename in a CTE": lambda s: select(rename(s).returning(AUTHORS.c.name).cte("renamed").c.name),
    "rename by upsert": lambda s: upsert(Author, "author_id", author_id=s.author_id, name=new()),
    "add": lambda s: insert(BOOKS).values(**third_book(s)),
    "add by the model": lambda s: insert(Book).values(**third_book(s)),
    "add from a SELECT": copy_of_book,
    "move, looking at reviews": lambda s: (
        update(Book).values(author_id=s.other_author_id)
        .where(Book.book_id == Review.book_id, Review.review_id == s.review_id)
    ),
    "remove": lambda s: delete(BOOKS).where(BOOKS.c.book_id == s.book_id),
    "remove by the model": lambda s: delete(Book).where(Book.book_id == s.book_id),
    "delete the author": lambda s: delete(AUTHORS).where(AUTHORS.c.author_id == s.author_id),
    "delete the author by the model": lambda s: (
        delete(Author).where(Author.author_id == s.author_id)
    ),
    "rekey the genre": lambda s: update(GENRES).where(GENRES.c.slug == s.slug).values(slug=new()),
    "add a genre": lambda s: insert(book_genres).values(book_id=s.book_id, slug=s.other_slug),
    "remove genres": lambda s: delete(book_genres).where(book_genres.c.book_id == s.book_id),
    "count stock by upsert": lambda s: upsert(STOCK, "book_id", book_id=s.book_id, copies=2),
    "count stock by upsert of the model": lambda s: (
        upsert(Stock, "book_id", book_id=s.book_id, copies=2)
    ),
    "cancel, looking at books": lambda s: (
        delete(OrderLine)
        .where(OrderLine.book_id == Book.book_id, Book.author_id == s.author_id)
    ),
}  # fmt: skip


async def in_savepoint(session: WriteSession, statement: Executable) -> None:
    async with session.begin_nested():
        await session.execute(statement)


async def by_connection(session: WriteSession, statement: Executable) -> None:
    await (await session.connection()).execute(statement)


async def rolled_back(session: WriteSession, statement: Executable) -> None:
    await session.execute(statement)
    raise HTTPException(409)


async def by_engine(engine: AsyncEngine, statement: Executable) -> None:
    async with engine.begin() as connection:
        await connection.execute(statement)


async def by_own_commit(engine: AsyncEngine, statement: Executable) -> None:
    async with engine.connect() as connection:
        await connection.execute(statement)
        await connection.commit()


async def by_options(engine: AsyncEngine, statement: Executable) -> None:
    """An engine with other options shares its events and its pool."""
    await by_engine(engine.execution_options(isolation_level="SERIALIZABLE"), statement)


async def by_own_session(engine: AsyncEngine, statement: Executable) -> None:
    async with async_sessionmaker(engine).begin() as session:
        await session.execute(statement)


async def by_session_of_connection(engine: AsyncEngine, statement: Executable) -> None:
    """The COMMIT is that of the connection; the session's is a savepoint."""
    async with engine.begin() as connection:
        how = "create_savepoint"
        async with AsyncSession(connection, join_transaction_mode=how) as session:
            await session.execute(statement)
            await session.commit()


async def before_savepoint(engine: AsyncEngine, statement: Executable) -> None:
    """What was rolled back to a savepoint is not the end of the transaction."""
    async with engine.begin() as connection:
        await connection.execute(statement)
        savepoint = await connection.begin_nested()
        await connection.execute(update(BOOKS).values(price=0).where(BOOKS.c.price < 0))
        await savepoint.rollback()


IN_SESSION: dict[str, Callable[[WriteSession, Executable], Awaitable[object]]] = {
    "in a session": lambda session, statement: session.execute(statement),
    "in a savepoint": in_savepoint,
    "by the connection of a session": by_connection,
    "rolled back": rolled_back,
}
OVER_ENGINE: dict[str, Callable[[AsyncEngine, Executable], Awaitable[object]]] = {
    "over the engine": by_engine,
    "with a commit of its own": by_own_commit,
    "over the engine with options": by_options,
    "in a session of its own": by_own_session,
    "in a session of a connection": by_session_of_connection,
    "before a savepoint that is rolled back": before_savepoint,
}


# What the unit of work does, and the old ways in bulk.


def named(shelf: Shelf) -> dict[str, Any]:
    return {"author_id": shelf.author_id, "name": new()}


def book_of(session: Session, shelf: Shelf) -> Book:
    return session.get_one(Book, shelf.book_id)


def author_of(session: Session, shelf: Shelf) -> Author:
    return session.get_one(Author, shelf.author_id)


def set_genres(session: Session, shelf: Shelf, *slugs: str) -> None:
    book = book_of(session, shelf)
    book.genres = [session.get_one(Genre, slug) for slug in slugs]


USES: dict[str, Callable[[Session, Shelf], object]] = {
    "rename": lambda session, s: setattr(author_of(session, s), "name", new()),
    "merge": lambda session, s: session.merge(Author(**named(s))),
    "bulk update by keys": lambda session, s: session.execute(update(Author), [named(s)]),
    "bulk_update_mappings": lambda session, s: session.bulk_update_mappings(
        Author.__mapper__, [named(s)]
    ),
    "rekey the genre": lambda session, s: setattr(session.get_one(Genre, s.slug), "slug", new()),
    "add": lambda session, s: session.add(Book(**third_book(s))),
    "add by a relationship": lambda session, s: session.add(
        Book(title=new(), price=7, author=author_of(session, s))
    ),
    "bulk insert": lambda session, s: session.execute(insert(Book), [third_book(s), third_book(s)]),
    "bulk_save_objects": lambda session, s: session.bulk_save_objects([Book(**third_book(s))]),
    "move": lambda session, s: setattr(book_of(session, s), "author_id", s.other_author_id),
    "remove": lambda session, s: session.delete(book_of(session, s)),
    "delete the author": lambda session, s: session.delete(author_of(session, s)),
    "add a genre": lambda session, s: set_genres(session, s, s.slug, s.other_slug),
    "remove genres": set_genres,
    "order": lambda session, s: session.add(
        OrderLine(order_id=s.order_id, book_id=s.book_id, quantity=1)
    ),
    "like": lambda session, s: session.add(Favourite(user=s.user, book_id=s.second_book_id)),
    "review": lambda session, s: session.add(Review(book_id=s.second_book_id, stars=5)),
}
