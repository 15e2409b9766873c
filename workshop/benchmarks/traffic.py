"""What is asked for: one request, or a list of requests that a load generator goes through.

A `Traffic` makes the list for one run. Most repeat the same one; those of misses never ask for a
page twice, in no run, and all their pages cost the database the same.
"""

import csv
import json
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from app.settings import DEVELOPMENT_SECRET

SERVICE = Path(__file__).parents[1]
PAGE_ITEMS = 20
PAGES_PER_RUN = 20_000
WRITES_PER_COUNTRY = 8
MAX_SPACES = 31
SORT_FIELDS = ("alpha_2", "alpha_3", "numeric", "name", "region", "subregion")
# A prime that divides no number of pages: steps of it visit every page before any twice, and those
# of one run are spread over all.
STRIDE = 7_368_787

AUTHORIZATION = ("Authorization", f"Bearer {DEVELOPMENT_SECRET}")
GZIP = ("Accept-Encoding", "gzip")


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    def encode(self) -> bytes:
        headers = [("Host", "127.0.0.1"), *self.headers]
        if self.body:
            headers.append(("Content-Length", str(len(self.body.encode()))))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers)]
        return "\r\n".join([*lines, "", self.body]).encode()


# The requests of a run, by the number that it has among those of its row.
Traffic = Callable[[int], Sequence[Request]]


def always(path: str, *headers: tuple[str, str]) -> Traffic:
    return lambda _run: (Request(path, headers=headers),)


def every_country(_run: int) -> Sequence[Request]:
    return [Request(f"/countries/{code}") for code in country_codes()]


def unseen_pages(path: str) -> Traffic:
    """Full pages, told apart by their offset, the field to sort by, and spaces around it: those are
    another key for a cache, and the same statement for the database, which so has it prepared.
    """

    def pages(run: int) -> Sequence[Request]:
        offsets, orders = len(country_codes()) - PAGE_ITEMS + 1, _sort_orders()
        first, total = run * PAGES_PER_RUN, offsets * len(orders)
        assert first + PAGES_PER_RUN <= total
        assert math.gcd(STRIDE, total) == 1
        found = []
        for number in range(first, first + PAGES_PER_RUN):
            order, offset = divmod(number * STRIDE % total, offsets)
            query = f"limit={PAGE_ITEMS}&offset={offset}&sort={orders[order]}"
            found.append(Request(f"{path}?{query}"))
        return found

    return pages


def changes(_run: int) -> Sequence[Request]:
    """Writes that go round the countries; each gives its country a name it did not have."""
    codes, unlike_before = country_codes(), secrets.token_hex(4)
    return [
        change(codes[number % len(codes)], f"Benchmark {unlike_before}.{number}")
        for number in range(len(codes) * WRITES_PER_COUNTRY)
    ]


def change(code: str, official_name: str) -> Request:
    return Request(
        f"/countries/{code}",
        method="PATCH",
        headers=(AUTHORIZATION, ("Content-Type", "application/json")),
        body=json.dumps({"official_name": official_name}),
    )


@cache
def country_codes() -> list[str]:
    data = SERVICE / "migrations/data/countries.csv"
    with data.open(encoding="utf-8", newline="") as lines:
        return [country["alpha_2"] for country in csv.DictReader(lines)]


@cache
def _sort_orders() -> list[str]:
    spaces = ["+" * number for number in range(MAX_SPACES + 1)]
    return ["".join(parts) for parts in product(spaces, ("", "-"), SORT_FIELDS, spaces)]
