"""One contract, every backend: memory, and the Redis or Valkey server of this run."""

import asyncio
from collections.abc import AsyncIterator

import hiredis
import pytest
import redis.asyncio

from app.cache import CacheUnavailable, InMemoryBackend, RedisBackend
from app.cache.backends.base import Backend, Found, Generations
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.events import Counters

KEY, TAGS = "key", ["countries", "country:FR"]
ENTRY = Entry(1, 2, 3, 4, 5, dict.fromkeys(TAGS, b"g" * GENERATION_BYTES), b"\x00value")


@pytest.fixture(params=["memory", "redis"])
async def backend(request: pytest.FixtureRequest, cache_url: str) -> AsyncIterator[Backend]:
    backend: Backend = InMemoryBackend()
    if request.param == "redis":
        backend = RedisBackend(cache_url, name="test", recorder=Counters(), timeout=1)
    yield backend
    await backend.aclose()


@pytest.fixture
async def server(cache_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(cache_url) as client:
        yield client


async def begin(backend: Backend, token: str = "reader") -> Generations | None:
    return (await backend.begin(KEY, TAGS, token))[0]


async def test_nothing_is_there_at_first(backend: Backend) -> None:
    assert await backend.read(KEY, TAGS) == Found(None, None)


async def test_begin_makes_generations_and_keeps_them(backend: Backend) -> None:
    generations = await begin(backend)
    assert generations is not None
    assert [*generations] == TAGS
    assert {len(each) for each in generations.values()} == {GENERATION_BYTES}
    assert await begin(backend) == generations
    assert await backend.read(KEY, TAGS) == Found(None, generations)


async def test_an_entry_is_read_with_its_generations(backend: Backend) -> None:
    generations = await begin(backend)
    await backend.store(KEY, TAGS, ENTRY, 60)
    assert await backend.read(KEY, TAGS) == Found(ENTRY, generations)
    assert await backend.read("other", TAGS) == Found(None, generations)


async def test_an_entry_expires(backend: Backend) -> None:
    await backend.store(KEY, TAGS, ENTRY, 0.01)
    await asyncio.sleep(0.02)
    assert (await backend.read(KEY, TAGS)).entry is None


async def test_a_hold_ends_the_generations_and_prevents_new_ones(backend: Backend) -> None:
    await begin(backend)
    await backend.hold(TAGS[:1], "writer")
    assert await backend.read(KEY, TAGS) == Found(None, None)
    assert await begin(backend) is None
    assert (await backend.begin(KEY, TAGS[1:], "reader"))[0] is not None


async def test_after_the_release_there_are_other_generations(backend: Backend) -> None:
    before = await begin(backend)
    await backend.hold(TAGS, "writer")
    await backend.release(TAGS, "writer", changed=True)
    after = await begin(backend)
    assert after is not None
    assert after != before


async def test_a_release_without_a_hold_ends_the_generations(backend: Backend) -> None:
    await begin(backend)
    await backend.release(TAGS[1:], "", changed=True)
    assert await backend.read(KEY, TAGS) == Found(None, None)


async def test_each_of_two_writers_holds_on_its_own(backend: Backend) -> None:
    await backend.hold(TAGS, "first")
    await backend.hold(TAGS, "second")
    await backend.release(TAGS, "first", changed=True)
    assert await begin(backend) is None
    await backend.release(TAGS, "second", changed=False)
    assert await begin(backend) is not None


async def test_the_hold_of_a_killed_writer_ends(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.backends.memory.HOLD_SECONDS", 0.01)
    monkeypatch.setattr("app.cache.backends.redis.backend.HOLD_SECONDS", 0.01)
    await backend.hold(TAGS, "killed")
    async with asyncio.timeout(5):
        while await begin(backend) is None:
            await asyncio.sleep(0.01)


async def test_one_at_a_time_has_the_lock(backend: Backend) -> None:
    assert (await backend.begin(KEY, TAGS, "one")).owner
    assert not (await backend.begin(KEY, TAGS, "two")).owner
    assert (await backend.begin("other", TAGS, "two"))[1]
    await backend.unlock(KEY, TAGS, "two")
    assert not (await backend.begin(KEY, TAGS, "two"))[1]
    await backend.unlock(KEY, TAGS, "one")
    assert (await backend.begin(KEY, TAGS, "two"))[1]


async def test_a_lock_from_before_an_invalidation_holds_nobody_up(backend: Backend) -> None:
    assert (await backend.begin(KEY, TAGS, "slow"))[1]
    await backend.release(TAGS, "", changed=True)
    assert (await backend.begin(KEY, TAGS, "late"))[1]


async def test_the_lock_of_a_killed_process_ends(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.backends.memory.LOCK_SECONDS", 0.01)
    monkeypatch.setattr("app.cache.backends.redis.backend.LOCK_SECONDS", 0.01)
    await backend.begin(KEY, TAGS, "killed")
    async with asyncio.timeout(5):
        while not (await backend.begin(KEY, TAGS, "next"))[1]:
            await asyncio.sleep(0.01)


@pytest.fixture
async def redis_backend(cache_url: str) -> AsyncIterator[RedisBackend]:
    backend = RedisBackend(cache_url, name="test", recorder=Counters(), timeout=1)
    yield backend
    await backend.aclose()


async def test_a_flushed_server_is_empty_and_works(
    redis_backend: RedisBackend, server: redis.asyncio.Redis
) -> None:
    await begin(redis_backend)
    await redis_backend.store(KEY, TAGS, ENTRY, 60)
    await server.flushall()
    assert await redis_backend.read(KEY, TAGS) == Found(None, None)
    assert await begin(redis_backend, "another") is not None


async def test_keys_of_a_wrong_type_are_missing_and_replaced(
    redis_backend: RedisBackend, server: redis.asyncio.Redis
) -> None:
    await server.lpush("test:e:key", "x")
    await server.lpush("test:g:{countries}", "x")
    assert await redis_backend.read(KEY, TAGS) == Found(None, None)
    assert await begin(redis_backend) is not None


async def test_everything_expires(redis_backend: RedisBackend, server: redis.asyncio.Redis) -> None:
    await begin(redis_backend)
    await redis_backend.store(KEY, TAGS, ENTRY, 60)
    await redis_backend.hold(["held"], "writer")
    keys = await server.keys("*")
    assert len(keys) == 5  # entry, two generations, lock, holders
    for key in keys:
        assert await server.pttl(key) > 0, key


async def test_reads_of_one_turn_are_one_command(
    redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[str, ...]] = []
    pack = hiredis.pack_command

    def noted(command: tuple[str, ...]) -> bytes:
        commands.append(command)
        packed: bytes = pack(command)  # type: ignore[arg-type]
        return packed

    await redis_backend.read(KEY, TAGS)
    monkeypatch.setattr("app.cache.backends.redis.connection.hiredis.pack_command", noted)
    await asyncio.gather(*(redis_backend.read(f"key{n % 5}", TAGS) for n in range(100)))
    ((name, *keys),) = commands
    assert (name, len(keys)) == ("MGET", 5 + len(TAGS))


async def test_an_answer_that_cannot_be_used_fails_its_reads_and_no_later_ones(
    redis_backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(_: bytes) -> Entry:
        raise ValueError

    await redis_backend.store(KEY, TAGS, ENTRY, 60)
    with monkeypatch.context() as broken:
        broken.setattr(Entry, "decode", raising)
        async with asyncio.timeout(5):
            with pytest.raises(CacheUnavailable):
                await redis_backend.read(KEY, TAGS)
    async with asyncio.timeout(5):
        assert await redis_backend.read(KEY, TAGS) == Found(ENTRY, None)


async def test_a_generation_lives_shortly_and_then_as_long_as_what_is_stored_with_it(
    redis_backend: RedisBackend, server: redis.asyncio.Redis
) -> None:
    await begin(redis_backend)
    assert 0 < await server.pttl("test:g:{countries}") <= 120_000
    for seconds in (10, 1000, 10):
        await redis_backend.store(KEY, TAGS, ENTRY, seconds)
    assert await server.pttl("test:g:{countries}") > 900_000
    assert await begin(redis_backend) is not None
    assert await server.pttl("test:g:{countries}") > 900_000
