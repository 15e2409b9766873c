"""P1, P2, P5: what requests may share, step by step. Barriers hold a computation where it hurts."""

import asyncio
from collections.abc import Sequence

import pytest

from app.cache import Cache, CacheUnavailable, InMemoryBackend
from app.cache.backends.base import Found
from app.cache.flights import Flights, Miss
from app.cache.policy import Policy
from app.cache.reads import Learned
from app.cache.store import Computed

POLICY = Policy(60)


class Origin:
    """A database of one value, whose readers can be stopped after they have read."""

    def __init__(self) -> None:
        self.value = 1
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_read = asyncio.Event()

    async def compute(self) -> Computed:
        self.reads += 1
        payload = str(self.value).encode()
        self.has_read.set()
        await self.gate.wait()
        return Computed(payload)

    def stop_readers(self) -> None:
        self.gate.clear()
        self.has_read.clear()


@pytest.fixture
def cache() -> Cache:
    return Cache(InMemoryBackend())


async def read(cache: Cache, origin: Origin) -> bytes:
    return await cache.fetch(Miss("key", ["tag"], POLICY, Learned("key", POLICY), origin.compute))


async def write(cache: Cache, origin: Origin, value: int) -> None:
    hold = await cache.writes.hold(["tag"])
    origin.value = value
    await cache.writes.release(hold, changed=True)


async def test_a_slow_reader_cannot_store_what_it_read_before_a_write(cache: Cache) -> None:
    origin = Origin()
    origin.stop_readers()
    slow = asyncio.create_task(read(cache, origin))
    await origin.has_read.wait()
    await write(cache, origin, 2)
    origin.gate.set()
    assert await slow == b"1"
    assert await read(cache, origin) == b"2"


async def test_a_read_after_a_write_does_not_join_a_computation_from_before_it(
    cache: Cache,
) -> None:
    origin = Origin()
    origin.stop_readers()
    slow = asyncio.create_task(read(cache, origin))
    await origin.has_read.wait()
    await write(cache, origin, 2)
    origin.has_read.clear()
    late = asyncio.create_task(read(cache, origin))
    async with asyncio.timeout(5):
        await origin.has_read.wait()
    origin.gate.set()
    assert await late == b"2"
    assert await slow == b"1"


async def test_nothing_begun_is_joined_while_a_writer_holds_the_tag(cache: Cache) -> None:
    origin = Origin()
    await cache.writes.hold(["tag"])
    origin.stop_readers()
    before = asyncio.create_task(read(cache, origin))
    await origin.has_read.wait()
    origin.value = 2  # COMMIT; another writer could be acknowledged now
    late = [asyncio.create_task(read(cache, origin)) for _ in range(5)]
    await asyncio.sleep(0)
    origin.gate.set()
    assert await before == b"1"
    assert await asyncio.gather(*late) == [b"2"] * 5
    assert origin.reads == 2


async def test_what_is_read_while_a_writer_holds_the_tag_is_not_stored(cache: Cache) -> None:
    origin = Origin()
    await cache.writes.hold(["tag"])
    await read(cache, origin)
    await read(cache, origin)
    assert origin.reads == 2


async def test_one_of_two_writers_does_not_release_for_the_other(cache: Cache) -> None:
    origin = Origin()
    first, _ = await cache.writes.hold(["tag"]), await cache.writes.hold(["tag"])
    await cache.writes.release(first, changed=True)
    assert await read(cache, origin) == b"1"
    origin.value = 2
    assert await read(cache, origin) == b"2"


async def test_a_rollback_leaves_no_trace(cache: Cache) -> None:
    origin = Origin()
    await read(cache, origin)
    await cache.writes.release(await cache.writes.hold(["tag"]), changed=False)
    assert await read(cache, origin) == b"1"
    assert await read(cache, origin) == b"1"
    assert origin.reads == 2  # once more after the hold, and then it is cached again


async def test_concurrent_misses_compute_once(cache: Cache) -> None:
    origin = Origin()
    assert set(await asyncio.gather(*(read(cache, origin) for _ in range(100)))) == {b"1"}
    assert origin.reads == 1


async def test_two_processes_compute_once() -> None:
    backend, origin = InMemoryBackend(), Origin()
    caches = [Cache(backend) for _ in range(4)]
    origin.stop_readers()
    reads = [asyncio.create_task(read(each, origin)) for each in caches for _ in range(25)]
    await origin.has_read.wait()
    origin.gate.set()
    assert set(await asyncio.gather(*reads)) == {b"1"}
    assert origin.reads == 1


async def test_a_leader_that_leaves_stops_neither_the_work_nor_its_followers(cache: Cache) -> None:
    origin = Origin()
    origin.stop_readers()
    leader = asyncio.create_task(read(cache, origin))
    await origin.has_read.wait()
    followers = [asyncio.create_task(read(cache, origin)) for _ in range(50)]
    await asyncio.sleep(0)
    leader.cancel()
    followers[0].cancel()
    origin.gate.set()
    assert await asyncio.gather(*followers[1:]) == [b"1"] * 49
    assert origin.reads == 1


async def test_the_lock_of_a_killed_process_expires() -> None:
    now = 0.0
    backend, origin = InMemoryBackend(clock=lambda: now), Origin()
    await backend.begin("key", ["tag"], "killed")
    waiting = asyncio.create_task(read(Cache(backend), origin))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    now = 10.0
    assert await waiting == b"1"


async def test_a_process_that_finds_out_nothing_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.cache.flights.TURN_SECONDS", 0.05)
    backend, origin = InMemoryBackend(), Origin()
    begun = await backend.begin("key", ["tag"], "elsewhere")
    assert begun.owner
    async with asyncio.timeout(1):
        assert await read(Cache(backend), origin) == b"1"
    assert (await backend.begin("key", ["tag"], "elsewhere")).owner, "its lock is still its own"


async def test_at_shutdown_flights_land_within_the_grace_period(cache: Cache) -> None:
    origin = Origin()
    origin.stop_readers()
    reading = asyncio.create_task(read(cache, origin))
    await origin.has_read.wait()
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0)
    origin.gate.set()
    await closing
    assert await reading == b"1"


async def test_a_flight_that_does_not_land_is_cancelled_at_shutdown(cache: Cache) -> None:
    origin = Origin()
    origin.stop_readers()
    reading = asyncio.create_task(read(cache, origin))
    await origin.has_read.wait()
    flights: Flights = cache.flights
    await flights.drain(0.01)
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_what_is_owed_when_a_lookup_begins_is_not_served_though_it_lands_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.cache.writes.RETRY_SECONDS", 0)
    backend = Refusing()
    cache, origin = Cache(backend), Origin()
    assert await read(cache, origin) == b"1"
    backend.refuses, origin.value = True, 2
    await cache.invalidate("tag")
    assert cache.pending == 1
    backend.cache = cache
    assert await read(cache, origin) == b"2"
    assert cache.pending == 0


class Refusing(InMemoryBackend):
    """Takes an invalidation at last when it has answered a lookup that was sent before."""

    refuses = False
    cache: Cache | None = None

    async def read(self, key: str, tags: Sequence[str], local: float = 0) -> Found:
        found = await super().read(key, tags, local)
        if self.cache is not None:
            self.refuses = False
            async with asyncio.timeout(5):
                while self.cache.pending:
                    await asyncio.sleep(0)
        return found

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        if self.refuses:
            raise CacheUnavailable
        await super().release(tags, writer, changed=changed)
