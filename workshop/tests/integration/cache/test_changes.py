"""P1: what a transaction changes has tags, however the change came about."""

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from sqlalchemy import ForeignKey, delete, event, func, update
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    load_only,
    mapped_column,
    relationship,
)

from app.cache.sql.changes import MAX_ROWS_PER_TEMPLATE
from tests.integration.cache.fenced import World, fenced

BOOK, OTHER_BOOK = (uuid.UUID(int=number) for number in (1, 2))
BOOK_TAG = f"book:{BOOK}"


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = ("authors", "author:{id}")

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(cascade="all, delete-orphan", lazy="selectin")


class Book(Base):
    __tablename__ = "books"
    __cache_tags__ = ("books", "book:{id}", "books:{author_id}", "shelf:{author_id}:{shelf}")

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    shelf: Mapped[str] = mapped_column(default="a")
    title: Mapped[str] = mapped_column(default="")


class Vehicle(Base):
    __tablename__ = "vehicles"
    __cache_tags__: tuple[str, ...] = ("vehicles", "vehicle:{id}")
    __mapper_args__ = {  # noqa: RUF012
        "polymorphic_on": "kind",
        "polymorphic_identity": "vehicle",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    colour: Mapped[str | None]


class Car(Vehicle):
    """In the table of its base."""

    __cache_tags__ = ("cars", "cars:{colour}")
    __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012


class Ship(Vehicle):
    """In a table of its own, joined with that of its base."""

    __tablename__ = "ships"
    __cache_tags__ = ("ships",)
    __mapper_args__ = {"polymorphic_identity": "ship"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("vehicles.id"), primary_key=True)
    port: Mapped[str] = mapped_column(default="")


ALL = [
    *("authors", "author:*", "author:1", "author:2"),
    *("books", "book:*", BOOK_TAG, f"book:{OTHER_BOOK}", "books:*", "books:1", "books:2"),
    *("shelf:*:*", "shelf:1:a", "shelf:1:b", "shelf:2:a", "shelf:2:b"),
    *("vehicles", "vehicle:*", "vehicle:1", "cars", "cars:*", "cars:red", "cars:blue", "ships"),
]


@pytest.fixture
async def world(empty_database_url: str, cache_url: str) -> AsyncIterator[World]:
    async with fenced(Base, ALL, empty_database_url, cache_url) as world:
        async with world.sessions.begin() as session:
            session.add_all([Author(id=1, name="Anna"), Author(id=2, name="Bob")])
            session.add(Book(id=BOOK, author_id=1))
        yield world


async def expired(session: Any) -> None:
    book = await session.get_one(Book, BOOK)
    session.expire(book)
    book.author_id = 2


async def partly_loaded(session: Any) -> None:
    book = await session.get_one(Book, BOOK, options=[load_only(Book.title)])
    book.author_id = 2


async def detached(session: Any) -> None:
    book = await session.get_one(Book, BOOK)
    session.expire(book)
    session.expunge(book)
    book.author_id = 2
    session.add(book)


async def by_an_expression(session: Any) -> None:
    book = await session.get_one(Book, BOOK)
    book.author_id = func.abs(-2)


@pytest.mark.parametrize("moved", [expired, partly_loaded, detached, by_an_expression])
async def test_the_old_owners_page_ends_when_the_old_value_was_not_loaded(
    world: World, moved: Any
) -> None:
    before = (await world.cache.backend.begin("k", ["books:1", "books:*"], "t"))[0]
    async with world.sessions.begin() as session:
        await moved(session)
    assert (await world.cache.backend.read("k", ["books:1", "books:*"]))[1] != before
    async with world.sessions() as session:
        assert (await session.get_one(Book, BOOK)).author_id == 2


async def test_a_merged_object_ends_the_tags_of_what_it_was(world: World) -> None:
    async with (
        world.invalidated("books", BOOK_TAG, "books:1", "books:2", "shelf:1:a", "shelf:2:b"),
        world.sessions.begin() as session,
    ):
        await session.merge(Book(id=BOOK, author_id=2, shelf="b", title=""))


async def test_a_change_of_several_fields_ends_the_tag_of_all_their_old_values(
    world: World,
) -> None:
    async with (
        world.invalidated("books", BOOK_TAG, "books:1", "books:2", "shelf:1:a", "shelf:2:b"),
        world.sessions.begin() as session,
    ):
        book = await session.get_one(Book, BOOK)
        book.author_id, book.shelf = 2, "b"


async def test_a_row_that_was_deleted_partly_loaded_ends_its_tags(world: World) -> None:
    async with (
        world.invalidated("books", BOOK_TAG, "books:*", "shelf:*:*"),
        world.sessions.begin() as session,
    ):
        book = await session.get_one(Book, BOOK, options=[load_only(Book.title)])
        await session.delete(book)


async def test_an_orphan_that_its_parent_drags_along_ends_its_tags(world: World) -> None:
    async with (
        world.invalidated(*("authors", "author:1", "books", BOOK_TAG, "books:1", "shelf:1:a")),
        world.sessions.begin() as session,
    ):
        author = await session.get_one(Author, 1)
        author.books.clear()


async def test_a_row_that_takes_the_place_of_a_deleted_one_ends_the_tags_of_both(
    world: World,
) -> None:
    async with (
        world.invalidated(*("books", BOOK_TAG, "books:1", "books:2", "shelf:1:a", "shelf:2:b")),
        world.sessions.begin() as session,
    ):
        await session.delete(await session.get_one(Book, BOOK))
        session.add(Book(id=BOOK, author_id=2, shelf="b"))


@pytest.mark.parametrize(
    ("row", "tags"),
    [
        (Car(id=1, colour="red"), ("vehicles", "vehicle:1", "cars", "cars:red")),
        (Ship(id=1), ("vehicles", "vehicle:1", "ships")),
        (Vehicle(id=1), ("vehicles", "vehicle:1")),
    ],
    ids=["single table", "joined", "base"],
)
async def test_a_row_of_a_subclass_ends_the_tags_of_its_base_too(
    world: World, row: Vehicle, tags: tuple[str, ...]
) -> None:
    async with world.invalidated(*tags), world.sessions.begin() as session:
        await session.merge(row)


@pytest.mark.parametrize(
    ("statement", "tags"),
    [
        (
            update(Vehicle).values(colour="blue"),
            ("vehicles", "vehicle:*", "cars", "cars:*", "ships"),
        ),
        (update(Car).values(colour="blue"), ("vehicles", "vehicle:*", "cars", "cars:*", "ships")),
        (delete(Ship), ("vehicles", "vehicle:*", "ships")),
    ],
    ids=["base", "single table", "joined"],
)
async def test_a_bulk_statement_ends_the_families_of_all_whose_rows_are_in_its_table(
    world: World, statement: Any, tags: tuple[str, ...]
) -> None:
    async with world.invalidated(*tags), world.sessions.begin() as session:
        await session.execute(statement)


@pytest.mark.parametrize("moment", ["after_flush_postexec", "before_commit"])
async def test_what_a_listener_changes_late_is_invalidated(world: World, moment: str) -> None:
    def change(session: Session, *_: object) -> None:
        author = session.get_one(Author, 2)
        if author.name == "Bob":
            author.name = "Bert"

    listened = type("ListenedSession", (Session,), {})
    event.listen(listened, moment, change)
    world.sessions.configure(sync_session_class=listened)
    async with (
        world.invalidated("authors", "author:1", "author:2"),
        world.sessions.begin() as session,
    ):
        (await session.get_one(Author, 1)).name = "Ann"


async def test_many_rows_are_their_family_and_every_entry_of_theirs_ends(world: World) -> None:
    held: list[list[str]] = []
    hold = world.cache.backend.hold

    async def noted(tags: Sequence[str], writer: str) -> None:
        held.append(list(tags))
        await hold(tags, writer)

    world.cache.backend.hold = noted  # type: ignore[method-assign]
    async with (
        world.invalidated("books", "book:*", "books:1", "shelf:1:a"),
        world.sessions.begin() as session,
    ):
        session.add_all(
            [Book(id=uuid.uuid4(), author_id=1) for _ in range(MAX_ROWS_PER_TEMPLATE + 1)]
        )
    names = ["book:*", "books", "books:1", "books:?", "shelf:1:a", "shelf:?:?", "table:books"]
    assert held == [names]
