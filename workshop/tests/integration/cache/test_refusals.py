"""P1 and P4 with a Redis that answers and refuses, holds garbage, or talks nonsense."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from app.cache import Cache, open_cache
from app.cache.backends.redis.breaker import PROBE_INTERVAL_SECONDS
from app.cache.events import Counters
from app.cache.flights import Miss
from app.cache.policy import Policy
from app.cache.reads import Learned
from app.cache.store import Computed
from devtools import redis_server
from tests.proxies import liar

TAG = "pages"
DEADLINE_SECONDS, POLL_SECONDS = 10, 0.01
MANY = 20

Server = redis.asyncio.Redis


class Process:
    """A process of a service, as far as its cache goes; what it shows counts the writes."""

    def __init__(self, cache: Cache, counters: Counters) -> None:
        self.cache, self.counters = cache, counters
        self.version, self.reads = 1, 0

    async def _compute(self) -> Computed:
        self.reads += 1
        return Computed(b"%d" % self.version)

    async def read(self, page: str = "page") -> int:
        policy = Policy(expire=3600)
        miss = Miss(page, [TAG], policy, Learned(page, policy), self._compute)
        return int(await self.cache.fetch(miss))

    async def write(self) -> None:
        hold = await self.cache.writes.hold([TAG])
        self.version += 1
        await self.cache.writes.release(hold, changed=True)

    async def until_hit(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                reads = self.reads
                shown = await self.read()
                if self.reads == reads:
                    return shown
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Process]:
    counters = Counters()
    async with open_cache(url, name="test", recorder=counters) as cache:
        yield Process(cache, counters)


# What Redis refuses.


async def read_only(server: Server, _: Path) -> Callable[[], Awaitable[Any]]:
    await server.replicaof("127.0.0.1", "1")
    return lambda: server.replicaof("NO", "ONE")


async def too_few_replicas(server: Server, _: Path) -> Callable[[], Awaitable[Any]]:
    await server.config_set("min-replicas-to-write", 1)
    return lambda: server.config_set("min-replicas-to-write", 0)


async def disk_in_trouble(server: Server, folder: Path) -> Callable[[], Awaitable[Any]]:
    (folder / "dump.rdb").mkdir()
    await server.config_set("save", "3600 1")
    await server.bgsave()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await server.info("persistence"))["rdb_last_bgsave_status"] != "err":
            await asyncio.sleep(POLL_SECONDS)
    return lambda: server.config_set("save", "")


async def no_permission(server: Server, _: Path) -> Callable[[], Awaitable[Any]]:
    await server.acl_setuser("default", enabled=True, nopass=True, commands=["-evalsha", "-eval"])
    return lambda: server.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"])


async def paused_writes(server: Server, _: Path) -> Callable[[], Awaitable[Any]]:
    await server.client_pause(100_000, all=False)
    return server.client_unpause


REFUSALS = [read_only, too_few_replicas, disk_in_trouble, no_permission, paused_writes]


@pytest.mark.parametrize("refuse", REFUSALS)
async def test_a_server_that_refuses_writes_is_not_read_until_it_takes_them_again(
    refuse: Callable[[Server, Path], Awaitable[Callable[[], Awaitable[Any]]]], tmp_path: Path
) -> None:
    with redis_server(tmp_path) as server:
        async with Server.from_url(server.url) as admin, running(server.url) as process:
            await process.until_hit()
            relent = await refuse(admin, tmp_path)
            await process.write()
            end = time.monotonic() + 2 * PROBE_INTERVAL_SECONDS
            while time.monotonic() < end:
                reads = process.reads
                assert await process.read() == 2
                assert process.reads == reads + 1
                await asyncio.sleep(POLL_SECONDS)
            assert process.cache.pending
            assert process.counters.totals["breaker", "open"] == 1
            await relent()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while process.cache.pending:
                    await asyncio.sleep(POLL_SECONDS)
            assert await process.until_hit() == 2


async def test_a_server_that_is_out_of_memory_takes_invalidations_and_is_read() -> None:
    with redis_server(options={"maxmemory-policy": "noeviction"}) as server:
        async with Server.from_url(server.url) as admin, running(server.url) as process:
            await process.until_hit()
            await admin.config_set("maxmemory", 1)
            for number in range(MANY):  # none of these can be stored
                await process.read(str(number))
            reads = process.reads
            assert await process.read() == 1
            assert process.reads == reads, "what is there is served"
            hold = await process.cache.writes.hold([TAG])
            assert hold.told
            process.version += 1
            await process.cache.writes.release(hold, changed=True)
            assert not process.cache.pending
            assert await process.read() == 2
            assert not process.counters.totals["breaker", "open"]


async def test_scripts_that_redis_has_forgotten_are_loaded_again_without_losing_a_hold() -> None:
    with redis_server() as server:
        async with Server.from_url(server.url) as admin, running(server.url) as process:
            await process.until_hit()
            await admin.script_flush()
            hold = await process.cache.writes.hold([TAG])
            assert hold.told
            assert (await process.cache.backend.begin("page", [TAG], "t")).generations is None
            await admin.script_flush()
            process.version += 1
            await process.cache.writes.release(hold, changed=True)
            assert not process.cache.pending
            await admin.script_flush()
            assert await process.until_hit() == 2
            assert process.counters.totals["error", "hold"] == 0


async def test_a_large_write_sends_no_script_with_each_of_its_tags() -> None:
    with redis_server() as server:
        async with Server.from_url(server.url) as admin, running(server.url) as process:
            before = (await admin.info("stats"))["total_net_input_bytes"]
            tags = [f"book:{number}" for number in range(1000)]
            assert (await process.cache.writes.hold(tags)).told
            sent = (await admin.info("stats"))["total_net_input_bytes"] - before
            assert sent < 200 * len(tags)


# What other programs have put under our keys.


async def a_text(server: Server, key: str) -> None:
    await server.set(key, "garbage")


async def a_list(server: Server, key: str) -> None:
    await server.lpush(key, "garbage")


async def a_set_for_ever(server: Server, key: str) -> None:
    await server.zadd(key, {"garbage": "+inf"})


@pytest.mark.parametrize("put", [a_text, a_list, a_set_for_ever])
@pytest.mark.parametrize("kind", "ghl")
async def test_garbage_under_any_key_of_a_tag_neither_keeps_entries_valid_nor_stops_caching(
    put: Callable[[Server, str], Awaitable[None]], kind: str
) -> None:
    with redis_server() as server:
        async with Server.from_url(server.url) as admin, running(server.url) as process:
            key = f"test:{kind}:{{{TAG}}}" + (":page" if kind == "l" else "")

            async def put_garbage() -> None:
                await admin.delete(key)
                await put(admin, key)

            await process.until_hit()
            await put_garbage()
            await process.until_hit()
            hold = await process.cache.writes.hold([TAG])
            if kind == "h":
                await put_garbage()
            process.version += 1
            await process.cache.writes.release(hold, changed=True)
            assert not process.cache.pending
            await put_garbage()
            assert await process.read() == 2
            assert await process.until_hit() == 2


# What no Redis would say.

MILLION = b"1000000000"
LIES = {
    "a status": b"+OK\r\n",
    "a number": b":7\r\n",
    "nothing": b"$-1\r\n",
    "a short array": b"*1\r\n$-1\r\n",
    "an array of numbers": b"*2\r\n:1\r\n:2\r\n",
    "an array of arrays": b"*2\r\n*0\r\n*0\r\n",
    "an array without end": b"*" + MILLION + b"\r\n" + 100_000 * b"$1\r\nx\r\n",
    "such an array in an array": b"*2\r\n*" + MILLION + b"\r\n" + 100_000 * b"$1\r\nx\r\n",
    "two answers": b"*2\r\n$-1\r\n$-1\r\n*2\r\n$-1\r\n$-1\r\n",
    "no RESP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("about", [b"MGET", b"EVALSHA"])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_nonsense_costs_no_answer_and_stops_nothing(
    lie: bytes, about: bytes, cache_url: str
) -> None:
    async with liar(cache_url) as (proxy, url), running(url) as process:
        await process.until_hit()
        proxy.lie, proxy.about = lie, about
        started = time.monotonic()
        for page in ("page", "other", "another"):
            assert await process.read(page) == 1
        await process.write()
        assert await process.read() == 2
        assert time.monotonic() - started < 1
        proxy.lie = b""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while process.cache.pending:
                await asyncio.sleep(POLL_SECONDS)
        assert await process.until_hit() == 2
