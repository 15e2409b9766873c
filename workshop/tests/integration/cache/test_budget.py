"""P4: one request loses at most 100 ms to a Redis that is slow or away, whatever it asks of it.

The proxy delivers what is sent later, each way, as a slow network does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI

from app.cache import Cache, CacheMiddleware, cache, open_cache
from app.cache.events import Counters
from tests.faults import FaultProxy, fault_proxy

# Redis answers 80 ms late.
EACH_WAY_SECONDS = 0.04
MOST_SECONDS = 0.1
# What the machine may add; the best of a few tries counts.
SLACK_SECONDS, TRIES = 0.02, 5
SLOW_SECONDS = 0.3


@cache(60, tags=["rates"])
async def first(number: int) -> int:
    return number


@cache(60, tags=["rates"])
async def second(number: int) -> int:
    return number


@cache(60, tags=["rates"])
async def third(number: int) -> int:
    return number


async def all_three(number: int) -> int:
    return await first(number) + await second(number) + await third(number)


class World:
    def __init__(self, opened: Cache, proxy: FaultProxy, counters: Counters) -> None:
        self.cache, self.proxy, self.counters = opened, proxy, counters
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware)
        self.app.get("/plain/{number}")(all_three)
        self.app.get("/cached/{number}")(cache(60, tags=["pages"])(all_three))

        @self.app.get("/slow")
        @cache(60, tags=["slow"])
        async def slow() -> str:
            await asyncio.sleep(SLOW_SECONDS)
            return "slow"

        opened.bind(self.app)

        async def with_state(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await self.app({**scope, "state": {"cache": opened}}, receive, send)

        transport = httpx.ASGITransport(with_state)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def seconds(self, path: str) -> float:
        started = time.monotonic()
        assert (await self.client.get(path)).status_code == 200
        return time.monotonic() - started

    async def be_late(self) -> None:
        self.proxy.late_seconds = EACH_WAY_SECONDS
        await self.proxy.become("late")

    async def until_hit(self, path: str) -> None:
        async with asyncio.timeout(5):
            while "hit" not in (await self.client.get(path)).headers["cache-status"]:
                await asyncio.sleep(0.01)

    async def closed(self) -> None:
        async with asyncio.timeout(5):
            while self.cache.backend._breaker._probing is not None:  # type: ignore[attr-defined]
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


async def best(attempt: Callable[[int], Awaitable[float]], enough: float) -> float:
    """The least of a few tries, and of no more once it is good enough."""
    least = float("inf")
    for number in range(TRIES):
        least = min(least, await attempt(number))
        if least <= enough:
            break
    return least


async def test_a_hit_waits_for_no_command_but_its_own(world: World) -> None:
    for number in range(10):
        await world.until_hit(f"/cached/{number}")
    await world.be_late()

    async def slowest(_: int) -> float:
        hits = []
        for number in range(10):  # each comes while others are under way
            hits.append(asyncio.create_task(world.seconds(f"/cached/{number}")))
            await asyncio.sleep(EACH_WAY_SECONDS / 2)
        return max(await asyncio.gather(*hits))

    assert await best(slowest, MOST_SECONDS + SLACK_SECONDS) < MOST_SECONDS + SLACK_SECONDS


@pytest.mark.parametrize("path", ["/plain", "/cached"])
async def test_a_request_has_one_budget_for_itself_and_all_functions_that_it_calls(
    world: World, path: str
) -> None:
    await world.client.get("/plain/0")
    await world.be_late()

    async def attempt(number: int) -> float:
        await world.closed()
        return await world.seconds(f"{path}/{number + 1}")

    assert await best(attempt, MOST_SECONDS + SLACK_SECONDS) < MOST_SECONDS + SLACK_SECONDS


async def test_each_call_outside_of_a_request_has_a_budget_of_its_own(world: World) -> None:
    await all_three(0)
    await world.be_late()
    started = time.monotonic()
    await all_three(0)
    assert time.monotonic() - started > 3 * 2 * EACH_WAY_SECONDS - SLACK_SECONDS
    assert world.counters.totals["hit", "fresh"] >= 3


async def test_while_redis_is_away_nobody_waits_for_another_ones_query(world: World) -> None:
    await world.proxy.become("refuse")
    async with asyncio.timeout(5):
        while not world.counters.totals["breaker", "open"]:
            await world.client.get("/plain/0")

    async def slowest(_: int) -> float:
        requests = []
        for _ in range(4):  # each comes when the query of the one before it has begun
            requests.append(asyncio.create_task(world.seconds("/slow")))
            await asyncio.sleep(SLOW_SECONDS / 4)
        return max(await asyncio.gather(*requests))

    most = SLOW_SECONDS + MOST_SECONDS
    assert await best(slowest, most) < most
