"""One process of `micro.py`: the service of the current folder, called without sockets to clients.

Prints, as JSON, the microseconds of CPU time per request of each case: the least of some repeats, as
whatever disturbs only adds to it.
"""

from __future__ import annotations

import asyncio
import csv
import functools
import gc
import importlib
import importlib.util
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

CONCURRENT = 32
REPEATS = 7
WARM_UPS = 2
SORTABLE = ("alpha_2", "alpha_3", "numeric", "name", "region", "subregion")

Headers = tuple[tuple[bytes, bytes], ...]


class Request(NamedTuple):
    query: bytes = b""
    path: str = "/countries"
    headers: Headers = ()
    method: str = "GET"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Case:
    """`request` makes the request of a number that no other request of the process has."""

    name: str
    request: Callable[[int], Request]
    status: int = 200
    cache_status: bytes = b"; hit"
    requests_each: int = 100


class Application:
    """An application in its lifespan; keeps the start of the last response."""

    def __init__(self, app: Callable[..., Awaitable[None]], state: dict[str, Any]) -> None:
        self._app, self._state = app, state
        self.start: dict[str, Any] = {}

        self._numbers = itertools.count()

    async def ask(self, case: Case) -> None:
        request = case.request(next(self._numbers))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "http",
            "method": request.method,
            "root_path": "",
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": request.query,
            "headers": [(b"host", b"localhost:8000"), (b"user-agent", b"micro"), *request.headers],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 40_000),
            "state": dict(self._state),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        # As servers do: a task for each request.
        await asyncio.create_task(self._app(scope, receive, self._send))  # type: ignore[arg-type]

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.start = message

    def header(self, name: bytes) -> bytes:
        headers: dict[bytes, bytes] = dict(self.start["headers"])
        return headers.get(name, b"")


async def main(routes: Path) -> None:
    app = load(routes).app
    logging.getLogger().setLevel(logging.WARNING)
    async with app.router.lifespan_context(app) as state:
        await state["cache"].clear()  # of an earlier process
        application = Application(app, state)
        measured = {case.name: await measure(application, case) for case in await cases(application)}
    print(json.dumps(measured))


def load(file: Path) -> Any:
    """The module in this file, over the package `app` of the current folder."""
    sys.path.insert(0, str(Path.cwd()))
    spec = importlib.util.spec_from_file_location("measured", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["measured"] = module
    spec.loader.exec_module(module)
    return module


async def cases(application: Application) -> list[Case]:
    def always(*request: Any) -> Callable[[int], Request]:
        return lambda _: Request(*request)

    known = Case("hit, 20 items", always(b"limit=20"))
    await application.ask(known)
    await application.ask(known)
    etag = application.header(b"etag")
    return [
        known,
        Case("hit, 249 items", always(b"limit=250")),
        Case("304, 20 items", always(b"limit=20", "/countries", ((b"if-none-match", etag),)), 304),
        Case(
            "hit, 249 items, compressed",
            always(b"limit=250", "/countries", ((b"accept-encoding", b"gzip"),)),
        ),
        Case(
            "hit per user, with a guard, 20 items",
            always(b"limit=20", "/benchmark/per-user", ((b"authorization", b"Bearer somebody"),)),
        ),
        Case("miss, 20 items", page, cache_status=b"; stored", requests_each=20),
        Case("write, 1 row", change, cache_status=b"", requests_each=20),
    ]


def page(number: int) -> Request:
    """A page of 20 countries that nobody has asked for."""
    order, offset = divmod(number, 200)
    orders = itertools.permutations([*SORTABLE, *(f"-{name}" for name in SORTABLE)], 3)
    sort = ",".join(next(itertools.islice(orders, order, None)))
    return Request(b"limit=20&offset=%d&sort=%s" % (offset, sort.encode()))


def change(number: int) -> Request:
    """A write to one row; rows written at the same time differ."""
    code = country_codes()[number % len(country_codes())]
    authorization = (b"authorization", f"Bearer {os.environ['API_TOKEN']}".encode())
    body = b'{"official_name": "number %d"}' % number
    json_type = (b"content-type", b"application/json")
    return Request(b"", f"/countries/{code}", (authorization, json_type), "PATCH", body)


@functools.cache
def country_codes() -> list[str]:
    with Path("migrations/data/countries.csv").open(encoding="utf-8") as file:
        return [row["alpha_2"] for row in csv.DictReader(file)]


async def measure(application: Application, case: Case) -> float:
    await application.ask(case)
    await application.ask(case)
    as_expected = case.cache_status in application.header(b"cache-status")
    if application.start["status"] != case.status or not as_expected:
        raise SystemExit(f"{case.name}: answered with {application.start}")
    for _ in range(WARM_UPS):
        await ask_all(application, case)
    gc.collect()
    gc.freeze()
    return min([await ask_all(application, case) for _ in range(REPEATS)])


async def ask_all(application: Application, case: Case) -> float:
    """Microseconds of CPU time per request."""

    async def client() -> None:
        for _ in range(case.requests_each):
            await application.ask(case)

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(CONCURRENT)))
    return (time.process_time() - began) / (CONCURRENT * case.requests_each) * 1e6


if __name__ == "__main__":
    importlib.import_module("uvloop").run(main(Path(sys.argv[1])))
