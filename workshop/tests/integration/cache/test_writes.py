"""P10: a statement that changes a table ends the tag of the table and all finer ones, whichever way
it is sent, and what foreign keys drag along with it."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Table,
    delete,
    event,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column, relationship

from app.cache import UntoldWrite
from tests.integration.cache.fenced import World, fenced

BOOK, OTHER_BOOK = (uuid.UUID(int=number) for number in (1, 2))


class Base(DeclarativeBase):
    pass


book_genres = Table(
    "book_genres",
    Base.metadata,
    Column("book_id", ForeignKey("books.id", ondelete="CASCADE"), primary_key=True),
    Column("slug", ForeignKey("genres.slug", onupdate="CASCADE"), primary_key=True),
    info={"cache_tags": ("book-genres", "genres-of:{book_id}")},
)


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = ("authors", "author:{id}")

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Genre(Base):
    __tablename__ = "genres"

    slug: Mapped[str] = mapped_column(primary_key=True)


class Book(Base):
    __tablename__ = "books"
    __cache_tags__ = ("book:{id}",)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(default="")
    genres: Mapped[list[Genre]] = relationship(secondary=book_genres, lazy="selectin")


class Loan(Base):
    __tablename__ = "loans"
    __cache_tags__ = ("loans-of:{user}",)

    id: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str]
    book_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("books.id", ondelete="SET NULL"))


class Count(Base):
    """Of books, kept by a listener."""

    __tablename__ = "counts"
    __cache_tags__ = ("count:{author_id}",)

    author_id: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[int]


class Stock(Base):
    """A model whose table declares tags."""

    __tablename__ = "stock"
    __table_args__ = {"info": {"cache_tags": ("stock:{book_id}",)}}  # noqa: RUF012

    book_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    copies: Mapped[int] = mapped_column(default=0)


class StockReport(Base):
    """A second model of one table."""

    __table__ = Stock.__table__
    __cache_tags__ = ("report",)


AUTHORS, BOOKS = Base.metadata.tables["authors"], Base.metadata.tables["books"]
ALL_AUTHORS = ("table:authors", "authors", "author:*")
ALL_BOOKS = ("table:books", "book:*")
ALL_LOANS = ("table:loans", "loans-of:*")
ALL_GENRES_OF = ("table:book_genres", "book-genres", "genres-of:*")
DRAGGED = (*ALL_LOANS, *ALL_GENRES_OF)
TAGS = [
    *("author:1", "author:2", f"book:{BOOK}", "loans-of:Eve", "count:1", "table:counts", "count:*"),
    *(f"genres-of:{BOOK}", "table:genres", "table:stock", "stock:*", f"stock:{BOOK}", "report"),
    *(*ALL_AUTHORS, *ALL_BOOKS, *DRAGGED),
]


@pytest.fixture
async def world(empty_database_url: str, cache_url: str) -> AsyncIterator[World]:
    async with fenced(Base, TAGS, empty_database_url, cache_url) as world:
        async with world.sessions.begin() as session:
            session.add_all([Author(id=1), Author(id=2), Genre(slug="a"), Genre(slug="b")])
            await session.flush()
            session.add_all([Book(id=BOOK, author_id=1), Book(id=OTHER_BOOK, author_id=2)])
            session.add_all([Count(author_id=1, books=0), Loan(id=1, user="Eve", book_id=BOOK)])
        yield world


RENAME = update(AUTHORS).where(AUTHORS.c.id == 1).values(name="Ann")
NEW_BOOK = {"id": uuid.UUID(int=3), "author_id": 1, "title": "New"}
COPIED = select(literal(uuid.UUID(int=3)), BOOKS.c.author_id, BOOKS.c.title)
RENAMED_ONES = RENAME.returning(AUTHORS.c.id).cte("renamed")


@pytest.mark.parametrize(
    ("statement", "tags"),
    [
        pytest.param(RENAME, ALL_AUTHORS, id="core update"),
        pytest.param(update(Author).values(name="Ann"), ALL_AUTHORS, id="bulk update"),
        pytest.param(
            update(Author).values(name="Ann").returning(Author), ALL_AUTHORS, id="returning"
        ),
        pytest.param(select(RENAMED_ONES.c.id), ALL_AUTHORS, id="writing CTE"),
        pytest.param(insert(BOOKS).values(**NEW_BOOK), ALL_BOOKS, id="core insert"),
        pytest.param(
            insert(BOOKS).from_select(["id", "author_id", "title"], COPIED.limit(1)),
            ALL_BOOKS,
            id="from select",
        ),
        pytest.param(
            upsert(Author)
            .values(id=1, name="Ann")
            .on_conflict_do_update(index_elements=["id"], set_={"name": "Ann"}),
            ALL_AUTHORS,
            id="upsert",
        ),
        pytest.param(delete(Loan), ALL_LOANS, id="bulk delete"),
        pytest.param(update(aliased(Book)).values(title="x"), ALL_BOOKS, id="alias"),
        pytest.param(
            insert(book_genres).values(book_id=BOOK, slug="a"), ALL_GENRES_OF, id="association"
        ),
        pytest.param(
            delete(BOOKS).where(BOOKS.c.id == BOOK), (*ALL_BOOKS, *DRAGGED), id="ON DELETE"
        ),
        pytest.param(
            delete(Author), (*ALL_AUTHORS, *ALL_BOOKS, *DRAGGED), id="ON DELETE, transitively"
        ),
        pytest.param(
            update(Genre).where(Genre.slug == "b").values(slug="c"),
            ("table:genres", *ALL_GENRES_OF),
            id="ON UPDATE",
        ),
    ],
)
@pytest.mark.parametrize("way", ["session", "connection of a session", "engine", "own commit"])
async def test_a_statement_ends_all_tags_of_what_it_changes(
    world: World, statement: Any, tags: tuple[str, ...], way: str
) -> None:
    async with world.invalidated(*tags):
        if way == "engine":
            async with world.engine.begin() as connection:
                await connection.execute(statement)
        elif way == "own commit":
            async with world.engine.connect() as connection:
                await connection.execute(statement)
                await connection.commit()
        else:
            async with world.sessions.begin() as session:
                executor = session if way == "session" else await session.connection()
                await executor.execute(statement)


async def saved(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.bulk_save_objects([Book(**NEW_BOOK)]))


async def mapped(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.bulk_insert_mappings(Book.__mapper__, [NEW_BOOK]))


async def executed(session: AsyncSession) -> None:
    await session.execute(insert(Book), [NEW_BOOK])


async def saved_after_a_flush_without_work(session: AsyncSession) -> None:
    book = await session.get_one(Book, OTHER_BOOK)
    title = book.title
    book.title = "other"
    book.title = title
    await session.flush()
    await saved(session)


async def saved_after_a_failed_flush(session: AsyncSession) -> None:
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            session.add(Genre(slug="a"))
            await session.flush()
    await saved(session)


@pytest.mark.parametrize(
    "way", [saved, mapped, executed, saved_after_a_flush_without_work, saved_after_a_failed_flush]
)
async def test_a_bulk_insert_ends_all_tags_of_its_table(
    world: World, way: Callable[[AsyncSession], Awaitable[None]]
) -> None:
    async with world.sessions() as session:
        failed = ("table:genres",) if way is saved_after_a_failed_flush else ()
        async with world.invalidated(*ALL_BOOKS, *failed):
            await way(session)
            await session.commit()


async def test_a_flush_ends_the_tags_of_its_rows_and_of_its_tables(world: World) -> None:
    async with (
        world.invalidated("table:authors", "authors", "author:1", "table:loans"),
        world.sessions.begin() as session,
    ):
        (await session.get_one(Author, 1)).name = "Ann"
        session.add(Loan(id=2, user="Bob"))


async def test_a_flush_that_deletes_ends_all_tags_of_what_goes_with_it(world: World) -> None:
    async with (
        world.invalidated("table:books", f"book:{BOOK}", *DRAGGED),
        world.sessions.begin() as session,
    ):
        await session.delete(await session.get_one(Book, BOOK))


async def test_a_relationship_ends_the_tags_of_the_rows_of_its_association_table(
    world: World,
) -> None:
    genres_of_book = ("table:book_genres", "book-genres", f"genres-of:{BOOK}")
    for genres in (["a", "b"], ["a"], []):
        async with (
            world.invalidated(f"book:{BOOK}", *genres_of_book),
            world.sessions.begin() as session,
        ):
            book = await session.get_one(Book, BOOK)
            book.genres = [await session.get_one(Genre, slug) for slug in genres]


async def test_what_a_listener_of_a_flush_removes_from_an_association_ends_all_its_tags(
    world: World,
) -> None:
    def remove(_: object, connection: Connection, book: Book) -> None:
        connection.execute(delete(book_genres).where(book_genres.c.book_id == BOOK))

    event.listen(Book, "after_insert", remove)
    try:
        async with (
            world.invalidated("table:books", *ALL_GENRES_OF),
            world.sessions.begin() as session,
        ):
            session.add(Book(id=uuid.UUID(int=4), author_id=1))
    finally:
        event.remove(Book, "after_insert", remove)


async def test_what_a_listener_of_a_flush_executes_ends_all_tags_of_its_table(
    world: World,
) -> None:
    def count(_: object, connection: Connection, book: Book) -> None:
        counts = Base.metadata.tables["counts"]
        more = {"books": counts.c.books + 1}
        connection.execute(update(counts).where(counts.c.author_id == book.author_id).values(more))

    event.listen(Book, "after_insert", count)
    try:
        async with (
            world.invalidated("table:books", "table:counts", "count:*"),
            world.sessions.begin() as session,
        ):
            session.add(Book(id=uuid.UUID(int=4), author_id=1))
    finally:
        event.remove(Book, "after_insert", count)


async def test_a_flush_ends_what_others_declare_for_its_table(world: World) -> None:
    async with (
        world.invalidated("table:stock", "stock:*", "report"),
        world.sessions.begin() as session,
    ):
        session.add(Stock(book_id=BOOK))


async def by_options(engine: AsyncEngine) -> None:
    async with engine.execution_options(isolation_level="SERIALIZABLE").begin() as connection:
        await connection.execute(RENAME)


async def by_statements_that_commit(engine: AsyncEngine) -> None:
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(RENAME)


async def by_statements_that_commit_in_a_session(engine: AsyncEngine) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(autocommit) as session:
        (await session.get_one(Author, 1)).name = "Ann"
        await session.flush()


async def in_own_session(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(RENAME)
        await session.commit()


async def around_a_savepoint(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(RENAME)
        savepoint = await connection.begin_nested()
        await savepoint.rollback()


@pytest.mark.parametrize(
    "way",
    [
        by_options,
        by_statements_that_commit,
        by_statements_that_commit_in_a_session,
        in_own_session,
        around_a_savepoint,
    ],
)
async def test_whatever_is_made_of_the_engine_is_fenced(
    world: World, way: Callable[[AsyncEngine], Awaitable[None]]
) -> None:
    async with world.invalidated(*ALL_AUTHORS):
        await way(world.engine)


async def test_a_flush_in_a_session_of_ones_own_ends_the_tags_of_its_rows(world: World) -> None:
    async with (
        world.invalidated("table:authors", "authors", "author:1"),
        async_sessionmaker(world.engine).begin() as session,
    ):
        (await session.get_one(Author, 1)).name = "Ann"


async def test_a_session_in_the_savepoint_of_a_connection_is_told_by_its_commit(
    world: World,
) -> None:
    async with (
        world.invalidated("table:books"),
        world.engine.begin() as connection,
        world.invalidated(),
        AsyncSession(connection, join_transaction_mode="create_savepoint") as session,
    ):
        session.add(Book(**NEW_BOOK))
        await session.commit()


async def test_what_is_rolled_back_over_the_engine_leaves_no_trace(world: World) -> None:
    async with world.invalidated(), world.engine.connect() as connection:
        await connection.execute(RENAME)
        await connection.rollback()
        await connection.execute(select(AUTHORS))
        await connection.commit()


async def test_a_statement_that_commits_is_fenced_by_itself(world: World) -> None:
    hold, release = world.cache.writes.hold, world.cache.writes.release
    seen: list[tuple[str, str]] = []

    async def name() -> str:
        async with world.engine.connect() as other:
            return str(await other.scalar(select(AUTHORS.c.name).where(AUTHORS.c.id == 1)))

    async def look(*tags: Any, **options: Any) -> Any:
        if tags[0]:
            seen.append(("before", await name()))
        return await hold(*tags, **options)

    async def look_again(*arguments: Any, **options: Any) -> None:
        seen.append(("after", await name()))
        await release(*arguments, **options)

    world.cache.writes.hold, world.cache.writes.release = look, look_again  # type: ignore[method-assign]
    autocommit = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with autocommit.connect() as connection:
        await connection.execute(RENAME)
        assert seen == [("before", ""), ("after", "Ann")]
        with pytest.raises(UntoldWrite):
            await connection.execute(text("UPDATE authors SET name = 'x'"))
    assert await name() == "Ann"
