"""The local tier over real Redis: what it spares, how soon a write elsewhere is seen, and what
silence, cuts and refusals do to it.

Two caches stand for two processes: they share nothing but the server and the origin.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import hiredis
import pytest
import redis.asyncio

from app.cache import Cache, RedisBackend
from app.cache.backends.base import REQUEST_BUDGET_SECONDS, Found
from app.cache.backends.redis.local import PROOF_SECONDS
from app.cache.entry import Entry
from app.cache.events import Counters
from app.cache.flights import Miss
from app.cache.policy import EVERYTHING, Policy
from app.cache.reads import Learned
from app.cache.store import Computed
from tests.faults import fault_proxy
from tests.proxies import Valve, valve
from tests.services import Services, StoppableRedis, stoppable_redis

PAGE, TAG = "page", "pages"
LOCAL_SECONDS = 600
DEADLINE_SECONDS, POLL_SECONDS = 10, 0.002
# For tests that are not about a slow Redis: no stall of the machine is a failure of it.
PATIENT_SECONDS = 5
MANY = 50


class Origin:
    """What is cached: a number that counts up with each write."""

    def __init__(self) -> None:
        self.version, self.reads = 1, 0

    async def compute(self) -> Computed:
        self.reads += 1
        return Computed(b"%d" % self.version)


class Process:
    """A process of a service, as far as its cache goes."""

    def __init__(self, backend: RedisBackend, origin: Origin) -> None:
        self.backend, self.origin = backend, origin
        self.cache = Cache(backend)

    async def read(self, page: str = PAGE, *, local: float = LOCAL_SECONDS, tag: str = TAG) -> int:
        """The version that a client is shown."""
        policy = Policy(expire=3600, local=local)
        miss = Miss(page, [tag, EVERYTHING], policy, Learned(page, policy), self.origin.compute)
        return int(await self.cache.fetch(miss))

    async def write(self) -> None:
        """Returns when Redis has taken the invalidation, as a write that is acknowledged."""
        self.origin.version += 1
        await self.backend.release([TAG], "", changed=True)

    async def until_shown(self, version: int) -> float:
        """When the last read began that was shown less, by `monotonic`."""
        last = time.monotonic()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                began = time.monotonic()
                if await self.read() >= version:
                    return last
                last = began
                await asyncio.sleep(POLL_SECONDS)


class Sent(list[tuple[str | int, ...]]):
    """The commands that were sent to Redis, by whichever cache."""

    async def until_nothing_for(self, process: Process, page: str = PAGE, **kwargs: str) -> int:
        """Until a read is a local hit; gives what it was shown."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                self.clear()
                reads = process.origin.reads
                shown = await process.read(page, **kwargs)  # type: ignore[arg-type]
                if not self and process.origin.reads == reads:
                    return shown
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def running(
    url: str, origin: Origin, *, wait: float = PATIENT_SECONDS
) -> AsyncIterator[Process]:
    backend = RedisBackend(url, name="test", recorder=Counters(), timeout=wait)
    process = Process(backend, origin)
    try:
        yield process
    finally:
        await process.cache.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(POLL_SECONDS)


@pytest.fixture(scope="module")
def quiet_redis(services: Services) -> Iterator[StoppableRedis]:
    """A server of our own: where other tests empty their database, local hits end here too."""
    with stoppable_redis(services.kind) as server:
        yield server


@pytest.fixture
async def server(quiet_redis: StoppableRedis) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(quiet_redis.url) as client:
        await client.flushall()
        yield client


@pytest.fixture
def url(quiet_redis: StoppableRedis, server: redis.asyncio.Redis) -> str:
    return quiet_redis.url


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
async def a(url: str, origin: Origin) -> AsyncIterator[Process]:
    async with running(url, origin) as process:
        yield process


