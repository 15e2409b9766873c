"""Endpoints that read the library in each of the ways that SQLAlchemy has.

The tags are what a careful author writes, who thinks of the first table of a query and forgets the
others: `authors` of a list of books, the order lines in a statistic.
"""

import inspect
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request
from sqlalchemy import Select, exists, func, select, union
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import joinedload, selectinload

from app.cache import shared_dependency
from app.database import ReadSessionDep
from tests.integration.cache.library.declared import cached
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

Query = TypeVar("Query", bound=Callable[[Any], Select[*tuple[Any, ...]]])
Rows: TypeAlias = list[list[str | int | None]]

router = APIRouter()


def rows(found: Iterable[Sequence[Any]]) -> Rows:
    """As JSON has them: keys, prices and times are text."""
    plain = (str, int, type(None))
    return [[item if isinstance(item, plain) else str(item) for item in row] for row in found]


def shown_at(path: str, *tags: str) -> Callable[[Query], Query]:
    """An endpoint that answers with the rows of a query for one value."""

    def register(query: Query) -> Query:
        async def read(session: ReadSessionDep, value: Any) -> Rows:
            return rows(await session.execute(query(value)))

        [parameter] = inspect.signature(query).parameters.values()
        read.__annotations__["value"] = Annotated[parameter.annotation, Path(alias=parameter.name)]
        router.get(path)(cached(*tags)(read))
        return query

    return register


@shown_at("/authors/{author_id}/name", "author:{author_id}")
def columns(author_id: int) -> Select[str]:
    return select(Author.name).where(Author.author_id == author_id)


@shown_at("/authors/{author_id}/books", "books-of:{author_id}")
@shown_at("/authors/{author_id}/books-and-name", "books-of:{author_id}", "author:{author_id}")
def joined(author_id: int) -> Select[str, str]:
    query = select(Book.title, Author.name).join(Book.author).order_by(Book.title)
    return query.where(Author.author_id == author_id)


@shown_at("/authors/{author_id}/ordered", "author:{author_id}")
def ordered(author_id: int) -> Select[str]:
    lines = exists().where(OrderLine.book_id == Book.book_id, Book.author_id == author_id)
    return select(Author.name).where(Author.author_id == author_id, lines)


@shown_at("/genres/{slug}/used", "genre:{slug}")
def genre_used(slug: str) -> Select[bool]:
    return select(exists().where(book_genres.c.slug == slug))


@shown_at("/books/{book_id}/sold", "book:{book_id}")
def sold(book_id: uuid.UUID) -> Select[str, int]:
    quantity = select(func.sum(OrderLine.quantity)).where(OrderLine.book_id == Book.book_id)
    return select(Book.title, quantity.scalar_subquery()).where(Book.book_id == book_id)


@shown_at("/authors/{author_id}/reviewed", "books-of:{author_id}")
def reviewed(author_id: int) -> Select[str]:
    books = select(Review.book_id).where(Review.stars > 0)
    return select(Book.title).where(Book.author_id == author_id, Book.book_id.in_(books))


@shown_at("/authors/{author_id}/best", "books-of:{author_id}")
def best(author_id: int) -> Select[str, str, int]:
    sums = func.sum(OrderLine.quantity).label("sold")
    sold = select(OrderLine.book_id, sums).group_by(OrderLine.book_id).cte("sold")
    query = select(Author.name, Book.title, sold.c.sold).join(Book.author)
    query = query.join(sold, sold.c.book_id == Book.book_id).order_by(sold.c.sold.desc())
    return query.where(Author.author_id == author_id)


@shown_at("/authors/{author_id}/words", "books-of:{author_id}")
def words(author_id: int) -> Select[str]:
    titles = select(Book.title.label("word")).where(Book.author_id == author_id)
    genres = select(Genre.name).join(book_genres).join(Book).where(Book.author_id == author_id)
    both = union(titles, genres).subquery()
    return select(both.c.word).order_by(both.c.word)


