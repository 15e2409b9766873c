"""P1: a Redis that reads and refuses writes keeps no process from seeing what it wrote itself."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from app.cache import Cache, cache, open_cache
from app.cache.flights import Miss
from app.cache.policy import EVERYTHING, Policy
from app.cache.reads import Learned
from app.cache.store import Computed
from tests.services import StoppableRedis

TAG, OTHER_TAG, WAIT_SECONDS = "planets", "moons", 10

REFUSALS = {
    "READONLY": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "NOREPLICAS": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "NOPERM": ("ACL SETUSER default -@scripting", "ACL SETUSER default +@scripting"),
    "CLIENT PAUSE WRITE": ("CLIENT PAUSE 60000 WRITE", "CLIENT UNPAUSE"),
}


computations = Counter[str]()


@cache(60, tags=[TAG])
async def number_of_computations() -> int:
    computations["number"] += 1
    return computations["number"]


class World:
    """A value behind a cache, in a Redis that may refuse what would change it."""

    def __init__(self, opened: Cache, url: str, refusal: tuple[str, str]) -> None:
        self.cache, self._url, self._refusal = opened, url, refusal
        self.value = 0

    async def compute(self) -> Computed:
        return Computed(b"%d" % self.value)

    async def read(self, tag: str = TAG, compute: Any = None) -> int:
        key, policy = f"key of {tag}", Policy(60, 60, 60)
        miss = Miss(key, [tag, EVERYTHING], policy, Learned(key, policy), compute or self.compute)
        return int(await self.cache.fetch(miss))

    async def write(self, value: int) -> None:
        hold = await self.cache.writes.hold([TAG])
        self.value = value
        await self.cache.writes.release(hold, changed=True)

    async def becomes_hit(self, tag: str = TAG) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while (await self.cache.store.lookup(f"key of {tag}", [tag])).state != "fresh":
                assert await self.read(tag) == self.value
        assert await self.read(tag) == self.value

    @contextmanager
    def refusing(self) -> Iterator[None]:
        with redis.Redis.from_url(self._url) as server:
            server.execute_command(self._refusal[0])
            yield
            server.execute_command(self._refusal[1])


@pytest.fixture(params=REFUSALS)
async def world(request: pytest.FixtureRequest, own_redis: StoppableRedis) -> AsyncIterator[World]:
    async with open_cache(own_redis.url, name="test") as opened:
        world = World(opened, own_redis.url, REFUSALS[request.param])
        await world.becomes_hit()
        yield world


async def test_the_next_read_of_the_process_sees_a_write_that_redis_refused(world: World) -> None:
    with world.refusing():
        for value in range(1, 4):
            await world.write(value)
            for _ in range(3):
                assert await world.read() == value
        assert world.cache.pending
    await world.becomes_hit()
    assert world.cache.pending == 0


async def test_a_cached_function_sees_a_write_that_redis_refused(world: World) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        computed = -1
        while computed != computations["number"]:
            computed = computations["number"]
            before = await number_of_computations()
            await asyncio.sleep(0.01)
    with world.refusing():
        await world.write(1)
        assert await number_of_computations() == before + 1


async def test_a_flight_from_before_a_refused_write_is_not_joined_after_it(world: World) -> None:
    began, gate = asyncio.Event(), asyncio.Event()

    async def slow() -> Computed:
        seen = world.value
        began.set()
        await gate.wait()
        return Computed(b"%d" % seen)

    await world.cache.invalidate(TAG)
    early = asyncio.create_task(world.read(compute=slow))
    await began.wait()
    with world.refusing():
        await world.write(1)
        late = asyncio.create_task(world.read())
        await asyncio.sleep(0)
        gate.set()
        assert (await early, await late) == (0, 1)
        assert await world.read() == 1
    await world.becomes_hit()


async def test_with_too_much_owed_the_process_finds_nothing_until_all_is_cleared(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.writes.MAX_OWED_TAGS", 3)
    await world.becomes_hit(OTHER_TAG)
    with world.refusing():
        for number in range(5):
            await world.cache.invalidate(f"tag{number}")
        assert (await world.cache.store.lookup(f"key of {OTHER_TAG}", [OTHER_TAG])).entry is None
        assert world.cache.pending == 1
    await world.becomes_hit(OTHER_TAG)
