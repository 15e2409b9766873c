"""What happens while a run lasts: to Redis, to the way there, and to COMMITs on their way."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

import redis.asyncio

from tests.faults import Fault, FaultProxy, fault_proxy
from tests.proxies import CommitProxy, commit_proxy
from tests.services import Kind, StoppableRedis, address_for_peers, stoppable_redis
from tests.torture.history import LATE_COMMIT, Event

T = TypeVar("T")

CALM_SECONDS, FAULT_SECONDS = (0.2, 1.5), (0.05, 0.8)
# How much older a state is than the one that it replaces.
LAG_SECONDS = (0.1, 1.0)
AIM_SECONDS = 1.0
# COMMITs of so long a time come so much later: longer than their client waits, or nearly.
LATE_SECONDS, COMMIT_DELAY_SECONDS = 0.15, (0.7, 4.0)
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.01

# Redis answers reads then, and refuses writes: how that begins, and how it ends.
REFUSALS = {
    "readonly": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "noreplicas": ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    "denied": ("ACL SETUSER default -eval -evalsha", "ACL SETUSER default +eval +evalsha"),
    "paused": ("CLIENT PAUSE 10000 WRITE", "CLIENT UNPAUSE"),
    "full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
}
KINDS = (
    *("flush", "flush", "cut", "reset", "reset", "silence", "refuse", "delay"),
    *("snapshot", "snapshot", "failover", "failover", *REFUSALS, LATE_COMMIT),
)


class Running(Protocol):
    """The run that is harmed."""

    rng: Random

    @property
    def is_over(self) -> bool: ...
    def record(self, event: Event) -> None: ...
    async def next(self, what: str, number: int | None, seconds: float) -> Event: ...


@dataclass(slots=True)
class Faults:
    """`servers`: the one that is used, and the one that takes over. The proxies run in `there`."""

    servers: tuple[StoppableRedis, StoppableRedis]
    redis_proxy: FaultProxy
    commit_proxy: CommitProxy
    there: asyncio.AbstractEventLoop
    kinds: Sequence[str]

    async def keep_harming_redis(self, run: Running) -> None:
        kinds = [kind for kind in self.kinds if kind != LATE_COMMIT]
        while kinds and not run.is_over:
            await asyncio.sleep(run.rng.uniform(*CALM_SECONDS))
            kind, seconds = run.rng.choice(kinds), run.rng.uniform(*FAULT_SECONDS)
            lag = run.rng.uniform(*LAG_SECONDS)
            if kind == "snapshot":
                await _command(self.servers[0], "CONFIG SET save ''")
                await _command(self.servers[0], "SAVE")
                await asyncio.sleep(lag)
            elif kind == "failover":
                await self._copy()
                await asyncio.sleep(lag)
            # Between hold and COMMIT, or just before the hold, it matters most.
            if aim := run.rng.choice(("held", "intent", "")):
                with contextlib.suppress(TimeoutError):
                    await run.next(aim, None, AIM_SECONDS)
            began = time.monotonic()
            await self._harm(kind, seconds)
            run.record(Event(0, "fault", kind, 0, began, time.monotonic()))

    async def keep_delaying_commits(self, run: Running) -> None:
        while LATE_COMMIT in self.kinds and not run.is_over:
            await asyncio.sleep(run.rng.uniform(*CALM_SECONDS))
            with contextlib.suppress(TimeoutError):
                await run.next("held", None, AIM_SECONDS)
            began, delay = time.monotonic(), run.rng.uniform(*COMMIT_DELAY_SECONDS)
            self.commit_proxy.delay_seconds = delay
            await asyncio.sleep(LATE_SECONDS)
            self.commit_proxy.delay_seconds = 0.0
            run.record(Event(0, "fault", LATE_COMMIT, 0, began, time.monotonic() + delay))

    async def _harm(self, kind: str, seconds: float) -> None:
        server = self.servers[0]
        match kind:
            case "flush":
                await _command(server, "FLUSHALL")
            case "snapshot":
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(server.start)
            case "failover":
                self.servers = (self.servers[1], server)
                await self._there(self.redis_proxy.lead_to(self.servers[0].url))
            case "cut" | "reset":
                await self._become(kind)
                await self._become("none")
            case "silence" | "refuse" | "delay":
                await self._become(kind)
                await asyncio.sleep(seconds)
                await self._become("none")
            case _:
                begin, end = REFUSALS[kind]
                await _command(server, begin)
                await asyncio.sleep(seconds)
                await _command(server, end)

    async def _copy(self) -> None:
        """The other server becomes a replica, and misses what comes from now on."""
        server, replica = self.servers
        host, port = address_for_peers(server)
        await _command(server, "CONFIG SET repl-diskless-sync-delay 0")
        await _command(replica, f"REPLICAOF {host} {port}")
        async with asyncio.timeout(ANSWER_SECONDS):
            while "'master_link_status': 'up'" not in await _command(replica, "INFO replication"):
                await asyncio.sleep(POLL_SECONDS)
        await _command(replica, "REPLICAOF NO ONE")

    async def _become(self, fault: Fault) -> None:
        await self._there(self.redis_proxy.become(fault))

    async def _there(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awaited(), self.there))


async def _command(server: StoppableRedis, text: str) -> str:
    async with redis.asyncio.Redis.from_url(server.url, socket_timeout=ANSWER_SECONDS) as client:
        words = [word.strip("'") for word in text.split()]
        return repr(await client.execute_command(*words))  # type: ignore[no-untyped-call]


@asynccontextmanager
async def faults_before(
    kind: Kind, database_url: str, kinds: Sequence[str]
) -> AsyncIterator[tuple[Faults, str, str]]:
    """The faults, and the URLs that lead through them: of PostgreSQL, and of Redis.

    The proxies have a thread of their own, so that they are not late when the run is busy.
    """
    here = asyncio.get_running_loop()
    ready: asyncio.Future[tuple[Faults, str, str]] = here.create_future()
    over = asyncio.Event()

    async def host(servers: tuple[StoppableRedis, StoppableRedis]) -> None:
        async with AsyncExitStack() as stack:
            redis_proxy, cache_url = await stack.enter_async_context(fault_proxy(servers[0].url))
            commits, late_url = await stack.enter_async_context(commit_proxy(database_url))
            faults = Faults(servers, redis_proxy, commits, asyncio.get_running_loop(), kinds)
            here.call_soon_threadsafe(ready.set_result, (faults, late_url, cache_url))
            await over.wait()

    with ExitStack() as stack:
        servers = (
            stack.enter_context(stoppable_redis(kind)),
            stack.enter_context(stoppable_redis(kind)),
        )
        thread = threading.Thread(target=lambda: asyncio.run(host(servers)))
        thread.start()
        faults, late_url, cache_url = await ready
        try:
            yield faults, late_url, cache_url
        finally:
            faults.there.call_soon_threadsafe(over.set)
            await asyncio.to_thread(thread.join)
