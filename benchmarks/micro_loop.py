"""One process of `micro.py`: the service of the current folder, called without sockets to clients.

Prints, as JSON, the microseconds of CPU time per request of each case: the least of some repeats, as
whatever disturbs only adds to it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONCURRENT = 32
REQUESTS_EACH = 100
REPEATS = 7
WARM_UPS = 2

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    query: bytes
    path: str = "/countries"
    headers: Headers = ()
    status: int = 200


class Application:
    """An application in its lifespan; keeps the start of the last response."""

    def __init__(self, app: Callable[..., Awaitable[None]], state: dict[str, Any]) -> None:
        self._app, self._state = app, state
        self.start: dict[str, Any] = {}

    async def ask(self, case: Case) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET",
            "root_path": "",
            "path": case.path,
            "raw_path": case.path.encode(),
            "query_string": case.query,
            "headers": [(b"host", b"localhost:8000"), (b"user-agent", b"micro"), *case.headers],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 40_000),
            "state": dict(self._state),
        }
        # As servers do: a task for each request.
        await asyncio.create_task(self._app(scope, _receive, self._send))  # type: ignore[arg-type]

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.start = message

    def header(self, name: bytes) -> bytes:
        headers: dict[bytes, bytes] = dict(self.start["headers"])
        return headers.get(name, b"")


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def main(routes: Path) -> None:
    app = load(routes).app
    logging.getLogger().setLevel(logging.WARNING)
    async with app.router.lifespan_context(app) as state:
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
    known = Case("hit, 20 items", b"limit=20")
    await application.ask(known)
    etag = application.header(b"etag")
    return [
        known,
        Case("hit, 249 items", b"limit=250"),
        Case("304, 20 items", b"limit=20", headers=((b"if-none-match", etag),), status=304),
        Case("hit, 249 items, compressed", b"limit=250", headers=((b"accept-encoding", b"gzip"),)),
        Case(
            "hit per user, with a guard, 20 items",
            b"limit=20",
            "/benchmark/per-user",
            ((b"authorization", b"Bearer somebody"),),
        ),
    ]


async def measure(application: Application, case: Case) -> float:
    await application.ask(case)
    await application.ask(case)
    if application.start["status"] != case.status or b"; hit" not in application.header(b"cache-status"):
        raise SystemExit(f"{case.name}: answered with {application.start}")
    for _ in range(WARM_UPS):
        await ask_all(application, case)
    gc.collect()
    gc.freeze()
    return min([await ask_all(application, case) for _ in range(REPEATS)])


async def ask_all(application: Application, case: Case) -> float:
    """Microseconds of CPU time per request."""

    async def client() -> None:
        for _ in range(REQUESTS_EACH):
            await application.ask(case)

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(CONCURRENT)))
    return (time.process_time() - began) / (CONCURRENT * REQUESTS_EACH) * 1e6


if __name__ == "__main__":
    importlib.import_module("uvloop").run(main(Path(sys.argv[1])))