@pytest.fixture
async def b(url: str, origin: Origin) -> AsyncIterator[Process]:
    async with running(url, origin) as process:
        yield process


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    commands, pack = Sent(), hiredis.pack_command

    def noted(command: tuple[str | int, ...]) -> bytes:
        commands.append(command)
        packed: bytes = pack(command)  # type: ignore[arg-type]
        return packed

    monkeypatch.setattr(hiredis, "pack_command", noted)
    return commands


@pytest.fixture
def lasting_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """With this, local hits do not end because a proof is over, but for the reason under test."""
    monkeypatch.setattr("app.cache.backends.redis.local.PROOF_SECONDS", 600)


# What it spares.


async def test_local_hits_cost_redis_a_question_now_and_then(a: Process, sent: Sent) -> None:
    await sent.until_nothing_for(a)
    sent.clear()
    reads, end = 0, time.monotonic() + 2 * PROOF_SECONDS
    while time.monotonic() < end:
        assert await a.read() == 1
        reads += 1
        await asyncio.sleep(POLL_SECONDS)
    assert ("INFO", "replication") in sent
    assert len(sent) < reads / 5


async def test_a_policy_without_local_always_asks(a: Process, b: Process, sent: Sent) -> None:
    for version in range(1, 10):
        await sent.until_nothing_for(a)
        sent.clear()
        assert await a.read(local=0) == version
        assert sent
        await b.write()
        assert await a.read(local=0) == version + 1


# How soon a write is seen.


@pytest.mark.usefixtures("lasting_proof")
async def test_a_write_elsewhere_is_seen_as_soon_as_redis_has_told(
    a: Process, b: Process, sent: Sent
) -> None:
    delays = []
    for version in range(2, 22):
        await sent.until_nothing_for(a)
        await b.write()
        written = time.monotonic()
        delays.append(await a.until_shown(version) - written)
    assert statistics.median(delays) < PROOF_SECONDS / 5


async def test_what_a_process_writes_its_next_read_sees_before_redis_has_told(
    url: str, origin: Origin, sent: Sent
) -> None:
    async with valve(url) as (redis_says, through), running(through, origin) as a:
        await sent.until_nothing_for(a)
        redis_says.holds = "news"
        await a.write()
        read = asyncio.create_task(a.read())
        await until(lambda: read.done() or len(redis_says.pieces) >= 2)  # its answer is held too
        redis_says.open()
        assert await read == 2


@asynccontextmanager
async def answer_under_way(
    url: str, origin: Origin, b: Process, sent: Sent
) -> AsyncIterator[tuple[Process, Valve, Awaitable[int]]]:
    """A process, and a read of it that Redis has answered, but the answer has not arrived yet."""
    async with valve(url) as (redis_says, through), running(through, origin) as a:
        await sent.until_nothing_for(a, "another", tag="others")
        await sent.until_nothing_for(b)
        redis_says.holds = "everything"
        read = asyncio.create_task(a.read())
        await until(lambda: not all(piece.startswith(b">") for piece in redis_says.pieces))
        yield a, redis_says, read


@pytest.mark.usefixtures("lasting_proof")
async def test_an_answer_from_before_a_write_elsewhere_does_not_outlive_the_news_of_it(
    url: str, origin: Origin, b: Process, sent: Sent
) -> None:
    async with answer_under_way(url, origin, b, sent) as (a, redis_says, read):
        await b.write()
        await until(lambda: redis_says.holds_news)
        redis_says.let_answers_through()
        assert await read == 1  # it began before the write
        redis_says.open()
        await a.until_shown(2)
        for _ in range(MANY):
            assert await a.read() == 2


async def test_an_answer_from_before_an_own_write_is_not_used_after_it(
    url: str, origin: Origin, b: Process, sent: Sent
) -> None:
    async with answer_under_way(url, origin, b, sent) as (a, redis_says, early):
        write = asyncio.create_task(a.write())
        await until(lambda: redis_says.holds_news)
        redis_says.let_answers_through()  # but not the news that one of them is outdated
        assert await early == 1
        await write
        late = asyncio.create_task(a.read())
        await until(lambda: late.done() or len(redis_says.pieces) >= 2)
        redis_says.open()
        assert await late == 2


