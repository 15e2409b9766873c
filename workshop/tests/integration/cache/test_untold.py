"""P10: a write that cannot be understood is refused, or ends everything, unless `invalidate` says
what it changes."""

import logging
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    Table,
    Text,
    column,
    func,
    insert,
    select,
    table,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import PolicyError, UntoldWrite, cache, invalidate, open_cache
from app.cache.events import Counters
from app.cache.policy import EVERYTHING
from tests.integration.cache.fenced import World, fenced, observed


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = ("everybody", "author:{id}")

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")


class Book(Base):
    __tablename__ = "books"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id", ondelete="CASCADE"))


Table(
    "loans",
    Base.metadata,
    Column("user", Text, primary_key=True),
    info={"cache_tags": ["loans-of:{user}"]},
)


@cache(60, manual=["rates", "rate:{currency}"])
async def rate(currency: str) -> float:
    return 1.0


OF_AUTHORS = ("table:authors", "everybody", "author:*", "table:books")
TOLD = ("author:1", "author:2", "author:?", "table:loans", "rates", "rate:eur", "GET /x")
FUNCTIONS = (
    "CREATE FUNCTION rename(which int) RETURNS int LANGUAGE sql AS"
    " 'UPDATE authors SET name = ''x'' WHERE id = which RETURNING id'",
    "CREATE FUNCTION name_of(which int) RETURNS text STABLE LANGUAGE sql AS"
    " 'SELECT name FROM authors WHERE id = which'",
    "CREATE PROCEDURE rename_by_call(which int) LANGUAGE sql AS"
    " 'UPDATE authors SET name = ''x'' WHERE id = which'",
)
VIEWS = (
    "CREATE VIEW author_names AS SELECT id, name FROM authors",
    "CREATE MATERIALIZED VIEW author_count AS SELECT count(*) FROM authors",
)
VIEW, LATER_VIEW = (table(name, column("name")) for name in ("author_names", "names_later"))
UPDATE = text("UPDATE authors SET name = 'secret' WHERE id = 1")
WRITES = [
    UPDATE,
    text("/* SELECT */ WITH x AS (UPDATE authors SET name = 'x' RETURNING id) SELECT * FROM x"),
    text("SELECT rename(1)"),
    text("CALL rename_by_call(1)"),
    text("MERGE INTO authors USING (VALUES (1)) v ON id = 1 WHEN MATCHED THEN DELETE"),
    text("UPDATE authors SET name = 'x' RETURNING id").columns(id=Integer),
    select(Author).from_statement(text("UPDATE authors SET name = 'x' RETURNING *")),
    select(func.rename(1)),
    insert(Book).values(id=uuid.UUID(int=1), author_id=func.rename(1)),
    text("REFRESH MATERIALIZED VIEW author_count"),
    update(VIEW).values(name="x"),
]
READS = [
    text("SELECT name AS update FROM authors WHERE name <> 'delete' FOR UPDATE"),
    text("SELECT name_of(1), now(), nextval('authors_id_seq')"),
    text("SET LOCAL lock_timeout = '1s'"),
    text("LISTEN here"),
    text("NOTIFY here, 'update'"),
    text("SELECT pg_notify('here', 'x'), pg_advisory_xact_lock(1)"),
    text("SELECT count(call) FROM (SELECT 1 AS call) calls"),
    text("EXPLAIN SELECT 1"),
    select(func.name_of(1), func.pg_advisory_xact_lock(2)),
]


@pytest.fixture
async def world(empty_database_url: str, cache_url: str) -> AsyncIterator[World]:
    async with fenced(Base, [*OF_AUTHORS, *TOLD], empty_database_url, cache_url) as world:
        await create_functions(world.url)
        async with world.sessions.begin() as session:
            session.add_all([Author(id=1, name="Ann"), Author(id=2)])
        yield world


