"""Nothing silent: what was learned of a route, and why an answer was not stored, is in the log, in
`/metrics` and in `Cache-Status`. Over PostgreSQL and Redis."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Column, Integer, MetaData, Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app import metrics
from app.cache import Cache, cache, open_cache
from app.cache.sql.tables import Tables
from tests.integration.cache.fenced import observed
from tests.unit.cache.serving import serving


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = ("authors", "author:{id}")

    id: Mapped[int] = mapped_column(primary_key=True)


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int]


names = Table("names", MetaData(), Column("id", Integer))  # a view, which no model knows
MADE = (
    "INSERT INTO authors VALUES (1)",
    "INSERT INTO books VALUES (1, 1)",
    "CREATE VIEW names AS SELECT id FROM authors",
    "CREATE FUNCTION count_books() RETURNS bigint LANGUAGE sql STABLE "
    "AS 'SELECT count(*) FROM books'",
)


@pytest.fixture
async def engine(empty_database_url: str, opened: Cache) -> AsyncIterator[AsyncEngine]:
    migrations = create_async_engine(empty_database_url)
    async with migrations.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for statement in MADE:
            await connection.execute(text(statement))
    await migrations.dispose()
    async with observed(Base, empty_database_url, opened) as engine:
        engines.append(engine)
        yield engine


engines: list[AsyncEngine] = []


@cache(60)
async def first_name() -> int | None:
    async with engines[-1].connect() as connection:
        found: int | None = await connection.scalar(select(names.c.id))
        return found


async def through() -> int | None:
    return await first_name()


@pytest.fixture
async def opened(cache_url: str) -> AsyncIterator[Cache]:
    recorder = metrics.PrometheusRecorder()
    tables = Tables(Base.registry)
    async with open_cache(cache_url, name="test", recorder=recorder, coverage=tables) as opened:
        yield opened


@pytest.fixture
async def client(engine: AsyncEngine, opened: Cache) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(metrics.router)

    def route(path: str, statement: Any, **policy: Any) -> None:
        async def ask() -> int | None:
            async with engine.connect() as connection:
                found: int | None = await connection.scalar(statement)
                return found

        app.get(path)(cache(60, **policy)(ask))

    of_books = select(func.count(Book.id)).join(Author, Author.id == Book.author_id)
    route("/authors", select(func.count(Author.id)), tags=["authors"])
    route("/books", of_books, tags=["authors"])
    route("/text", text("SELECT count(*) FROM books"))
    route("/told", text("SELECT count(*) FROM books"), reads=["books"])
    route("/view", select(names.c.id))
    route("/function", select(func.count_books()))
    app.get("/through")(cache(60)(through))
    async with serving(app, opened) as client:
        yield client


async def said(client: httpx.AsyncClient, path: str, times: int = 3) -> list[str]:
    """Cache-Status of as many answers, without the name of the cache and the seconds."""
    answers = [await client.get(path) for _ in range(times)]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "1")}
    whole = (answer.headers["cache-status"].removeprefix("test; ") for answer in answers)
    return [text.partition("; ttl")[0] for text in whole]


async def counted(client: httpx.AsyncClient, event: str, label: str) -> float:
    name = f'cache_events_total{{event="{event}",label="{label}"}} '
    page = (await client.get("/metrics")).text
    return sum(float(line.removeprefix(name)) for line in page.splitlines() if name in line)


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/authors", ["fwd=uri-miss; stored", "hit", "hit"], None),
        ("/told", ["fwd=uri-miss; stored", "hit", "hit"], None),
        ("/books", ["fwd=uri-miss; detail=learning", "fwd=uri-miss; stored", "hit"], "learning"),
        ("/text", ["fwd=uri-miss; detail=textual-sql"] * 3, "textual-sql"),
        ("/view", ["fwd=uri-miss; detail=view"] * 3, "view"),
        ("/function", ["fwd=uri-miss; detail=function"] * 3, "function"),
        ("/through", ["fwd=uri-miss; detail=function-not-stored"] * 3, "function-not-stored"),
    ],
)
async def test_why_an_answer_is_not_stored_is_in_its_headers_and_counted(
    path: str, status: list[str], why: str | None, client: httpx.AsyncClient
) -> None:
    before = await counted(client, "rejected", why or "learning")
    assert await said(client, path) == status
    after = await counted(client, "rejected", why or "learning")
    assert (after > before) is (why is not None)


async def test_while_a_writer_holds_a_tag_that_is_said_too(
    client: httpx.AsyncClient, opened: Cache
) -> None:
    hold = await opened.writes.hold(["authors"])
    assert await said(client, "/authors", 1) == ["fwd=uri-miss; detail=not-fenced"]
    await opened.writes.release(hold, changed=True)
    assert await said(client, "/authors", 2) == ["fwd=uri-miss; stored", "hit"]


async def test_what_a_route_depends_on_is_said_once(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.cache")
    for path in ("/authors", "/books", "/told", "/text", "/view", "/function"):
        await said(client, path)
    assert [line for line in caplog.messages if line.startswith("GET")] == [
        "GET /authors depends on authors",
        "GET /books depends on authors, books (by table)",
        "GET /told depends on books (by table)",
        "GET /text is not stored: what its textual SQL read is not known. Name the tables, "
        "reads=[…]; or say reads=[], where expiry is enough",
        "GET /view is not stored: what its views read is not known. Name the tables, reads=[…]; "
        "or say reads=[], where expiry is enough",
        "GET /function is not stored: what its functions of PostgreSQL read is not known. Name "
        "the tables, reads=[…]; or say reads=[], where expiry is enough",
    ]