# What faults do to it.


@pytest.mark.usefixtures("lasting_proof")
async def test_a_flush_ends_local_hits_of_all_tags(
    a: Process, server: redis.asyncio.Redis, sent: Sent
) -> None:
    await sent.until_nothing_for(a)
    await sent.until_nothing_for(a, "other", tag="other")
    a.origin.version = 2
    await server.flushall()
    await a.until_shown(2)
    assert await a.read("other", tag="other") == 2


@pytest.mark.usefixtures("lasting_proof")
async def test_a_closed_connection_ends_local_hits_until_there_is_another(
    url: str, origin: Origin, b: Process, sent: Sent
) -> None:
    async with (
        fault_proxy(url) as (proxy, through),
        running(through, origin, wait=REQUEST_BUDGET_SECONDS) as a,
    ):
        await sent.until_nothing_for(a)
        await proxy.become("cut")
        await b.write()
        await a.until_shown(2)
        await proxy.become("none")
        assert await sent.until_nothing_for(a) == 2


# With the second, silence is no failure yet when the last answer is too old.
@pytest.mark.parametrize("wait", [REQUEST_BUDGET_SECONDS, 1.2 * PROOF_SECONDS])
async def test_a_silent_connection_ends_local_hits_when_its_last_answer_is_too_old(
    url: str, origin: Origin, b: Process, sent: Sent, wait: float
) -> None:
    async with (
        fault_proxy(url) as (proxy, through),
        running(through, origin, wait=wait) as a,
    ):
        await sent.until_nothing_for(a)
        await proxy.become("silence")
        silent = time.monotonic()
        await b.write()  # a is not told

        assert await a.until_shown(2) < silent + PROOF_SECONDS
        reads = origin.reads
        for _ in range(MANY):
            assert await a.read() == 2
        assert origin.reads == reads + MANY

        await proxy.become("none")
        reads = origin.reads
        assert await sent.until_nothing_for(a) == 2
        for _ in range(MANY):
            assert await a.read() == 2


