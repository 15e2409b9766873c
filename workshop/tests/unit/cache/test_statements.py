"""What statements read and change is found in the statements, whichever way they are written."""

from typing import Any

import pytest
from sqlalchemy import (
    DDL,
    Column,
    Executable,
    ForeignKey,
    Integer,
    Table,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    mapped_column,
    relationship,
)
from sqlalchemy.schema import CreateTable, DropTable

from app.cache.sql.statements import Effect, effect_of

DIALECT = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


class Base(DeclarativeBase):
    pass


book_genres = Table(
    "book_genres",
    Base.metadata,
    Column("book_id", ForeignKey("books.id"), primary_key=True),
    Column("genre_id", ForeignKey("genres.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str]
    author: Mapped[Author] = relationship(back_populates="books")
    genres: Mapped[list["Genre"]] = relationship(secondary=book_genres)


class Genre(Base):
    __tablename__ = "genres"

    id: Mapped[int] = mapped_column(primary_key=True)


class Invoice(Base):
    __tablename__ = "invoices"
    __table_args__ = {"schema": "billing"}  # noqa: RUF012 - as SQLAlchemy documents it

    id: Mapped[int] = mapped_column(primary_key=True)


class Person(Base):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012


class Editor(Person):
    __tablename__ = "editors"

    id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    __mapper_args__ = {"polymorphic_identity": "editor"}  # noqa: RUF012


def effect(statement: Any) -> Effect:
    compiled = statement.compile(dialect=DIALECT)
    return effect_of(compiled, str(compiled))


AUTHORS, GENRES = Base.metadata.tables["authors"], Base.metadata.tables["genres"]
NEW_GENRE = insert(Genre).values(id=1).returning(Genre.id).cte("new")


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        pytest.param(select(Author), {"authors"}, id="entity"),
        pytest.param(select(Author.id), {"authors"}, id="column"),
        pytest.param(select(Author.__table__), {"authors"}, id="core"),
        pytest.param(select(Book.id).join(Book.author), {"books", "authors"}, id="join"),
        pytest.param(
            select(Book.id, Author.id).where(Book.author_id == Author.id),
            {"books", "authors"},
            id="implicit join",
        ),
        pytest.param(
            select(Book).options(joinedload(Book.author), joinedload(Book.genres)),
            {"books", "authors", "genres", "book_genres"},
            id="joinedload",
        ),
        pytest.param(
            select(Author.id).where(Author.books.any()), {"authors", "books"}, id="exists"
        ),
        pytest.param(
            select(Author.id, exists().where(Book.author_id == Author.id)),
            {"authors", "books"},
            id="correlated exists",
        ),
        pytest.param(
            select(Book.id).where(Book.genres.any(Genre.id == 1)),
            {"books", "genres", "book_genres"},
            id="through an association",
        ),
        pytest.param(
            select(Author.id, select(func.count(Book.id)).scalar_subquery()),
            {"authors", "books"},
            id="scalar subquery",
        ),
        pytest.param(
            select(select(Book.id).cte("books_only").c.id), {"books"}, id="common table expression"
        ),
        pytest.param(
            union_all(select(Author.id), select(Genre.id)), {"authors", "genres"}, id="union"
        ),
        pytest.param(select(aliased(Book).id), {"books"}, id="alias"),
        pytest.param(
            select(Author.id, select(Book.id).where(Book.author_id == Author.id).lateral().c.id),
            {"authors", "books"},
            id="lateral",
        ),
        pytest.param(select(Editor), {"people", "editors"}, id="joined inheritance"),
        pytest.param(select(Invoice), {"billing.invoices"}, id="schema"),
        pytest.param(select(func.count()).select_from(table("ledger")), {"ledger"}, id="by name"),
    ],
)
def test_the_tables_that_a_query_reads_are_found(statement: Executable, tables: set[str]) -> None:
    found = effect(statement)
    assert found.reads == tables
    assert not found.changes
    assert not found.reads_unknown
    assert not found.changes_unknown


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        pytest.param(insert(Author), {("authors", "insert")}, id="insert"),
        pytest.param(insert(AUTHORS).values(id=1), {("authors", "insert")}, id="core insert"),
        pytest.param(update(Book).values(title="x"), {("books", "update")}, id="update"),
        pytest.param(
            update(Book).where(Book.author_id == Author.id).values(title="x"),
            {("books", "update")},
            id="update from",
        ),
        pytest.param(
            delete(Book).where(Book.author_id == Author.id),
            {("books", "delete")},
            id="delete using",
        ),
        pytest.param(insert(book_genres), {("book_genres", "insert")}, id="association"),
        pytest.param(
            upsert(Author)
            .values(id=1, name="x")
            .on_conflict_do_update(index_elements=["id"], set_={"name": "x"}),
            {("authors", "insert"), ("authors", "update")},
            id="upsert",
        ),
        pytest.param(
            insert(Genre).from_select(["id"], select(Book.id)),
            {("genres", "insert")},
            id="from select",
        ),
        pytest.param(select(NEW_GENRE.c.id, Book.id), {("genres", "insert")}, id="writing CTE"),
        pytest.param(update(Invoice).values(id=2), {("billing.invoices", "update")}, id="schema"),
        pytest.param(DropTable(GENRES), {("genres", "delete")}, id="drop"),
        pytest.param(CreateTable(GENRES), set(), id="create"),
    ],
)
def test_the_tables_that_a_statement_changes_are_found(
    statement: Executable, changes: set[tuple[str, str]]
) -> None:
    found = effect(statement)
    assert found.changes == changes
    assert not found.changes_unknown


