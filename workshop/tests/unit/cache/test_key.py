import re
from typing import Annotated, Any
from urllib.parse import urlencode

import pytest
from fastapi import Query
from hypothesis import given
from hypothesis import strategies as st

from app.cache.http._fastapi import get_dependant
from app.cache.http.arguments import Arguments
from app.cache.keys import digest

PAIRS = st.lists(st.tuples(st.sampled_from(["limit", "q", "tag", "other"]), st.text(max_size=5)))


async def search(
    tag: Annotated[list[str], Query(default_factory=list)],
    limit: str = "20",
    q: str | None = None,
) -> Any: ...


ARGUMENTS = Arguments(re.compile("^/$"), {}, get_dependant(path="/", call=search))


def query(pairs: list[tuple[str, str]]) -> str:
    parts, _ = ARGUMENTS.read("/", urlencode(pairs).encode(), ())
    return digest(parts)


def meaning(pairs: list[tuple[str, str]]) -> object:
    """What FastAPI hands to the handler for this query."""
    last = dict(pairs)
    repeated = [value for name, value in pairs if name == "tag"]
    return last.get("limit", "20"), last.get("q"), repeated


@given(PAIRS, PAIRS)
def test_two_queries_share_a_key_exactly_when_they_mean_the_same(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert (query(one) == query(other)) == (meaning(one) == meaning(other))


@given(PAIRS)
def test_the_order_of_names_does_not_matter(pairs: list[tuple[str, str]]) -> None:
    assert query(pairs) == query(sorted(pairs, key=lambda pair: pair[0]))


@given(st.lists(st.binary(max_size=8)), st.lists(st.binary(max_size=8)))
def test_no_choice_of_parts_collides(one: list[bytes], other: list[bytes]) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("tag", "1"), ("tag", "2")], [("tag", "2"), ("tag", "1")]),
        ([("tag", "1&tag=2")], [("tag", "1"), ("tag", "2")]),
        ([("q", "")], []),
        ([("q", "a%2Fb")], [("q", "a/b")]),
    ],
)
def test_different_queries_do_not_collide(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert query(one) != query(other)


def test_a_default_and_its_absence_share_a_key() -> None:
    assert query([("limit", "20")]) == query([])
