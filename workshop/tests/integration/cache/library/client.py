"""How tests talk to the library: warm the cache, write, read through the other process, compare."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

Process = Literal["a", "b", "new", "plain"]
Variant = Literal["tags", "no-tags", "production"]
Shelf = dict[str, Any]

WARM_SECONDS, POLL_SECONDS = 20.0, 0.02
# Why an answer is not stored, however often it is asked for.
NOT_UNDERSTOOD = {"textual-sql", "view", "function", "function-not-stored"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    cache: str = field(compare=False)
    """Cache-Status without the name of the service."""

    @property
    def is_hit(self) -> bool:
        return self.cache.startswith("hit")

    @property
    def detail(self) -> str:
        return self.cache.partition("detail=")[2]


@dataclass(frozen=True, slots=True)
class Servers:
    """Processes a and b, which share a cache; a new one, which has read less than they did; and a
    plain one, which caches nothing: it tells the truth."""

    variant: Variant
    urls: dict[Process, str]
    environment: dict[str, str]
    folder: Path

    def log(self, process: Process) -> str:
        """In production a log is JSON."""
        lines = (self.folder / f"{process}.log").read_text().splitlines()
        return "\n".join(json.loads(s)["message"] if s[:1] == "{" else s for s in lines)


class Library:
    def __init__(self, servers: Servers, clients: dict[Process, httpx.AsyncClient]) -> None:
        self.servers, self.variant, self._clients = servers, servers.variant, clients

    async def post(self, process: Process, path: str, body: object = None) -> httpx.Response:
        return await self._clients[process].post(path, json=body)

    async def shelf(self) -> Shelf:
        made = await self.post("a", "/shelves")
        assert made.status_code == 201, made.text
        shelf: Shelf = made.json()
        return shelf

    async def change(self, process: Process, path: str, body: object = None) -> None:
        response = await self.post(process, path, body)
        assert response.status_code == 204, response.text

    async def read(self, process: Process, path: str) -> Answer:
        """The answer to `/orders as anna`, or to a path alone."""
        path, _, user = path.partition(" as ")
        response = await self._clients[process].get(path, headers={"X-User": user or "nobody"})
        assert response.status_code < 500, response.text
        _, _, cache = response.headers.get("Cache-Status", "").partition("; ")
        return Answer(response.status_code, response.text, cache)

    async def read_all(self, process: Process, paths: Iterable[str]) -> list[Answer]:
        return await asyncio.gather(*(self.read(process, path) for path in paths))

    async def warm(self, *paths: str) -> dict[str, Answer]:
        """What a and b both answer from the cache; or without it, where nothing is stored."""
        answers: dict[Process, list[Answer]] = {}
        for process in ("a", "b"):
            answers[process] = await asyncio.gather(*(self._warm(process, path) for path in paths))
        assert answers["a"] == answers["b"]
        return dict(zip(paths, answers["a"], strict=True))

    async def _warm(self, process: Process, path: str) -> Answer:
        async with asyncio.timeout(WARM_SECONDS):
            while True:
                answer = await self.read(process, path)
                if answer.is_hit or answer.detail in NOT_UNDERSTOOD:
                    return answer
                await asyncio.sleep(POLL_SECONDS)

    async def check(self, before: dict[str, Answer]) -> None:
        """After a write through a: the next reads are true, and others than before."""
        seen = {process: await self.read_all(process, before) for process in ("b", "a")}
        truth = dict(zip(before, await self.read_all("plain", before), strict=True))
        same = [path for path, answer in truth.items() if answer == before[path]]
        assert not same, "the write changed nothing there"
        stale = [
            f"{process} answered {path} with {answer.cache}"
            for process, answers in seen.items()
            for path, answer in zip(before, answers, strict=True)
            if answer != truth[path]
        ]
        assert not stale

    async def counted(self, event: str, label: str, *processes: Process) -> float:
        """The sum of what a and b have counted; patterns say of which events."""
        sample = re.compile(rf'cache_events_total{{event="({event})",label="({label})"}} (\S+)')
        clients = [self._clients[process] for process in processes or ("a", "b")]
        pages = [(await client.get("/metrics")).text for client in clients]
        return sum(float(number) for page in pages for *_, number in sample.findall(page))


@asynccontextmanager
async def library_of(servers: Servers) -> AsyncIterator[Library]:
    # Well before uvicorn closes a connection that is idle.
    limits = httpx.Limits(keepalive_expiry=2)
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, timeout=30, limits=limits)
            )
            for name, url in servers.urls.items()
        }
        yield Library(servers, clients)