@pytest.mark.parametrize(
    "statement",
    [
        text("SELECT id FROM books"),
        text("SELECT id FROM books").columns(id=Integer),
        select(Book).from_statement(text("SELECT * FROM books")),
        select(Book.id).where(text("id IN (SELECT book_id FROM loans)")),
        select(literal_column("(SELECT count(*) FROM loans)")),
        text("TABLE books"),
        text("SELECT 1 -- '\n FROM books"),
    ],
)
def test_text_that_reads_a_table_is_not_understood(statement: Executable) -> None:
    found = effect(statement)
    assert found.reads_unknown
    assert not found.changes_unknown


@pytest.mark.parametrize(
    "statement",
    [
        text("SELECT 1"),
        text("SELECT 'from' AS word /* from */"),
        select(Book.id).order_by(text("title DESC")),
        select(Book.id, literal_column("1")),
    ],
)
def test_text_that_reads_no_table_says_nothing(statement: Executable) -> None:
    found = effect(statement)
    assert not found.reads_unknown
    assert not found.changes_unknown


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE books SET title = 'x'",
        " \n(delete from books)",
        "WITH gone AS (DELETE FROM books RETURNING id) SELECT id FROM gone",
        "SELECT id INTO archive FROM books",
        "CALL renumber()",
        "DO $$ BEGIN PERFORM 1; END $$",
        "TRUNCATE books",
        "COPY books FROM STDIN",
        "/* SELECT */ MERGE INTO books USING loans ON true WHEN MATCHED THEN DELETE",
        "CREATE TABLE x AS SELECT 1",
        "EXPLAIN ANALYZE UPDATE books SET title = 'x'",
    ],
)
def test_text_that_may_change_a_table_is_told_from_text_that_does_not(sql: str) -> None:
    assert effect(text(sql)).changes_unknown
    assert effect_of(None, sql).changes_unknown


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM books WHERE title = 'update' FOR UPDATE",
        "SELECT id FROM books FOR NO KEY UPDATE SKIP LOCKED",
        "SET LOCAL lock_timeout = '1s'",
        "EXPLAIN SELECT 1",
        "SHOW server_version",
        "-- delete\nVALUES (1)",
    ],
)
def test_text_that_changes_no_table_is_let_through(sql: str) -> None:
    assert not effect(text(sql)).changes_unknown


def test_free_ddl_may_change_anything() -> None:
    dropped = DDL("DROP TABLE books")  # type: ignore[no-untyped-call]
    assert effect(dropped).changes_unknown


def test_functions_are_named_wherever_they_are_called() -> None:
    assert "renumber" in effect(select(func.audit.Renumber(1))).calls
    assert "renumber" in effect(text("SELECT audit.renumber(1)")).calls
    assert "renumber" in effect(select(Book.id).where(text('"renumber" (id) > 0'))).calls
    assert "json_each" in effect(select(func.json_each("{}").table_valued("key"))).calls


def test_a_statement_is_walked_once() -> None:
    compiled = select(Author).compile(dialect=DIALECT)
    assert effect_of(compiled, str(compiled)) is effect_of(compiled, str(compiled))
