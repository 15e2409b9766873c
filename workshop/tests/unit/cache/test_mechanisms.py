"""One test for each mechanism that a test of a promise would not miss by itself."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.types import Message

from app.cache import Cache, InMemoryBackend, cache
from app.cache.backends.base import Begun, Found
from app.cache.entry import Entry
from app.cache.events import Counters
from app.cache.flights import MAX_REFRESHES, Miss
from app.cache.http.middleware import MAX_VARY_BYTES
from app.cache.policy import Policy
from app.cache.reads import Learned
from app.cache.store import MAX_PAYLOAD_BYTES, Computed
from tests.unit.cache.serving import serving, status

LATE, BUDGET = 0.3, 0.4


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Origin:
    """Computations that wait for `gate`; how many run, and how many ran at once."""

    def __init__(self) -> None:
        self.reads = self.running = self.most = 0
        self.gate, self.entered = asyncio.Event(), asyncio.Event()

    async def compute(self) -> Computed:
        self.reads += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.entered.set()
        await self.gate.wait()
        self.running -= 1
        return Computed(b"value")


async def read(
    cache: Cache, origin: Origin, key: str = "key", policy: Policy | None = None
) -> bytes:
    policy = policy or Policy(60)
    miss = Miss(key, ["tag"], policy, Learned(key, policy), origin.compute)
    return await cache.fetch(miss)


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_head_sends_no_body() -> None:
    """The client of other tests drops a body itself, so this one looks at what is sent."""
    app, memory, sent = FastAPI(), Cache(InMemoryBackend()), list[Message]()

    @app.get("/planets")
    @cache(60)
    async def planets() -> list[str]:
        return ["Mars"]

    async def send(message: Message) -> None:
        sent.append(message)

    async with serving(app, memory):
        for headers in ([], [], [(b"cookie", b"a=b")]):  # a miss, a hit, a bypass
            scope = {"type": "http", "method": "HEAD", "path": "/planets", "query_string": b""}
            await app({**scope, "headers": headers, "state": {"cache": memory}}, receive, send)
    assert [message["status"] for message in sent[::2]] == [200] * 3
    assert all((b"content-length", b"8") in message["headers"] for message in sent[::2])
    assert [message.get("body", b"") for message in sent[1::2]] == [b""] * 3


async def test_what_a_middleware_adds_to_one_answer_is_not_in_the_next() -> None:
    app, sent = FastAPI(), list[Message]()

    @app.get("/planets")
    @cache(60)
    async def planets() -> list[str]:
        return ["Mars"]

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            sent.append({**message, "headers": [*message["headers"]]})
            message["headers"].append((b"x-added", b"1"))

    memory = Cache(InMemoryBackend(), clock=Clock())
    async with serving(app, memory):
        for _ in range(4):
            scope = {"type": "http", "method": "GET", "path": "/planets", "query_string": b""}
            await app({**scope, "headers": [], "state": {"cache": memory}}, receive, send)
    assert all((b"x-added", b"1") not in message["headers"] for message in sent)
    assert sent[2] == sent[3]


async def test_closing_waits_for_flights_and_for_what_they_store() -> None:
    memory, origin = Cache(InMemoryBackend()), Origin()
    reading = asyncio.create_task(read(memory, origin))
    await origin.entered.wait()
    closing = asyncio.create_task(memory.aclose())
    await asyncio.sleep(0.01)
    assert not closing.done()
    origin.gate.set()
    await closing
    assert (await memory.store.lookup("key", ["tag"])).state == "fresh"
    assert await reading == b"value"


async def test_without_generations_the_origin_sees_one_query_at_a_time() -> None:
    memory, origin = Cache(InMemoryBackend()), Origin()
    await memory.writes.hold(["tag"])
    first = asyncio.create_task(read(memory, origin))
    await origin.entered.wait()
    later = [asyncio.create_task(read(memory, origin)) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert origin.running == 1
    origin.gate.set()
    assert await asyncio.gather(first, *later) == [b"value"] * 6
    assert (origin.reads, origin.most) == (2, 1)


async def test_the_lock_lives_as_long_as_the_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("flights", "backends.memory"):
        monkeypatch.setattr(f"app.cache.{module}.LOCK_SECONDS", 0.15)
    backend, origin = InMemoryBackend(), Origin()
    reads = [asyncio.create_task(read(Cache(backend), origin)) for _ in range(2)]
    await asyncio.sleep(0.6)
    assert origin.reads == 1
    origin.gate.set()
    assert await asyncio.gather(*reads) == [b"value"] * 2
    assert origin.reads == 1


async def test_refreshes_are_bounded() -> None:
    clock, counters, origin = Clock(), Counters(), Origin()
    memory = Cache(InMemoryBackend(clock=clock), clock=clock, recorder=counters)
    policy, pages = Policy(10, stale=60), [str(page) for page in range(2 * MAX_REFRESHES)]
    origin.gate.set()
    for page in pages:
        await read(memory, origin, page, policy)
    clock.now += 11
    origin.gate.clear()
    origin.most = 0
    for page in pages:
        assert await read(memory, origin, page, policy) == b"value"
    await asyncio.sleep(0.01)
    assert origin.most == MAX_REFRESHES
    assert counters.totals["refresh_skipped", ""] == MAX_REFRESHES
    origin.gate.set()
    await memory.flights.drain(5)


async def test_what_is_too_large_is_served_and_not_stored() -> None:
    class NoLimit(InMemoryBackend):
        stored = 0

        async def store(
            self, key: str, tags: Sequence[str], entry: Entry, seconds: float, token: str = ""
        ) -> None:
            self.stored += 1

    async def compute() -> Computed:
        return Computed(bytes(MAX_PAYLOAD_BYTES + 1))

    backend = NoLimit()
    memory = Cache(backend)
    policy = Policy(60)
    payload = await memory.fetch(Miss("key", ["tag"], policy, Learned("key", policy), compute))
    await memory.aclose()
    assert (len(payload), backend.stored) == (MAX_PAYLOAD_BYTES + 1, 0)


async def test_a_very_long_vary_header_is_answered_and_not_cached() -> None:
    app, backend = FastAPI(), InMemoryBackend()

    @app.get("/greeting")
    @cache(60, vary=["accept-language"])
    async def greeting(accept_language: str = Header("en")) -> int:
        return len(accept_language)

    async with serving(app, Cache(backend)) as client:
        for size in (MAX_VARY_BYTES, MAX_VARY_BYTES + 1):
            headers = {"accept-language": "x" * size}
            assert (await client.get("/greeting", headers=headers)).json() == size
    assert len(backend.entries) == 1


async def test_a_stale_entry_is_better_than_a_503() -> None:
    app, clock, calls = FastAPI(), Clock(), Counter[str]()
    memory = Cache(InMemoryBackend(clock=clock), clock=clock)

    @app.get("/planets")
    @cache(10, stale_if_error=60)
    async def planets() -> str:
        calls["planets"] += 1
        if calls["planets"] > 1:
            raise HTTPException(503)
        return "Mars"

    async with serving(app, memory) as client:
        await client.get("/planets")
        clock.now += 11
        stale = await client.get("/planets")
        clock.now += 60
        failed = await client.get("/planets")
    assert (stale.json(), status(stale)) == ("Mars", "fwd=stale")
    assert failed.status_code == 503


async def test_an_override_of_any_dependency_is_respected() -> None:
    app = FastAPI()

    async def planet() -> str:
        return "Mars"

    @app.get("/planet")
    @cache(60)
    async def read_planet(name: Annotated[str, Depends(planet)]) -> str:
        return name

    async with serving(app, Cache(InMemoryBackend())) as client:
        assert (await client.get("/planet")).json() == "Mars"
        app.dependency_overrides[planet] = lambda: "Venus"
        assert (await client.get("/planet")).json() == "Venus"
        app.dependency_overrides.clear()
        assert (await client.get("/planet")).json() == "Mars"


class Sluggish(InMemoryBackend):
    """Answers the first call of a request late, and the second never."""

    async def read(self, key: str, tags: Sequence[str], local: float = 0) -> Found:
        await asyncio.sleep(LATE)
        return await super().read(key, tags)

    async def begin(self, *_: Any, **__: Any) -> Begun:
        await asyncio.Event().wait()
        raise AssertionError

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        await asyncio.sleep(LATE)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_all_calls_of_a_request_share_one_budget(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("budget", "writes"):
        monkeypatch.setattr(f"app.cache.{module}.REQUEST_BUDGET_SECONDS", BUDGET)
    memory, origin = Cache(Sluggish()), Origin()
    origin.gate.set()
    started = time.monotonic()
    if kind == "read":
        assert await read(memory, origin) == b"value"
    else:
        await memory.writes.release(await memory.writes.hold(["tag"]), changed=True)
    assert LATE < time.monotonic() - started < LATE + BUDGET - 0.1
    if kind == "write":
        assert memory.pending
    await memory.aclose()