async def create_functions(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for statement in (*FUNCTIONS, *VIEWS):
            await connection.execute(text(statement))
    await engine.dispose()


async def name_of(world: World) -> str | None:
    async with world.engine.connect() as connection:
        name: str | None = await connection.scalar(select(Author.name).where(Author.id == 1))
        return name


@pytest.mark.parametrize("statement", WRITES)
@pytest.mark.parametrize("over", ["session", "engine"])
async def test_a_write_that_nobody_understands_is_refused_before_commit(
    world: World, statement: Any, over: str
) -> None:
    opened = world.sessions.begin() if over == "session" else world.engine.begin()
    async with world.invalidated():
        with pytest.raises(UntoldWrite, match=r"invalidate\(session, \"(authors|books)\""):
            async with opened as executor:
                await executor.execute(statement)
        assert await name_of(world) == "Ann"
    async with world.sessions.begin() as session:  # nothing of it is left in the connection
        (await session.get_one(Author, 1)).name = "Anna"


@pytest.mark.parametrize(
    ("created", "statement"),
    [
        (FUNCTIONS[0].replace("rename", "rename_later"), select(func.rename_later(1))),
        (VIEWS[0].replace("author_names", "names_later"), update(LATER_VIEW).values(name="x")),
    ],
    ids=["function", "view"],
)
async def test_what_is_created_after_the_start_is_found_out(
    world: World, created: str, statement: Any
) -> None:
    async with world.sessions.begin() as session:
        await session.execute(select(func.name_of(1)))  # the catalogue is asked
    async with create_async_engine(world.url).begin() as connection:
        await connection.execute(text(created))
    with pytest.raises(UntoldWrite):
        async with world.sessions.begin() as session:
            await session.execute(statement)


async def test_a_refusal_shows_the_statement_without_its_values(world: World) -> None:
    with pytest.raises(UntoldWrite, match="UPDATE authors SET name = …") as refused:
        async with world.sessions.begin() as session:
            await session.execute(UPDATE)
    assert "secret" not in str(refused.value)
    assert 'invalidate(session, "authors")' in str(refused.value)


@pytest.mark.parametrize("statement", WRITES)
async def test_a_write_that_says_what_it_changes_is_let_through(
    world: World, statement: Any
) -> None:
    async with world.sessions.begin() as session:
        invalidate(session, "authors")
        await session.execute(statement)


@pytest.mark.parametrize("first", [True, False])
async def test_what_is_said_before_or_after_the_statement_is_ended(
    world: World, first: bool
) -> None:
    async with world.invalidated(*OF_AUTHORS), world.sessions.begin() as session:
        if first:
            invalidate(session, "authors")
        await session.execute(UPDATE)
        if not first:
            invalidate(session, "authors")
    assert await name_of(world) == "secret"


async def test_a_transaction_says_it_again_after_its_commit(world: World) -> None:
    async with world.sessions() as session:
        invalidate(session, "authors")
        await session.execute(UPDATE)
        await session.commit()
        await session.execute(UPDATE)
        with pytest.raises(UntoldWrite):
            await session.commit()


@pytest.mark.parametrize("statement", READS)
async def test_text_that_changes_nothing_needs_no_word(world: World, statement: Any) -> None:
    async with world.invalidated(), world.sessions.begin() as session:
        await session.execute(statement)


async def test_a_read_only_transaction_changes_nothing(world: World) -> None:
    read_only = world.engine.execution_options(postgresql_readonly=True)
    async with world.invalidated(), read_only.begin() as connection:
        await connection.execute(text("SELECT 1 WHERE false AND rename(1) = 1"))


async def test_in_production_everything_is_ended_with_a_counter_and_a_log_line_once(
    world: World, cache_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    async with (
        open_cache(cache_url, name="test", strict=False, recorder=counters) as cache,
        observed(Base, world.url, cache) as engine,
    ):
        for _ in range(2):
            before = (await cache.backend.begin("k", [EVERYTHING], "t")).generations
            with caplog.at_level(logging.WARNING, "app.cache"):
                async with AsyncSession(engine) as session, session.begin():
                    await session.execute(UPDATE)
            assert before != (await cache.backend.read("k", [EVERYTHING])).generations
    assert await name_of(world) == "secret"
    assert counters.totals["refused", "textual-sql"] == 2
    lines = [line for line in caplog.messages if "invalidates everything" in line]
    assert len(lines) == 1
    assert 'invalidate(session, "authors")' in lines[0]


async def test_what_one_session_says_holds_for_the_whole_transaction(world: World) -> None:
    async with world.invalidated(*OF_AUTHORS), world.engine.begin() as connection:
        async with AsyncSession(connection) as session:
            invalidate(session, "authors")
            await session.execute(select(Author))
        await connection.execute(UPDATE)


async def test_a_connection_says_it_too(world: World) -> None:
    async with world.invalidated(*OF_AUTHORS), world.engine.begin() as connection:
        await connection.execute(UPDATE)
        invalidate(connection, "authors")


ONE_ROW = ("author:1", "author:?", "table:authors", "everybody", "table:books")


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("authors", OF_AUTHORS),
        ("table:authors", OF_AUTHORS),
        ("everybody", OF_AUTHORS),
        ("author:1", ONE_ROW),
        ("author:*", ("author:*", *ONE_ROW[2:])),
        ("loans", ("table:loans",)),
        ("rates", ("rates",)),
        ("rate:eur", ("rate:eur",)),
        ("GET /x", ("GET /x",)),
    ],
)
async def test_a_name_ends_what_depends_on_it(
    world: World, name: str, tags: tuple[str, ...]
) -> None:
    async with world.invalidated(*tags), world.sessions.begin() as session:
        invalidate(session, name)
    async with world.invalidated(*tags), world.sessions.begin() as session:
        await session.execute(UPDATE)
        invalidate(session, name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("author:{id}", 'Put the value in: f"author:{id}"'),
        ("rate:{currency}", "this is a template"),
        ("autors", "did you mean 'authors'"),
        ("magazine:7", "no table has this name, no model declares this tag"),
        ("", "no table has this name"),
    ],
)
async def test_a_name_that_nobody_declares_is_an_error(
    world: World, name: str, message: str
) -> None:
    async with world.invalidated(), world.sessions() as session:
        with pytest.raises(PolicyError, match=re.escape(message)):
            invalidate(session, name)


async def test_a_value_may_look_like_a_template(world: World) -> None:
    async with world.invalidated(*ONE_ROW[1:]), world.sessions.begin() as session:
        invalidate(session, "author:{x}")


async def test_a_session_that_no_cache_is_told_of_is_an_error(world: World) -> None:
    engine = create_async_engine(world.engine.url)
    async with AsyncSession(engine) as session:
        with pytest.raises(PolicyError, match="no cache is told of the writes of this engine"):
            invalidate(session, "authors")
    await engine.dispose()


async def test_in_production_an_unknown_name_ends_everything(
    world: World, cache_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_cache(cache_url, name="test", strict=False) as cache,
        observed(Base, world.url, cache) as engine,
    ):
        before = (await cache.backend.begin("k", [EVERYTHING], "t")).generations
        async with AsyncSession(engine) as session, session.begin():
            invalidate(session, "autors")
        assert before != (await cache.backend.read("k", [EVERYTHING])).generations
    assert "'autors'" in caplog.text
