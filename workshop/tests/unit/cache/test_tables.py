"""What models declare covers their tables, and what foreign keys drag along is known."""

import pytest
from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import PolicyError
from app.cache.sql.statements import Change
from app.cache.sql.tables import Tables


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = ("authors", "author:{id}")

    id: Mapped[int] = mapped_column(primary_key=True)


class Book(Base):
    __tablename__ = "books"
    __cache_tags__ = ("author:{author_id}",)

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(
        ForeignKey("authors.id", ondelete="CASCADE", onupdate="CASCADE")
    )


class Loan(Base):
    __tablename__ = "loans"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int | None] = mapped_column(
        ForeignKey("books.id", ondelete="SET NULL (book_id)")
    )


class Person(Base):
    __tablename__ = "people"
    __cache_tags__ = ("people",)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012


class Editor(Person):
    __tablename__ = "editors"
    __cache_tags__ = ("editors",)

    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "editor"}  # noqa: RUF012


Table(
    "book_genres",
    Base.metadata,
    Column("book_id", ForeignKey("books.id", ondelete="cascade"), primary_key=True),
    Column("genre", primary_key=True),
    info={"cache_tags": ("genre:{genre}",)},
)

TABLES = Tables(Base.registry)


@pytest.mark.parametrize(
    ("table", "families", "covered"),
    [
        ("authors", {"authors"}, True),
        ("authors", {"author:*"}, True),
        ("books", {"author:*"}, True),
        ("books", {"authors"}, False),
        ("loans", {"authors", "author:*"}, False),
        ("book_genres", {"genre:*"}, True),
        ("people", {"people"}, True),
        ("people", {"editors"}, True),
        ("editors", {"editors"}, True),
        ("editors", {"people"}, True),
        ("unheard_of", {"authors"}, False),
    ],
)
def test_a_table_is_covered_by_the_tags_of_its_models(
    table: str, families: set[str], covered: bool
) -> None:
    assert (table in TABLES.covered(frozenset(families))) is covered


def test_a_delete_drags_along_what_cascades_however_deep() -> None:
    assert TABLES.dragged_along([Change("authors", "delete")]) == {
        Change("books", "delete"),
        Change("loans", "update"),
        Change("book_genres", "delete"),
    }


def test_an_update_drags_along_what_follows_the_key() -> None:
    assert TABLES.dragged_along([Change("authors", "update")]) == {Change("books", "update")}


def test_an_insert_drags_nothing_along() -> None:
    assert not TABLES.dragged_along([Change("authors", "insert")])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("books", "is 'books': write a tuple"),
        (("book:{isbn}",), "needs isbn, and there are id, title"),
        (("book:{id:>3}",), "a placeholder is a name"),
        ((7,), "a tag is a text"),
    ],
)
def test_tags_that_cannot_be_right_are_refused_with_the_model_named(
    tags: object, message: str
) -> None:
    class Mistaken(DeclarativeBase):
        pass

    type(
        "Leaflet",
        (Mistaken,),
        {
            "__tablename__": "leaflets",
            "__cache_tags__": tags,
            "id": Column("id", primary_key=True),
            "title": Column("title"),
        },
    )
    with pytest.raises(PolicyError, match=r"Leaflet\.__cache_tags__") as refused:
        Tables(Mistaken.registry)
    assert message in str(refused.value)