async def test_a_server_that_refuses_to_track_caches_without_local_hits(
    url: str,
    server: redis.asyncio.Redis,
    origin: Origin,
    b: Process,
    sent: Sent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await server.acl_setuser(
        "limited",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        categories=["+@all"],
        commands=["-client|tracking"],
    )
    async with running(url.replace("//", "//limited:secret@"), origin) as a:
        await assert_it_caches_without_local_hits(a, b, sent)
    assert caplog.text.count("no local hits") == 1


async def test_a_server_that_cannot_push_caches_without_local_hits(
    url: str, origin: Origin, b: Process, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    async with valve(url) as (between, through), running(through, origin) as a:
        between.replaced = (b"HELLO", b"HALLO")  # which Redis does not know
        await assert_it_caches_without_local_hits(a, b, sent)
    assert caplog.text.count("no local hits") == 1


async def assert_it_caches_without_local_hits(a: Process, b: Process, sent: Sent) -> None:
    await sent.until_nothing_for(b)
    for _ in range(MANY):
        sent.clear()
        assert await a.read() == 1
        assert sent
    assert a.origin.reads == 1
    await b.write()
    assert await a.read() == 2


# Of an entry that is here, Redis is asked for the generations.


@pytest.fixture
async def stored(a: Process, b: Process) -> Entry:
    """An entry that both have read, whole, and that is valid."""
    generations, _, _ = await b.backend.begin(PAGE, [TAG], "reader")
    assert generations is not None
    fresh = int((time.time() + 600) * 1000)
    entry = Entry(1, fresh, fresh, fresh, 5, generations, b"old")
    await b.backend.store(PAGE, [TAG], entry, 600)
    for process in (a, b):
        assert await process.backend.read(PAGE, [TAG]) == Found(entry, generations, valid=True)
    return entry


async def test_of_an_entry_that_is_here_redis_is_asked_for_the_generations(
    a: Process, stored: Entry, sent: Sent
) -> None:
    sent.clear()
    assert await a.backend.read(PAGE, [TAG]) == Found(stored, stored.generations, valid=True)
    assert sent == [("MGET", "test:g:{pages}")]


async def test_a_big_body_crosses_the_network_once(
    url: str, b: Process, stored: Entry, sent: Sent
) -> None:
    body = b"x" * 500_000
    await b.backend.store(PAGE, [TAG], replace(stored, payload=body), 600)
    async with valve(url) as (redis_says, through), running(through, b.origin) as a:
        for _ in range(MANY):
            entry = (await a.backend.read(PAGE, [TAG])).entry
            assert entry is not None and entry.payload == body
        assert len(body) < redis_says.answered_bytes < 1.1 * len(body)


async def test_what_another_process_made_anew_is_read_when_the_copy_is_not_fresh(
    a: Process, b: Process, stored: Entry
) -> None:
    fresh_until = int(time.time() * 1000) + 100
    old = replace(stored, fresh_until=fresh_until)
    await b.backend.store("short", [TAG], old, 600)
    assert (await a.backend.read("short", [TAG])).entry == old
    new = replace(stored, payload=b"new")
    await b.backend.store("short", [TAG], new, 600)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (found := await a.backend.read("short", [TAG])).entry == old:
            assert time.time() * 1000 < fresh_until + 1000 * PATIENT_SECONDS
            await asyncio.sleep(POLL_SECONDS)
    assert found == Found(new, stored.generations, valid=True)
    assert time.time() * 1000 >= fresh_until


async def test_an_invalidation_elsewhere_is_noticed_although_the_entry_is_the_same(
    a: Process, b: Process, stored: Entry
) -> None:
    await b.write()
    assert await a.backend.read(PAGE, [TAG]) == Found(stored, None)


async def test_what_another_process_made_after_an_invalidation_replaces_the_copy(
    a: Process, b: Process, stored: Entry
) -> None:
    await b.write()
    generations, _, _ = await b.backend.begin(PAGE, [TAG], "reader")
    assert generations is not None
    new = replace(stored, generations=generations, payload=b"new")
    await b.backend.store(PAGE, [TAG], new, 600)
    found = await asyncio.gather(*(a.backend.read(PAGE, [TAG]) for _ in range(MANY)))
    assert found == [Found(new, generations, valid=True)] * MANY


async def test_what_a_process_clears_it_does_not_find_before_redis_has_told(
    url: str, origin: Origin, sent: Sent
) -> None:
    async with valve(url) as (redis_says, through), running(through, origin) as a:
        await sent.until_nothing_for(a)
        redis_says.holds = "news"
        await a.cache.clear()
        sent.clear()
        read = asyncio.create_task(a.read())
        await until(lambda: bool(sent))
        redis_says.open()
        await read
        assert origin.reads == 2


async def test_a_flush_is_noticed_although_a_copy_is_here(
    a: Process, stored: Entry, server: redis.asyncio.Redis
) -> None:
    await server.flushall()
    assert (await a.backend.read(PAGE, [TAG])).generations is None


async def test_entries_of_several_reads_of_one_turn_are_each_its_own(
    a: Process, b: Process, stored: Entry
) -> None:
    """Some are here, some are new, some are not there."""
    entries = {str(n): replace(stored, payload=b"%d" % n) for n in range(6)}
    for key, entry in entries.items():
        await b.backend.store(key, [TAG], entry, 600)
    for key in "0123":
        await a.backend.read(key, [TAG])
    found = await asyncio.gather(*(a.backend.read(key, [TAG]) for key in "01234567"))
    assert [each.entry for each in found] == [*entries.values(), None, None]
