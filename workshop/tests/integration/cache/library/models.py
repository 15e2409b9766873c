"""A library: authors with integer keys, books with UUIDs, and what hangs on them.

Tests do not import this module: it adds tables to the metadata that migrations are compared with.
Only the processes that serve the library do.
"""

import uuid
from decimal import Decimal

from sqlalchemy import Column, ForeignKey, Numeric, Table
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.database import Base
from tests.integration.cache.library.declared import tags


def key_of(column: str, *, on_delete: str = "CASCADE", on_update: str | None = None) -> ForeignKey:
    return ForeignKey(column, ondelete=on_delete, onupdate=on_update)


book_genres = Table(
    "book_genres",
    Base.metadata,
    Column("book_id", key_of("books.book_id"), primary_key=True),
    Column("slug", key_of("genres.slug", on_update="CASCADE"), primary_key=True),
    info={"cache_tags": tags("book-genres", "genres-of:{book_id}")},
)


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = tags("authors", "author:{author_id}")

    author_id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(
        back_populates="author", cascade="all, delete-orphan", passive_deletes=True
    )


class Genre(Base):
    __tablename__ = "genres"
    __cache_tags__ = tags("genres", "genre:{slug}")

    slug: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(Base):
    __tablename__ = "books"
    __cache_tags__ = tags("books", "book:{book_id}", "books-of:{author_id}")

    book_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    title: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    author_id: Mapped[int] = mapped_column(key_of("authors.author_id"))
    author: Mapped[Author] = relationship(back_populates="books")
    genres: Mapped[list[Genre]] = relationship(
        secondary=book_genres, order_by=Genre.slug, passive_deletes=True
    )


class Order(Base):
    __tablename__ = "orders"
    __cache_tags__ = tags("orders", "orders-of:{user}")

    order_id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]


class OrderLine(Base):
    __tablename__ = "order_lines"
    __cache_tags__ = tags("order-lines", "lines-of:{order_id}")

    line_id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(key_of("orders.order_id"))
    book_id: Mapped[uuid.UUID] = mapped_column(key_of("books.book_id"))
    quantity: Mapped[int]


class Review(Base):
    __tablename__ = "reviews"
    __cache_tags__ = tags("reviews", "review:{review_id}")

    review_id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[uuid.UUID | None] = mapped_column(key_of("books.book_id", on_delete="SET NULL"))
    stars: Mapped[int]


class Favourite(Base):
    __tablename__ = "favourites"
    __cache_tags__ = tags("favourites:{user}")

    user: Mapped[str] = mapped_column(primary_key=True)
    book_id: Mapped[uuid.UUID] = mapped_column(key_of("books.book_id"), primary_key=True)


class Stock(Base):
    __tablename__ = "stock"
    __cache_tags__ = tags("stock:{book_id}")

    book_id: Mapped[uuid.UUID] = mapped_column(key_of("books.book_id"), primary_key=True)
    copies: Mapped[int]
