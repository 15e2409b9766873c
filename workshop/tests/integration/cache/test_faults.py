"""P4: whatever Redis does, the service answers as if it had no cache, and soon.

The service under test talks to the real Redis through a proxy that really delays, cuts, resets and
keeps silent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
import redis.asyncio
from fastapi import FastAPI

from app.cache import Cache, CacheMiddleware, cache, open_cache
from app.cache.events import Counters
from tests.faults import Fault, FaultProxy, fault_proxy
from tests.services import StoppableRedis

FAULTS: list[Fault] = ["delay", "silence", "drip", "cut", "reset", "refuse"]
# What one request may lose to the cache, with room for a busy machine.
BUDGET_SECONDS = 0.1 + 0.2


class World:
    """A service whose answers count up with each computation of theirs."""

    def __init__(self, opened: Cache, proxy: FaultProxy, counters: Counters) -> None:
        self.cache, self.proxy, self.counters = opened, proxy, counters
        self.computed: Counter[str] = Counter()
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware)

        @self.app.get("/pages/{page}")
        @cache(60, tags=["pages"])
        async def read_page(page: str) -> dict[str, str]:
            self.computed[page] += 1
            return {"page": page}

        opened.bind(self.app)

        async def with_state(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await self.app({**scope, "state": {"cache": opened}}, receive, send)

        transport = httpx.ASGITransport(with_state)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def get(self, page: str = "one") -> httpx.Response:
        response = await self.client.get(f"/pages/{page}")
        assert (response.status_code, response.json()) == (200, {"page": page})
        return response

    async def until(self, status: str) -> None:
        """Until a read has this Cache-Status."""
        async with asyncio.timeout(5):
            while status not in (await self.get()).headers["cache-status"]:
                await asyncio.sleep(0.01)

    async def until_breaker(self, state: str) -> None:
        async with asyncio.timeout(5):
            while not self.counters.totals["breaker", state]:
                await asyncio.sleep(0.01)


@pytest.fixture
async def world(cache_url: str) -> AsyncIterator[World]:
    counters = Counters()
    async with (
        fault_proxy(cache_url) as (proxy, url),
        open_cache(url, name="test", recorder=counters) as opened,
    ):
        world = World(opened, proxy, counters)
        async with world.client:
            yield world
        await proxy.become("none")


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_costs_no_answer_and_little_time_and_ends_by_itself(
    world: World, fault: Fault
) -> None:
    await world.until("hit")
    await world.proxy.become(fault)
    for number in range(20):
        started = time.monotonic()
        await world.get(str(number))
        assert time.monotonic() - started < BUDGET_SECONDS
    await world.until_breaker("open")
    await world.proxy.become("none")
    await world.until("hit")


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_service_that_starts_during_a_fault_begins_to_cache_when_it_ends(
    cache_url: str, fault: Fault
) -> None:
    async with fault_proxy(cache_url) as (proxy, url):
        await proxy.become(fault)
        async with open_cache(url, name="test") as opened:
            world = World(opened, proxy, Counters())
            async with world.client:
                for _ in range(3):
                    await world.get()
                await proxy.become("none")
                await world.until("hit")


async def test_with_the_breaker_open_nothing_waits_for_redis(world: World) -> None:
    await world.get()
    await world.proxy.become("silence")
    await asyncio.gather(*(world.get(str(number)) for number in range(100)))
    await world.until_breaker("open")
    failed_reads = world.counters.totals["error", "read"]
    await asyncio.gather(*(world.get(str(number)) for number in range(100)))
    assert world.counters.totals["error", "read"] == failed_reads
    assert world.counters.totals["breaker", "open"] == 1


async def test_while_redis_is_away_concurrent_misses_still_compute_once(world: World) -> None:
    await world.proxy.become("refuse")
    for number in range(5):
        await world.get(str(number))
    await world.until_breaker("open")
    await asyncio.gather(*(world.get("popular") for _ in range(50)))
    assert world.computed["popular"] == 1


async def test_a_fault_leaks_neither_connections_nor_tasks(world: World) -> None:
    await world.get()
    tasks = len(asyncio.all_tasks())
    for fault in FAULTS:
        await world.proxy.become(fault)
        for number in range(10):
            await world.get(str(number))
        await world.proxy.become("none")
        await world.until("hit")
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > tasks + 2 * len(world.proxy._writers):
            await asyncio.sleep(0.01)


async def test_an_invalidation_that_redis_did_not_take_is_repeated_until_it_does(
    world: World,
) -> None:
    await world.until("hit")
    await world.proxy.become("refuse")
    await world.cache.invalidate("pages")
    assert world.cache.pending == 1
    await world.proxy.become("none")
    async with asyncio.timeout(5):
        while world.cache.pending:
            await asyncio.sleep(0.01)
    assert "hit" not in (await world.get()).headers["cache-status"]
    assert world.counters.totals["pending_invalidation", "done"] == 1


@pytest.mark.parametrize("garbage", [b"", b"x", b"fce1" + b"\xff" * 100, b"fce1" + b"\0" * 60])
async def test_garbage_is_a_miss(world: World, cache_url: str, garbage: bytes) -> None:
    await world.get()
    async with redis.asyncio.Redis.from_url(cache_url) as server, asyncio.timeout(5):
        while not (keys := await server.keys("test:e:*")):
            await asyncio.sleep(0.01)
        await server.set(keys[0], garbage)
    assert "hit" not in (await world.get()).headers["cache-status"]
    await world.until("hit")


async def test_a_full_server_stores_nothing_and_costs_no_answer(own_redis: StoppableRedis) -> None:
    async with (
        redis.asyncio.Redis.from_url(own_redis.url) as server,
        fault_proxy(own_redis.url) as (proxy, url),
        open_cache(url, name="test") as opened,
    ):
        world = World(opened, proxy, Counters())
        async with world.client:
            await server.config_set("maxmemory-policy", "noeviction")
            await server.config_set("maxmemory", 1)
            for _ in range(3):
                await world.get()
            assert world.computed["one"] == 3
            await server.config_set("maxmemory", 0)
            await world.until("hit")
