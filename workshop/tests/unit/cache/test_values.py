"""Keys and tags are made of values: whoever spells a value otherwise means the same entry."""

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import Depends, FastAPI, Path, Query
from fastapi.security import OAuth2PasswordBearer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl

from app.cache import Cache, InMemoryBackend, PolicyError, cache
from app.cache.context import active_cache
from app.cache.events import Counters
from app.cache.http.routes import CachedRoute
from app.cache.policy import Tag
from app.cache.values import text_of
from tests.unit.cache.serving import entry_count, serving, status


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    BIG = 3


@pytest.fixture
def memory() -> Cache:
    return Cache(InMemoryBackend(), name="test")


def route_of(endpoint: Any, path: str, *tags: str, **route: Any) -> CachedRoute:
    app = FastAPI()
    app.get(path, **route)(cache(60, tags=list(tags))(endpoint))
    [(_, found)] = Cache(InMemoryBackend()).bind(app)._routes[-1:]
    assert found is not None
    return found


def address(route: CachedRoute, path: str, query: str = "") -> tuple[str, tuple[str, ...]]:
    return route.address(path, query.encode())


SPELLINGS: list[tuple[str, Any, list[str], str]] = [
    ("/i/{item}", int, ["1", "01", "+1", " 1", "1.0"], "1"),
    ("/i/{item:int}", int, ["1", "01", "001"], "1"),
    ("/i/{item:float}", float, ["1", "1.0", "01.00"], "1"),
    ("/i/{item}", float, ["1.5", "1.50", "15e-1"], "1.5"),
    ("/i/{item}", bool, ["true", "1", "on", "True"], "true"),
    ("/i/{item}", Colour, ["red"], "red"),
    (
        "/i/{item}",
        uuid.UUID,
        [
            "c56a4180-65aa-42ec-a945-5fd21dec0538",
            "C56A4180-65AA-42EC-A945-5FD21DEC0538",
            "c56a418065aa42eca9455fd21dec0538",
            "urn:uuid:c56a4180-65aa-42ec-a945-5fd21dec0538",
        ],
        "c56a4180-65aa-42ec-a945-5fd21dec0538",
    ),
    ("/i/{item}", date, ["2026-01-02", "2026-01-02T00:00:00"], "2026-01-02"),
    (
        "/i/{item}",
        datetime,
        ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05.000Z"],
        "2026-01-02T03:04:05",
    ),
]


@pytest.mark.parametrize(("path", "kind", "spellings", "text"), SPELLINGS)
def test_every_spelling_of_a_value_in_the_path_is_one_entry_and_one_tag(
    path: str, kind: Any, spellings: list[str], text: str
) -> None:
    async def read(item: kind) -> None: ...

    route = route_of(read, path, "item:{item}")
    found = {address(route, f"/i/{spelling}") for spelling in spellings}
    assert len(found) == 1
    assert found.pop()[1][:2] == (f"item:{text}", "item:*")


@pytest.mark.parametrize(("kind", "spellings", "text"), [each[1:] for each in SPELLINGS])
def test_every_spelling_of_a_value_in_the_query_is_one_entry_and_one_tag(
    kind: Any, spellings: list[str], text: str
) -> None:
    async def read(item: kind) -> None: ...

    route = route_of(read, "/i", "item:{item}")
    query = httpx.QueryParams
    found = {address(route, "/i", str(query(item=spelling))) for spelling in spellings}
    assert len(found) == 1
    assert found.pop()[1][0] == f"item:{text}"


@pytest.mark.parametrize(("one", "other"), [("1.5", "1.50"), ("100", "1E+2"), ("0", "-0.00")])
def test_decimals_that_are_equal_share_a_tag_and_the_endpoint_may_tell_them_apart(
    one: str, other: str
) -> None:
    async def read(item: Decimal) -> None: ...

    route = route_of(read, "/i/{item}", "item:{item}")
    (key, tags), (other_key, other_tags) = (address(route, f"/i/{each}") for each in (one, other))
    assert tags == other_tags
    assert key != other_key


def test_moments_that_are_equal_share_a_tag_wherever_they_are_written() -> None:
    async def read(item: datetime) -> None: ...

    route = route_of(read, "/i/{item}", "item:{item}")
    spellings = ("2026-01-02T03:04:05Z", "2026-01-02T05:04:05+02:00")
    assert len({address(route, f"/i/{each}")[1] for each in spellings}) == 1


def test_a_value_is_what_the_validator_of_the_parameter_makes_of_it() -> None:
    async def read(item: Annotated[str, BeforeValidator(str.upper), Path()]) -> None: ...

    route = route_of(read, "/i/{item}", "item:{item}")
    assert address(route, "/i/de") == address(route, "/i/DE")
    assert address(route, "/i/de")[1][0] == "item:DE"


def test_types_of_a_union_are_told_apart() -> None:
    async def read(item: int | Literal["20"] = 20) -> None: ...

    route = route_of(read, "/i")
    assert address(route, "/i") != address(route, "/i", "item=20")
    assert address(route, "/i") == address(route, "/i", "item=020")


