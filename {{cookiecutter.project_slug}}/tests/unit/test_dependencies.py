"""`make dependencies` puts together what the processes of the tests have seen."""

from collections.abc import Iterator

import pytest

from app.cache.policy import Policy, Tag
from app.cache.reads import Learned, NothingCovered, Reads
from tests import dependencies


@pytest.fixture(autouse=True)
def _own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "rows", {})


def learned(name: str, policy: Policy, *seen: Reads) -> Learned:
    found = Learned(name, policy)
    for reads in seen:
        found.judge(NothingCovered(), reads, None)
    return found


def processes() -> Iterator[list[Learned]]:
    tags = (Tag.parse("author:{id}"), Tag.parse("rates", manual=True))
    books, loans = Reads({"books"}), Reads({"loans"}, functions={"app.rates.rate"})
    yield [
        learned("GET /books", Policy(60, tags=tags), books, loans),
        learned("GET /later", Policy(60)),
    ]
    yield [
        learned("GET /books", Policy(60, tags=tags), Reads({"authors"})),
        learned("app.rates.rate", Policy(60), Reads()),
        learned("GET /names", Policy(60), Reads(unclear="view")),
        learned("GET /of-a-test", Policy(60), Reads()),
        learned("GET /later", Policy(60)),
    ]


def test_each_route_and_function_has_a_line_of_all_that_was_seen() -> None:
    for process in processes():
        dependencies.add({each.name: dependencies.row_of(each) for each in process})
    page = dependencies.page({"GET /books", "GET /names", "GET /later"})
    assert page.startswith(dependencies.HEAD)
    assert page.removeprefix(dependencies.HEAD).splitlines() == [
        "| `GET /books` | `authors`, `books`, `loans` | any change to `authors`, any change to "
        "`books`, any change to `loans`, tag `author:{id}`, tag `rates` (manual), whatever ends "
        "`app.rates.rate` |",
        "| `GET /later` | – | not known: no test asked for it |",
        "| `GET /names` | – | (not stored: view) |",
        "| `app.rates.rate` | – | its expiry alone |",
    ]
