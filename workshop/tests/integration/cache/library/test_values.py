"""Keys and tags are made of values: however a client spells one, it meets what a write renders."""

import itertools
import uuid
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.cache.library.client import Library
from tests.integration.cache.library.paths import paths_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

_serial = itertools.count(1)


@pytest.fixture
def item() -> dict[str, Any]:
    """With values that no other item has, where that is possible."""
    number = next(_serial)
    return {
        "label": uuid.uuid4().hex,
        "code": str(uuid.uuid4()),
        "slug": uuid.uuid4().hex.upper(),
        "price": f"{number}.5",
        "kind": "paper",
        "active": True,
        "made": f"2026-01-01T12:00:00.{number:06}Z",
        "day": f"{2000 + number}-03-01",
    }


def spelled(item: dict[str, Any], path: str) -> str:
    """The path with the item's values in it, in the spelling that the field's suffix names."""
    code, made = item["code"], item["made"].removesuffix("Z")
    return "/items" + path.format(
        **item,
        number=item["price"].removesuffix(".5"),
        CODE=code.upper(),
        code_hex=code.replace("-", ""),
        code_urn=f"urn:uuid:{code}",
        code_braces=quote("{" + code + "}"),
        slug_lower=item["slug"].lower(),
        made_utc=quote(f"{made}+00:00"),
        made_east=quote(f"{made.replace('T12', 'T14')}+02:00"),
        made_space=quote(f"{made.replace('T', ' ')}Z"),
    )


async def create(library: Library, item: dict[str, Any]) -> None:
    made = await library.post("a", "/items", item)
    assert made.status_code == 201, made.text
    item["item_id"] = made.json()


SPELLINGS = {
    "/number/": "{item_id} 0{item_id} +{item_id} %20{item_id} {item_id}%20 {item_id}.0",
    "/convertor/": "{item_id} 00{item_id}",
    "/query?item-id=": "{item_id} 0{item_id} %2B{item_id} 7&item-id={item_id}",
    "/code/": "{code} {CODE} {code_hex} {code_urn} {code_braces}",
    "/slug/": "{slug} {slug_lower}",
    "/price/": "{price} {price}0 0{price}00 {number}50e-2",
    "/kind/": "{kind}",
    "/use/": "true True 1 yes",
    "/time/": "{made} {made_utc} {made_east} {made_space}",
    "/day/": "{day} {day}T00:00:00",
    "/function/kind/": "{kind}",
}


@pytest.mark.parametrize("route", SPELLINGS)
async def test_a_write_is_seen_in_each_spelling_of_a_value(
    library: Library, item: dict[str, Any], route: str
) -> None:
    await create(library, item)
    before = await library.warm(*(spelled(item, route + s) for s in SPELLINGS[route].split()))
    for answer in before.values():
        assert answer.status == 200 and item["label"] in answer.body
    await library.change("a", f"/items/{item['item_id']}/label")
    await library.check(before)


ONE_VALUE = [
    ("/number/{item_id}", "/number/0{item_id}"),
    ("/query?item-id={item_id}", "/query?item-id=+{item_id}"),
    ("/code/{code}", "/code/{CODE}"),
    ("/code/{code}", "/code/{code_hex}"),
    ("/use/true", "/use/1"),
    ("/day/{day}", "/day/{day}T00:00:00"),
    ("/slug/{slug}", "/slug/{slug_lower}"),
    ("/limited", "/limited?limit=20"),
    ("/limited", "/limited?limit=020"),
]
APART = [
    ("/given", "/given?limit=20"),  # exclude_unset
    ("/either", "/either?limit=20"),  # int | str
    ("/written/{price}", "/written/{price}0"),  # a Decimal keeps its zeros
]


@pytest.mark.parametrize(("one", "other"), ONE_VALUE)
async def test_one_value_is_one_entry(
    library: Library, item: dict[str, Any], one: str, other: str
) -> None:
    await create(library, item)
    before = await library.warm(spelled(item, one))
    answer = await library.read("b", spelled(item, other))
    assert [answer] == [*before.values()]
    assert answer.is_hit


@pytest.mark.parametrize(("one", "other"), APART)
async def test_what_the_endpoint_can_tell_apart_shares_no_entry(
    library: Library, item: dict[str, Any], one: str, other: str
) -> None:
    paths = [spelled({**item, "item_id": 1}, path) for path in (one, other)]
    first, second = (await library.warm(*paths)).values()
    assert first != second
    assert [first, second] == await library.read_all("plain", paths)


REFUSED = [
    "/number/one", "/number/1.5", "/query", "/code/1234", "/price/much", "/kind/vinyl",
    "/use/perhaps", "/time/yesterday", "/limited?kind=vinyl",
]  # fmt: skip


async def test_what_does_not_validate_is_the_routes_to_refuse(library: Library) -> None:
    paths = [f"/items{path}" for path in REFUSED]
    truth = await library.read_all("plain", paths)
    for process in ("a", "b", "a"):
        answers = await library.read_all(process, paths)
        assert answers == truth
        assert all(answer.status == 422 and not answer.is_hit for answer in answers)


async def test_an_optional_parameter_that_is_absent_depends_on_all_of_its_family(
    library: Library,
) -> None:
    shelf = await library.shelf()
    before = await library.warm(*paths_of(shelf, ["unfiltered"]))
    await library.change("a", "/in-session/add", shelf)
    await library.check(before)