class Page(BaseModel):
    model_config = ConfigDict(validate_by_name=True)

    limit: int = 20
    author: Annotated[int | None, Field(alias="by")] = None


PAGE = Page()


def test_a_query_model_tells_a_default_from_its_absence() -> None:
    async def read(page: Annotated[Page, Query()]) -> list[str]:
        return sorted(page.model_fields_set)

    route = route_of(read, "/i", "author:{by}", "author_of:{author}")
    assert address(route, "/i")[0] != address(route, "/i", "limit=20")[0]
    assert address(route, "/i", "limit=20") == address(route, "/i", "other=1&limit=020")
    assert address(route, "/i", "by=07") == address(route, "/i", "author=7")
    assert address(route, "/i", "by=07")[1][::2] == ("author:7", "author_of:7", "GET /i")


def test_a_default_that_is_made_anew_each_time_mints_no_keys() -> None:
    count = iter(range(100))

    class Since(BaseModel):
        since: float = Field(default_factory=lambda: next(count))

    async def read(
        since: Annotated[Since, Query()],
        until: Annotated[float, Query(default_factory=lambda: next(count))],
    ) -> None: ...

    route = route_of(read, "/i", "since:{since}", "until:{until}")
    assert address(route, "/i", "a=1") == address(route, "/i", "a=2")
    assert address(route, "/i")[1][:4] == ("since:?", "since:*", "until:?", "until:*")


def test_a_value_without_an_identity_is_what_was_written() -> None:
    async def read(item: HttpUrl | None = None) -> None: ...

    route = route_of(read, "/i", "item:{item}")
    one, other = (address(route, "/i", f"item=http://{host}/") for host in ("a", "b"))
    assert one[0] != other[0]
    assert one == address(route, "/i", "x=1&item=http://a/")
    assert one[1][0] == "item:http://a/"


def test_undeclared_parameters_mint_no_keys_and_repeated_ones_keep_their_order() -> None:
    async def read(tag: Annotated[list[int], Query()]) -> None: ...

    route = route_of(read, "/i", "tag:{tag}")
    one = address(route, "/i", "tag=1&tag=2")
    assert one == address(route, "/i", "tag=01&utm=5&tag=2")
    assert one[0] != address(route, "/i", "tag=2&tag=1")[0]
    assert one[1][:2] == ("tag:?", "tag:*")


async def as_text(item: str = "1") -> str:
    return item


def test_a_parameter_declared_twice_counts_in_each_form_and_a_tag_of_it_depends_on_all() -> None:
    async def read(item: int = 1) -> None: ...

    route = route_of(read, "/i", "item:{item}", dependencies=[Depends(as_text)])
    one, other = address(route, "/i", "item=2"), address(route, "/i", "item=02")
    assert one[0] != other[0]
    assert one[1][:2] == ("item:2", "item:*")
    assert other[1][:2] == ("item:?", "item:*")


def test_a_placeholder_of_the_path_that_nobody_declares_is_part_of_the_key() -> None:
    async def read() -> None: ...

    route = route_of(read, "/t/{tenant}", "tenant:{tenant}")
    assert address(route, "/t/a")[0] != address(route, "/t/b")[0]
    assert address(route, "/t/a")[1][0] == "tenant:a"


def test_an_optional_parameter_that_is_left_out_depends_on_all() -> None:
    async def read(author: int | None = None) -> None: ...

    route = route_of(read, "/books", "author:{author}")
    assert address(route, "/books")[1][:2] == ("author:?", "author:*")


def test_the_write_of_a_row_ends_its_own_tag_and_that_of_whoever_asked_for_all() -> None:
    tag = Tag.parse("author:{author_id}")
    assert tag.changed({"author_id": 7}) == ("author:7", "author:?")
    assert set(tag.changed({"author_id": None})) == {"author:?"}
    assert Tag.parse("books").changed({}) == ("books",)


def broken(value: str) -> str:
    if value == "bad":
        raise RuntimeError("a validator that fails in a way of its own")
    return value


