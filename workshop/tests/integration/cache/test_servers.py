"""P1 with servers that come back with the past, change their role, or are none to be used.

The servers are real ones that the tests start, restart, demote and promote.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from app.cache import Cache, RedisBackend, open_cache
from app.cache.backends.base import UnsupportedServer
from app.cache.backends.redis.server import RECHECK_SECONDS
from app.cache.events import Counters
from app.cache.flights import Miss
from app.cache.policy import Policy
from app.cache.reads import Learned
from app.cache.store import Computed
from app.main import create_app
from devtools import Server, redis_server
from tests.clients import make_settings
from tests.services import SERVICE

TAG = "pages"
DEADLINE_SECONDS, POLL_SECONDS = 10, 0.01
# Where no failure of Redis is meant, no stall of the machine is one.
PATIENT_SECONDS = 5
MANY = 20
NOWHERE = ("127.0.0.1", "1")


class Origin:
    def __init__(self) -> None:
        self.version, self.reads = 1, 0

    async def compute(self) -> Computed:
        self.reads += 1
        return Computed(b"%d" % self.version)


class Process:
    """A process of a service, as far as its cache goes."""

    def __init__(self, cache: Cache, origin: Origin) -> None:
        self.cache, self.origin = cache, origin

    async def read(self, *, local: float = 0) -> int:
        policy = Policy(expire=3600, local=local)
        miss = Miss("page", [TAG], policy, Learned("page", policy), self.origin.compute)
        return int(await self.cache.fetch(miss))

    async def write(self) -> None:
        hold = await self.cache.writes.hold([TAG])
        self.origin.version += 1
        await self.cache.writes.release(hold, changed=True)
        assert not self.cache.writes.pending

    async def until_hit(self, *, local: float = 0) -> int:
        """What is shown when the origin is not asked."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                reads = self.origin.reads
                shown = await self.read(local=local)
                if self.origin.reads == reads:
                    return shown
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def running(url: str, origin: Origin) -> AsyncIterator[Process]:
    backend = RedisBackend(url, name="test", recorder=Counters(), timeout=PATIENT_SECONDS)
    cache = Cache(backend)
    try:
        yield Process(cache, origin)
    finally:
        await cache.aclose()


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(server.url, protocol=2) as made:
        yield made


async def replid(server: redis.asyncio.Redis) -> str:
    info: dict[str, str] = await server.info("replication")
    return info["master_replid"]


@contextmanager
def master_and_replica() -> Iterator[tuple[Server, Server]]:
    with redis_server() as master, redis_server() as replica:
        yield master, replica


async def replicate(master: Server, replica: redis.asyncio.Redis) -> None:
    """Until the replica has what the master has."""
    await replica.replicaof("127.0.0.1", str(urlsplit(master.url).port))
    async with client(master) as server:
        await server.set("marker", "here")
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await replica.get("marker") != b"here":
            await asyncio.sleep(POLL_SECONDS)


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.mark.parametrize("local", [0, 600])
async def test_a_server_that_restarts_from_an_old_snapshot_serves_nothing_of_it(
    origin: Origin, local: float
) -> None:
    with redis_server() as server:
        async with running(server.url, origin) as process, client(server) as admin:
            await process.until_hit(local=local)
            await admin.save()
            await process.write()
            server.stop()
            server.start()
            async with running(server.url, origin) as another:
                for _ in range(MANY):
                    assert await process.read(local=local) == 2
                    assert await another.read(local=local) == 2
            assert await process.until_hit() == 2


async def test_a_server_whose_append_only_file_lost_its_last_writes_serves_nothing_of_it(
    origin: Origin, tmp_path: Path
) -> None:
    with redis_server(tmp_path, options={"appendonly": "yes"}) as server:
        async with running(server.url, origin) as process, client(server) as admin:
            await process.until_hit()
            await admin.config_set("appendonly", "no")  # nothing that comes now is in the file
            await process.write()
            server.stop()
            server.start()
            async with client(server) as admin_again:
                assert await admin_again.exists("test:g:{pages}"), "the old generation is back"
            for _ in range(MANY):
                assert await process.read() == 2
            assert await process.until_hit() == 2


async def test_a_promoted_replica_that_missed_an_invalidation_serves_nothing_from_before(
    origin: Origin,
) -> None:
    with master_and_replica() as (master, replica):
        async with client(replica) as admin, running(master.url, origin) as process:
            await process.until_hit()
            await replicate(master, admin)
            await admin.replicaof(*NOWHERE)
            await process.write()
            await admin.replicaof("NO", "ONE")
            assert await admin.exists("test:g:{pages}"), "the old generation is there"
            async with running(replica.url, origin) as failed_over:
                for _ in range(MANY):
                    assert await failed_over.read() == 2
                assert await failed_over.until_hit() == 2


