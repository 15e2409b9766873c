"""What a policy names and no model has is refused, by name and with the line to write."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.cache import Cache, InMemoryBackend, PolicyError, cache
from app.cache.context import active_cache
from app.cache.events import Counters
from app.cache.sql.tables import Tables


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    __cache_tags__ = ("authors", "author:{id}")

    id: Mapped[int] = mapped_column(primary_key=True)


class Loan(Base):
    __tablename__ = "loans"
    __table_args__ = {"schema": "desk"}  # noqa: RUF012
    __cache_tags__ = ("loan:{author_id}:{day}",)

    author_id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True)


Table(
    "author_genres",
    Base.metadata,
    Column("author_id", ForeignKey("authors.id"), primary_key=True),
    Column("genre", primary_key=True),
    info={"cache_tags": ("genre:{genre}",)},
)
TABLES = Tables(Base.registry)


class Genre(Enum):
    POETRY = "poetry"


def bind(path: str, endpoint: Any, coverage: Tables | None = TABLES, **policy: Any) -> None:
    app = FastAPI()
    app.get(path)(cache(60, **policy)(endpoint))
    Cache(InMemoryBackend(), coverage=coverage).bind(app)


async def anything(name: int = 1, day: int = 1, genre: Genre = Genre.POETRY) -> None: ...


@pytest.mark.parametrize(
    ("policy", "hint"),
    [
        ({"tags": ["magazines"]}, r"'magazines'.* move it to manual=\['magazines'\]"),
        ({"tags": ["autors"]}, r"did you mean 'authors'\?"),
        ({"tags": ["author"]}, r"did you mean 'authors'\?"),
        ({"tags": ["autor:{name}"]}, r"'autor:\{name\}'.*did you mean 'author:\{id\}'\?"),
        ({"tags": ["author:{name}:{day}"]}, r"did you mean 'author:\{id\}'\?"),
        ({"tags": ["loan:{name}"]}, r"did you mean 'loan:\{author_id\}:\{day\}'\?"),
        ({"tags": ["table:author"]}, r"did you mean 'table:authors'\?"),
        ({"reads": ["author"]}, r"'author', which is no table .*did you mean 'authors'\?"),
        ({"reads": ["loans"]}, r"did you mean 'desk\.loans'\?"),
        ({"reads": ["legacy"]}, r"write reads=\[\], manual=\['legacy'\]"),
    ],
)
def test_what_no_model_has_is_refused_at_startup_with_the_line_to_write(
    policy: dict[str, Any], hint: str
) -> None:
    with pytest.raises(PolicyError, match=rf"GET /planets \(.*anything\): .*{hint}"):
        bind("/planets", anything, **policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"tags": ["authors", "author:{name}", "genre:{genre}", "loan:{name}:{day}"]},
        {"tags": ["table:authors", "table:desk.loans"]},
        {"tags": ["authors"], "manual": ["rates", "rate:{name}"]},
        {"reads": ["authors", "desk.loans", "author_genres"]},
        {"reads": []},
        {},
    ],
)
def test_what_models_have_and_what_is_manual_is_taken(policy: dict[str, Any]) -> None:
    bind("/planets", anything, **policy)


def test_where_no_models_are_known_none_is_missed() -> None:
    bind("/planets", anything, coverage=None, tags=["magazines"], reads=["legacy"])


def test_a_tag_is_a_list_of_texts_whoever_ends_it() -> None:
    with pytest.raises(PolicyError, match=r"manual is the text 'rates': write manual=\["):
        cache(60, manual="rates")(anything)


@pytest.fixture
def strict(request: pytest.FixtureRequest) -> Iterator[Cache]:
    opened = Cache(InMemoryBackend(), coverage=TABLES, strict=request.param)
    token = active_cache.set(opened)
    yield opened
    active_cache.reset(token)


@pytest.mark.parametrize("strict", [True], indirect=True)
@pytest.mark.parametrize("policy", [{"tags": ["autors"]}, {"reads": ["autors"]}])
async def test_a_function_is_refused_at_its_first_call(
    policy: dict[str, Any], strict: Cache
) -> None:
    @cache(60, **policy)
    async def rate(base: str) -> int:
        return 1

    with pytest.raises(PolicyError, match=r"@cache on .*rate: .*did you mean 'authors'\?"):
        await rate("EUR")


@pytest.mark.parametrize("strict", [False], indirect=True)
async def test_in_production_such_a_function_is_not_cached_and_counted(strict: Cache) -> None:
    calls = 0

    @cache(60, tags=["autors"])
    async def rate(base: str) -> int:
        nonlocal calls
        calls += 1
        return calls

    assert [await rate("EUR"), await rate("EUR")] == [1, 2]
    assert isinstance(strict.recorder, Counters)
    assert strict.recorder.totals["refused", "policy"] == 2


@pytest.mark.parametrize("strict", [True], indirect=True)
async def test_a_manual_tag_is_ended_by_whoever_names_it(strict: Cache) -> None:
    calls = 0

    @cache(60, manual=["rates", "rate:{base}"])
    async def rate(base: str) -> int:
        nonlocal calls
        calls += 1
        return calls

    for tag in ("rates", "rate:EUR"):
        before = await rate("EUR")
        assert await rate("EUR") == before
        await strict.invalidate(tag)
        assert await rate("EUR") == before + 1
