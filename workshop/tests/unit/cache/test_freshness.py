"""Expiry, stale entries and errors, with the clock and the dice in our hands."""

import random

import pytest

from app.cache import Cache, InMemoryBackend
from app.cache.backends.base import Found
from app.cache.backends.memory import MAX_TAGS
from app.cache.entry import Entry
from app.cache.flights import Miss
from app.cache.policy import Policy
from app.cache.reads import Learned
from app.cache.store import Computed


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class NoJitter(random.Random):
    def random(self) -> float:
        return 0.0


class Origin:
    def __init__(self) -> None:
        self.value, self.fails, self.reads = 1, False, 0

    async def compute(self) -> Computed:
        self.reads += 1
        if self.fails:
            raise ConnectionError("the database is down")
        return Computed(str(self.value).encode())


def entry(payload: bytes) -> Entry:
    return Entry(0, 0, 0, 0, 0, {}, payload)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> Cache:
    return Cache(InMemoryBackend(clock=clock), clock=clock, rng=NoJitter())


async def read(cache: Cache, policy: Policy, origin: Origin) -> bytes:
    return await cache.fetch(Miss("key", ["tag"], policy, Learned("key", policy), origin.compute))


async def test_an_entry_expires(cache: Cache, clock: Clock) -> None:
    origin, policy = Origin(), Policy(10)
    await read(cache, policy, origin)
    clock.now += 9.9
    await read(cache, policy, origin)
    assert origin.reads == 1
    clock.now += 0.2
    await read(cache, policy, origin)
    assert origin.reads == 2


async def test_entries_stored_together_do_not_expire_together(clock: Clock) -> None:
    backend = InMemoryBackend(clock=clock)
    cache = Cache(backend, clock=clock, rng=random.Random(1))
    policy = Policy(100)
    learned = Learned("numbers", policy)
    for number in range(20):
        await cache.fetch(Miss(str(number), ["tag"], policy, learned, Origin().compute))
    clock.now += 95
    states = [(await cache.store.lookup(str(number), ["tag"])).state for number in range(20)]
    assert {"fresh"} < set(states)


async def test_a_stale_entry_is_served_while_one_refresh_runs(cache: Cache, clock: Clock) -> None:
    origin, policy = Origin(), Policy(10, stale=60)
    await read(cache, policy, origin)
    clock.now += 11
    origin.value = 2
    assert [await read(cache, policy, origin) for _ in range(3)] == [b"1"] * 3
    await cache.flights.drain(1)
    assert origin.reads == 2
    assert await read(cache, policy, origin) == b"2"


async def test_one_process_refreshes_for_all(clock: Clock) -> None:
    backend, origin, policy = InMemoryBackend(clock=clock), Origin(), Policy(10, stale=60)
    caches = [Cache(backend, clock=clock, rng=NoJitter()) for _ in range(4)]
    await read(caches[0], policy, origin)
    clock.now += 11
    for cache in caches:
        assert await read(cache, policy, origin) == b"1"
    for cache in caches:
        await cache.flights.drain(5)
    assert origin.reads == 2


async def test_a_stale_entry_is_better_than_an_error(cache: Cache, clock: Clock) -> None:
    origin, policy = Origin(), Policy(10, stale_if_error=60)
    await read(cache, policy, origin)
    origin.fails = True
    clock.now += 11
    assert await read(cache, policy, origin) == b"1"
    clock.now += 60
    with pytest.raises(ConnectionError):
        await read(cache, policy, origin)


@pytest.mark.parametrize("policy", [Policy(10, stale=60), Policy(10, stale_if_error=60)])
async def test_what_was_invalidated_is_never_served_as_stale(
    cache: Cache, clock: Clock, policy: Policy
) -> None:
    origin = Origin()
    await read(cache, policy, origin)
    clock.now += 11
    await cache.invalidate("tag")
    origin.fails = True
    with pytest.raises(ConnectionError):
        await read(cache, policy, origin)
    origin.fails, origin.value = False, 2
    assert await read(cache, policy, origin) == b"2"


@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_clock_that_jumps_makes_no_immortal_entry(jump: int) -> None:
    wall, life = Clock(), Clock()
    cache = Cache(InMemoryBackend(clock=life), clock=wall, rng=NoJitter())
    origin, policy = Origin(), Policy(10)
    await read(cache, policy, origin)
    wall.now += jump
    life.now += 11  # the backend counts the life of an entry by a clock of its own
    await read(cache, policy, origin)
    assert origin.reads == 2


async def test_the_cache_is_bounded_in_entries_and_bytes() -> None:
    backend = InMemoryBackend(max_entries=100, max_bytes=10_000)
    for number in range(1000):
        await backend.store(str(number), ["tag"], entry(b"x" * (number % 300)), 60)
    assert len(backend.entries) <= 100
    assert backend.entries.bytes <= 10_000
    assert backend.entries.bytes == sum(
        item.value[0].size
        for queue in (backend.entries._small, backend.entries._main)
        for item in queue.values()
    )


async def test_a_scan_does_not_push_out_what_is_read_all_the_time() -> None:
    backend, popular = InMemoryBackend(max_entries=100), entry(b"popular")
    for key in ("a", "b", "c"):
        await backend.store(key, ["tag"], popular, 60)
    for number in range(1000):
        await backend.store(str(number), ["tag"], entry(b"once"), 60)
        for key in ("a", "b", "c"):
            await backend.read(key, ["tag"])
    assert [(await backend.read(key, ["tag"])).entry for key in ("a", "b", "c")] == [popular] * 3


@pytest.fixture
async def hot() -> InMemoryBackend:
    """With an entry that is read now and then."""
    backend = InMemoryBackend()
    begun = await backend.begin("hot", ["hot", "GET /planets"], "reader")
    assert begun.generations is not None
    stored = Entry(0, 0, 0, 0, 0, begun.generations, b"hot")
    await backend.store("hot", ["hot", "GET /planets"], stored, 3600, "reader")
    return backend


async def is_hit(backend: InMemoryBackend) -> bool:
    found = await backend.read("hot", ["hot", "GET /planets"])
    return found.entry is not None and found.entry.generations == found.generations


@pytest.mark.parametrize(("times", "read"), [(1, True), (3, False)])
async def test_names_that_nobody_has_push_out_no_generation_that_an_entry_uses(
    hot: InMemoryBackend, times: int, read: bool
) -> None:
    for _ in range(times):
        for number in range(MAX_TAGS + 1_000):
            name = f"planet:{number}"
            await hot.read(name, [name, "GET /planets"])
            await hot.begin(name, [name, "GET /planets"], "reader")
            await hot.unlock(name, [name, "GET /planets"], "reader")
            if read and number % 10_000 == 0:
                assert await is_hit(hot)
    assert await is_hit(hot)
    assert len(hot._generations) == MAX_TAGS
    assert not hot._locks


async def test_a_writer_in_progress_is_not_pushed_out_by_names_that_nobody_has(
    hot: InMemoryBackend,
) -> None:
    await hot.hold(["hot"], "writer")
    for number in range(MAX_TAGS + 1_000):
        await hot.begin(str(number), [str(number)], "reader")
    assert (await hot.begin("hot", ["hot"], "reader")).generations is None
    await hot.release(["hot"], "writer", changed=True)
    assert (await hot.begin("hot", ["hot"], "reader")).generations is not None


async def test_two_memory_backends_share_nothing() -> None:
    one, other = InMemoryBackend(), InMemoryBackend()
    await one.store("key", ["tag"], entry(b"value"), 60)
    assert await other.read("key", ["tag"]) == Found(None, None)