@pytest.mark.parametrize("local", [0, 600])
async def test_a_master_that_is_demoted_under_a_connection_is_used_no_longer(
    origin: Origin, local: float
) -> None:
    with master_and_replica() as (old, new):
        async with (
            client(old) as admin,
            running(old.url, origin) as here,
            running(new.url, origin) as elsewhere,
        ):
            await here.until_hit(local=local)
            await admin.replicaof(*NOWHERE)
            await elsewhere.write()
            written = time.monotonic()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await here.read(local=local) == 1:
                    await asyncio.sleep(POLL_SECONDS)
            assert time.monotonic() - written < RECHECK_SECONDS + 1
            for _ in range(MANY):
                assert await here.read(local=local) == 2
            await admin.replicaof("NO", "ONE")
            assert await here.until_hit() == 2


async def test_a_master_whose_history_begins_anew_caches_on_over_all_connections(
    origin: Origin,
) -> None:
    with master_and_replica() as (master, replica):
        async with (
            client(master) as admin,
            client(replica) as follower,
            running(master.url, origin) as early,
        ):
            await admin.config_set("repl-backlog-ttl", 1)
            await replicate(master, follower)
            before = await replid(admin)
            await early.until_hit()
            await follower.replicaof("NO", "ONE")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while await replid(admin) == before:
                    await asyncio.sleep(POLL_SECONDS)
            async with running(master.url, origin) as late:
                changed = time.monotonic()
                await late.until_hit()
                await early.until_hit()
                await late.until_hit()
                assert time.monotonic() - changed < RECHECK_SECONDS + 1
                await early.write()
                assert [await early.read(), await late.read()] == [2, 2]


async def test_a_replica_is_not_used_until_it_is_promoted(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server() as replica:
        async with client(replica) as admin:
            await admin.replicaof(*NOWHERE)
            async with running(replica.url, origin) as process:
                for _ in range(MANY):
                    await process.read()
                assert origin.reads == MANY
                assert caplog.text.count("ERROR") == caplog.text.count("not used\n") == 1
                await admin.replicaof("NO", "ONE")
                await process.until_hit()


async def test_a_redis_cluster_is_refused_at_startup_by_name() -> None:
    with redis_server(options={"cluster-enabled": "yes"}) as server:
        with pytest.raises(UnsupportedServer, match="CACHE_URL is a node of a Redis Cluster"):
            async with open_cache(server.url):
                pass
        app = create_app(make_settings(cache_url=server.url))
        with pytest.raises(UnsupportedServer, match="cluster-enabled no"):
            async with app.router.lifespan_context(app):
                pass


async def test_a_redis_cluster_that_appears_later_is_an_error_in_the_log_and_never_used(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(options={"cluster-enabled": "yes"}) as server:
        server.stop()
        async with open_cache(server.url, name="test") as cache:
            process = Process(cache, origin)
            await process.read()
            server.start()
            async with asyncio.timeout(DEADLINE_SECONDS):
                while "Redis Cluster" not in caplog.text:
                    await process.read()
                    await asyncio.sleep(POLL_SECONDS)
            reads = origin.reads
            for _ in range(MANY):
                await process.read()
            assert origin.reads == reads + MANY
            assert caplog.text.count("not supported") == 1


async def test_a_server_that_does_not_tell_its_replication_id_caches_with_a_warning(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server() as server:
        async with client(server) as admin:
            await admin.acl_setuser(
                "limited", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"],
                categories=["+@all"], commands=["-info"],
            )  # fmt: skip
            async with open_cache(server.url.replace("//", "//limited:secret@")) as cache:
                assert "failovers are not fenced" in " ".join(cache.warnings)
                assert caplog.text.count("failovers are not fenced") == 1
                process = Process(cache, origin)
                await process.until_hit()
                await process.write()
                assert await process.until_hit() == 2
        async with open_cache(server.url) as cache:
            assert not cache.warnings


async def test_a_user_with_the_commands_that_the_readme_names_caches(origin: Origin) -> None:
    readme = (SERVICE / "README.md").read_text("utf-8")
    named = re.search(r"needs the\s+commands (.*?)\. Give it", readme, re.DOTALL)
    assert named is not None
    commands = re.split(r", | and |; for local hits ", " ".join(named[1].split()))
    with redis_server() as server:
        async with client(server) as admin:
            allowed = ["+" + command.lower().replace(" ", "|") for command in commands]
            await admin.acl_setuser(
                "service", enabled=True, passwords=["+secret"], keys=["*"], commands=allowed
            )
            url = server.url.replace("//", "//service:secret@").replace("/0", "/1")
            async with running(url, origin) as process:
                await process.until_hit(local=600)
                await process.write()
                assert await process.until_hit(local=600) == 2
                await process.cache.clear()
                assert await process.until_hit() == 2
            assert not [each for each in await admin.acl_log() if each["reason"] == "command"]