@shown_at("/books/{book_id}/genres", "genres-of:{book_id}")
def genres(book_id: uuid.UUID) -> Select[str, str]:
    query = select(Genre.slug, Genre.name).select_from(Book).join(Book.genres)
    return query.where(Book.book_id == book_id).order_by(Genre.slug)


@shown_at("/authors/{author_id}/statistic", "books-of:{author_id}")
def statistic(author_id: int) -> Select[*tuple[Any, ...]]:
    books = func.count(Book.book_id.distinct())
    query = select(books, func.sum(Book.price), func.avg(Review.stars))
    return query.outerjoin(Review, Review.book_id == Book.book_id).where(
        Book.author_id == author_id
    )


@shown_at("/books/{book_id}/stock", "stock:{book_id}")
def stock(book_id: uuid.UUID) -> Select[int]:
    return select(Stock.copies).where(Stock.book_id == book_id)


@shown_at("/reviews/{review_id}", "review:{review_id}")
def review(review_id: int) -> Select[uuid.UUID | None, int]:
    return select(Review.book_id, Review.stars).where(Review.review_id == review_id)


# What is not one query for one value.


async def user(x_user: Annotated[str, Header()]) -> str:
    return x_user


@shared_dependency
async def the_engine(request: Request) -> AsyncEngine:
    engine: AsyncEngine = request.state.engine
    return engine


@router.get("/authors/{author_id}")
@cached("author:{author_id}")
async def read_author(author_id: int, session: ReadSessionDep) -> Rows:
    author = await session.get(Author, author_id)
    if author is None:
        raise HTTPException(404)
    return rows([(author.author_id, author.name)])


@router.get("/books")
@cached("books-of:{author_id}")
async def list_all_books(session: ReadSessionDep, author_id: int | None = None) -> Rows:
    query = select(Book.title).order_by(Book.title, Book.book_id)
    if author_id is not None:
        query = query.where(Book.author_id == author_id)
    return rows(await session.execute(query))


@router.get("/books/{book_id}")
@cached("book:{book_id}")
async def read_book(book_id: uuid.UUID, session: ReadSessionDep) -> Rows:
    query = select(Book).options(joinedload(Book.author)).where(Book.book_id == book_id)
    book = (await session.scalars(query)).one_or_none()
    if book is None:
        raise HTTPException(404)
    return rows([(book.title, book.price, book.author.author_id, book.author.name)])


@router.get("/authors/{author_id}/shelf")
@cached("author:{author_id}", "books-of:{author_id}")
async def read_shelf(author_id: int, session: ReadSessionDep) -> Rows:
    books = selectinload(Author.books).selectinload(Book.genres)
    author = await session.get(Author, author_id, options=[books])
    if author is None:
        raise HTTPException(404)
    found = ((author.name, b.title, ",".join(g.name for g in b.genres)) for b in author.books)
    return sorted(rows(found), key=str)


@router.get("/orders")
@cached("orders-of:{user}", guard=user, per_user=True)
async def list_orders(user: Annotated[str, Depends(user)], session: ReadSessionDep) -> Rows:
    query = select(Order.order_id, Book.title, OrderLine.quantity)
    query = query.join(OrderLine, OrderLine.order_id == Order.order_id).join(Book)
    return rows(await session.execute(query.where(Order.user == user).order_by(OrderLine.line_id)))


@router.get("/favourites")
@cached("favourites:{user}", guard=user, per_user=True)
async def list_favourites(user: Annotated[str, Depends(user)], session: ReadSessionDep) -> Rows:
    query = select(Favourite.book_id).where(Favourite.user == user).order_by(Favourite.book_id)
    return rows(await session.execute(query))


@router.get("/authors/{author_id}/by-connection")
@cached("author:{author_id}")
async def read_by_connection(
    author_id: int, engine: Annotated[AsyncEngine, Depends(the_engine)]
) -> Rows:
    async with engine.connect() as connection:
        query = select(Author.name).where(Author.author_id == author_id)
        return rows(await connection.execute(query))
