"""P4, P8: whatever is asked, the cache changes nothing about the answer."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote, quote_plus

import pytest

from app.database import read_session
from app.main import create_app
from app.settings import Settings
from tests.clients import Client, cache_status, serving

# Values that are valid, that are not, and that are read differently than they are written.
PAGE = {
    "limit": ["1", "20", "50", "250", "251", "0", "05", " 5", "1.0", "abc", ""],
    "offset": ["0", "10", "248", "-1", "100001", "x"],
}
PARAMETERS = {
    "/countries": PAGE
    | {
        "sort": ["name", "-name", "-region,name", "name,name", "bogus", ""],
        "region": ["Europe", "europe", " Europe ", "Nowhere", "é", "\0", ""],
        "subregion": ["Western Europe", "x" * 300],
        "currency": ["EUR", "eur", "ZZZ", "EUR\n"],
        "q": ["aus", "AUS", "%", "a&b=c", "ô", "'", "\\", "+", "a;b"],
    },
    "/currencies": PAGE
    | {
        "sort": ["code", "-minor_units,code", "bogus"],
        "minor_units": ["0", "2", "-1", "2.0", ""],
        "q": ["dollar", "DOLLAR", "%"],
    },
}
UNDECLARED = {"utm_source": ["x"], "Limit": ["1"], "limit[]": ["1"]}
ENCODINGS: list[Callable[[str], str]] = [
    quote,
    quote_plus,
    lambda value: "".join(f"%{byte:02x}" for byte in value.encode()),
]
QUERIES = 200


@pytest.fixture
async def uncached(settings: Settings) -> AsyncIterator[Client]:
    """The same service, which asks the database every time."""
    app = create_app(settings)
    app.dependency_overrides[read_session] = read_session  # the cache respects it: it stays out
    async with serving(app=app) as client:
        yield client


@pytest.mark.parametrize("path", PARAMETERS)
async def test_random_queries_have_the_same_answers_with_the_cache_and_without(
    client: Client, uncached: Client, path: str
) -> None:
    dice, seen = random.Random(path), Counter[tuple[str, int]]()
    for _ in range(QUERIES):
        url = f"{path}?{random_query(dice, PARAMETERS[path] | UNDECLARED)}"
        truth = await uncached.get(url)
        assert cache_status(truth) == "fwd=bypass"
        for _ in range(2):
            answer = await client.get(url)
            assert (answer.status_code, answer.content) == (truth.status_code, truth.content), url
            assert answer.headers["Content-Type"] == truth.headers["Content-Type"], url
            seen[cache_status(answer), answer.status_code] += 1
    assert seen["hit", 200] > QUERIES / 10
    assert seen["fwd=bypass", 422] > QUERIES / 10
    assert seen["hit", 422] == 0


def random_query(dice: random.Random, parameters: dict[str, list[str]]) -> str:
    """Up to three parameters, at times repeated, in any order and encoding."""
    names = dice.choices(list(parameters), k=dice.randint(0, 3))
    pairs = []
    for name in names:
        value = dice.choice(parameters[name])
        pairs.append(f"{quote(name)}={dice.choice(ENCODINGS)(value)}")
    return "&".join(pairs)