async def test_what_is_not_valid_is_answered_by_the_route_and_remembered_by_nobody(
    memory: Cache,
) -> None:
    async def read(item: Annotated[int, BeforeValidator(broken)]) -> int:
        return item

    app = FastAPI()
    app.get("/i/{item}")(cache(60, tags=["item:{item}"])(read))
    async with serving(app, memory) as client:
        size = CachedRoute._remembered.cache_info().currsize
        for text, code in (("x", 422), ("1.5", 422), ("%00", 422), ("bad", 500)):
            answer = await client.get(f"/i/{text}")
            assert answer.status_code == code
            if code == 422:
                assert answer.headers["cache-status"] == "test; fwd=bypass; detail=invalid"
        assert CachedRoute._remembered.cache_info().currsize == size
        assert isinstance(memory.recorder, Counters)
        assert memory.recorder.totals["bypass", "invalid"] == 4
    assert await entry_count(memory) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, "red"),
        (Size.BIG, "3"),
        (True, "true"),
        (1.5, "1.5"),
        (Decimal("1.500"), "1.5"),
        (100, "100"),
        (1e2, "100"),
        (Decimal("1E+2"), "100"),
        (-0.0, "0"),
        (1e-7, "0.0000001"),
        (Decimal("10E+999999"), "1e1000000"),
        (Decimal("1E+1000000"), "1e1000000"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00"),
        (datetime(2026, 1, 2, 1, tzinfo=UTC).replace(tzinfo=None), "2026-01-02T01:00:00"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=2))), None),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(days=1, seconds=2), "1 day, 0:00:02"),
        (b"\x00\xff", "00ff"),
        ("Ä", "Ä"),
        (None, None),
        (["a"], None),
        (Page(), None),
    ],
)
def test_a_value_has_one_text(value: object, text: str | None) -> None:
    assert text_of(value) == text or (text is None and isinstance(value, datetime))


@given(st.integers(-(10**30), 10**30), st.integers(-30, 30))
def test_equal_numbers_have_one_text_and_different_ones_two(digits: int, exponent: int) -> None:
    number = Decimal(digits).scaleb(exponent)
    written = text_of(number)
    assert written == text_of(Decimal(f"{number:f}00" if "." in f"{number:f}" else f"{number:f}"))
    assert written is not None
    assert Decimal(written) == number
    if number == int(number):
        assert written == text_of(int(number))


async def test_arguments_of_a_function_are_values_too(memory: Cache) -> None:
    calls = 0

    @cache(60, tags=["colour:{colour}", "author:{author}", "page:{page.limit}"])
    async def count(colour: Colour, author: int | None = None, page: Page = PAGE) -> int:
        nonlocal calls
        calls += 1
        return calls

    token = active_cache.set(memory)
    try:
        assert await count(Colour.RED) == await count(Colour.RED) == 1
        for tag in ("colour:red", "author:?", "page:20"):
            before = await count(Colour.RED)
            await memory.invalidate(tag)
            assert await count(Colour.RED) == before + 1
    finally:
        active_cache.reset(token)


class Account(BaseModel):
    id: uuid.UUID
    team: int | None = None


bearer = OAuth2PasswordBearer("/token")


async def user(token: Annotated[str, Depends(bearer)]) -> int:
    return int(token)


async def account(token: Annotated[str, Depends(bearer)]) -> Account:
    return Account(id=uuid.UUID(int=int(token)))


async def favourites(user: Annotated[int, Depends(user)]) -> str:
    return str(user)


async def team_favourites(owner: Annotated[Account, Depends(account)]) -> str:
    return str(owner.id)


@pytest.mark.parametrize(
    ("endpoint", "guard", "tag", "of_first"),
    [
        (favourites, user, "favourites:{user}", "favourites:1"),
        (team_favourites, account, "favourites:{owner.id}", f"favourites:{uuid.UUID(int=1)}"),
        (team_favourites, account, "team:{owner.team}:{owner.id}", None),
    ],
)
async def test_the_write_of_one_user_drops_the_list_of_that_user(
    endpoint: Any, guard: Any, tag: str, of_first: str | None, memory: Cache
) -> None:
    app = FastAPI()
    app.get("/favourites")(cache(60, guard=guard, per_user=True, tags=[tag])(endpoint))
    async with serving(app, memory) as client:

        async def read(name: str) -> str:
            return status(
                await client.get("/favourites", headers={"authorization": f"Bearer {name}"})
            )

        assert [await read("1"), await read("2")] == ["fwd=uri-miss"] * 2
        assert [await read("1"), await read("01"), await read("2")] == ["hit"] * 3
        await memory.invalidate(of_first or "team:?:?")
        assert await read("1") == "fwd=uri-miss"
        assert await read("2") == ("hit" if of_first else "fwd=uri-miss")


@pytest.mark.parametrize(
    ("endpoint", "options", "tag", "why"),
    [
        (favourites, {"guard": user}, "favourites:{user}", "no path or query parameter"),
        (team_favourites, {"guard": account, "per_user": True}, "f:{owner}", "such as owner.id"),
        (team_favourites, {"guard": account, "per_user": True}, "f:{owner.key}", "owner.id"),
    ],
)
def test_a_tag_of_a_user_that_cannot_be_is_refused_by_name(
    endpoint: Any, options: dict[str, Any], tag: str, why: str
) -> None:
    app = FastAPI()
    app.get("/favourites")(cache(60, tags=[tag], **options)(endpoint))
    with pytest.raises(PolicyError, match=rf"GET /favourites .*{why}"):
        Cache(InMemoryBackend()).bind(app)


def test_now_is_a_moment_in_utc() -> None:
    now = datetime.now(UTC)
    assert text_of(now.astimezone(timezone(timedelta(hours=5, minutes=30)))) == text_of(now)
