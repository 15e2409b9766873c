"""What is not a rate: memory, the start of a process, invalidation, a stampede.

Each has servers of its own, which nothing else is asked of meanwhile.
"""

import asyncio
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import cast

import asyncpg
import redis
from sqlalchemy.engine import make_url

from benchmarks.client import LoadError, ask_once
from benchmarks.rows import APPLICATION, PATH_20
from benchmarks.targets import SERVICE_NAME, Running, Servers, Target, ask, asyncpg_dsn
from benchmarks.traffic import Request, change, country_codes, unseen_pages

# The last of the databases that Redis has by default: no target has a number so high.
REDIS_DATABASE = 15
CONNECTIONS = 32
MEMORY_ENTRIES = 10_000
COLD_STARTS = 5
CACHED_PAGES = (10, 1_000, 100_000)
WRITES = 200
COPIES_PER_PIPELINE = 1_000
STAMPEDE_PROCESSES, STAMPEDE_REQUESTS = 4, 200
KIB_PER_MIB = 1024

# As app/cache/backends/redis/backend.py names its keys.
ENTRIES = f"{SERVICE_NAME}:e:*"
GENERATION = SERVICE_NAME + ":g:{countries}"

SCANS = "SELECT sum(seq_scan + idx_scan) FROM pg_stat_user_tables WHERE relname = 'countries'"
OTHER_CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
CLOSING_SECONDS = 0.05

LIST = Request(PATH_20)
OTHER_LIST = Request("/currencies?limit=20")
# A page of one item, so that 100,000 of them fit into memory.
SMALL_LIST = Request("/countries?limit=1")


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    how: str


def memory(servers: Servers) -> Iterator[Figure]:
    with _service(servers, "memory") as running, _redis(servers) as cache:
        _expect(running, LIST, "stored")
        redis_before, service_before = _used_mib(cache), _resident_mib(running)
        pages = unseen_pages("/countries")(0)[:MEMORY_ENTRIES]
        asyncio.run(ask_once(running.port, CONNECTIONS, [page.encode() for page in pages]))
        used, resident = _used_mib(cache) - redis_before, _resident_mib(running) - service_before
        # On a busy machine a response may be sent without being stored.
        stored = len(cast(list[bytes], cache.keys(ENTRIES))) - 1
    of_all = used / stored * MEMORY_ENTRIES
    name, how = f"for {MEMORY_ENTRIES:,} entries of 20 items", f"growth by {stored:,} entries"
    yield Figure(f"memory of Redis {name}", of_all, "MB", f"used_memory, {how}")
    yield Figure(f"memory of the service {name}", resident, "MB", f"RSS, {how}")


def cold_start(servers: Servers) -> Iterator[Figure]:
    times = []
    for _ in range(COLD_STARTS):
        began = time.perf_counter()
        with _service(servers, "cold-start") as running:
            _expect(running, LIST)
            times.append(time.perf_counter() - began)
    how = f"process started to first list answered, median of {COLD_STARTS}"
    yield Figure("cold start", median(times), "s", how)


def invalidation(servers: Servers) -> Iterator[Figure]:
    """A service for each number of pages, and the writes in turn: all have the same conditions."""
    times: dict[int, list[float]] = {pages: [] for pages in CACHED_PAGES}
    with ExitStack() as stack:
        filled = []
        for number, pages in enumerate(CACHED_PAGES):
            database = REDIS_DATABASE - number
            name = f"invalidation-{pages}"
            service = _service(servers, name, database=database, writes=True)
            running = stack.enter_context(service)
            cache = stack.enter_context(_redis(servers, database))
            filled.append((pages, running, cache, _fill(running, cache, pages)))
        for number in range(WRITES):
            code = country_codes()[number % len(country_codes())]
            for pages, running, cache, generation in filled:
                # All copies are valid once more, and this write makes all of them misses.
                cache.set(GENERATION, generation)
                _expect(running, SMALL_LIST, "hit")
                request = change(code, f"{pages} pages, {number}")
                began = time.perf_counter()
                _expect(running, request)
                times[pages].append((time.perf_counter() - began) * 1000)
        for _, running, _, _ in filled:
            _expect(running, SMALL_LIST, "fwd=uri-miss")
    how = f"PATCH, median of {WRITES} in turn; the pages are copies of one entry, all valid before"
    for pages, each_ms in times.items():
        yield Figure(f"write with {pages:,} cached pages", median(each_ms), "ms", how)


def _fill(running: Running, cache: "redis.Redis", pages: int) -> bytes:
    """Caches so many pages; gives the generation that they are valid under."""
    _expect(running, SMALL_LIST, "stored")
    generation = cast(bytes, cache.get(GENERATION))
    _copy_the_entry(cache, pages)
    return generation


def stampede(servers: Servers) -> Iterator[Figure]:
    start = _scans(servers)
    with _service(servers, "stampede") as running:
        _expect(running, LIST, "stored")
    one_query = _scans(servers) - start
    how = f"{STAMPEDE_REQUESTS} requests at once for a cold page, {STAMPEDE_PROCESSES} processes"
    # The first requests of a process are so slow that it may give up on Redis meanwhile.
    for name, others in (("", [OTHER_LIST]), (" of new processes", [])):
        start = _scans(servers)
        _stampede(servers, [*others, LIST])
        queries = (_scans(servers) - start) / one_query
        yield Figure(f"queries in a stampede{name}", queries, "", how)


def _stampede(servers: Servers, requests: list[Request]) -> None:
    _flush(servers)
    with ExitStack() as stack:
        ports = []
        for number in range(STAMPEDE_PROCESSES):
            target = Target(f"stampede-{number}", APPLICATION, alone=False)
            ports.append(stack.enter_context(servers.serving(target, REDIS_DATABASE)).port)
        for request in requests:
            asyncio.run(_ask_all_at_once(ports, request))


async def _ask_all_at_once(ports: list[int], request: Request) -> None:
    each = STAMPEDE_REQUESTS // len(ports)
    await asyncio.gather(*(ask_once(port, each, [request.encode()] * each) for port in ports))


FIGURES: dict[str, Callable[[Servers], Iterator[Figure]]] = {
    "memory": memory,
    "cold start": cold_start,
    "invalidation": invalidation,
    "stampede": stampede,
}


@contextmanager
def _service(
    servers: Servers, name: str, *, database: int = REDIS_DATABASE, writes: bool = False
) -> Iterator[Running]:
    """The service over an empty cache."""
    _flush(servers, database)
    with servers.serving(Target(name, APPLICATION, writes=writes), database) as running:
        yield running


def _flush(servers: Servers, database: int = REDIS_DATABASE) -> None:
    with _redis(servers, database) as cache:
        cache.flushdb()


@contextmanager
def _redis(servers: Servers, database: int = REDIS_DATABASE) -> Iterator["redis.Redis"]:
    url = make_url(servers.redis.url).set(database=str(database))
    with redis.Redis.from_url(url.render_as_string()) as client:
        yield client


def _expect(running: Running, request: Request, cache_status: str = "") -> None:
    answer = ask(running.port, request)
    status = answer.headers.get("cache-status", "")
    if answer.status != 200 or cache_status not in status:
        raise LoadError(f"{request.path}: status {answer.status}, Cache-Status {status!r}")


def _copy_the_entry(cache: "redis.Redis", copies: int) -> None:
    """Stores the bytes of the one entry there is under so many keys in all."""
    (key,) = cast(list[bytes], cache.keys(ENTRIES))
    entry = cast(bytes, cache.get(key))
    prefix = key.decode().rpartition(":")[0]
    with cache.pipeline(transaction=False) as pipeline:
        for number in range(1, copies):
            pipeline.set(f"{prefix}:{secrets.token_hex(16)}", entry)
            if number % COPIES_PER_PIPELINE == 0:
                pipeline.execute()
        pipeline.execute()


def _scans(servers: Servers) -> int:
    """How often the table was scanned. A connection is counted when it is closed."""

    async def scans() -> int:
        connection = await asyncpg.connect(asyncpg_dsn(servers.postgres.url))
        try:
            while await connection.fetchval(OTHER_CONNECTIONS):
                time.sleep(CLOSING_SECONDS)  # noqa: ASYNC251 - nothing else runs here
            return int(await connection.fetchval(SCANS))
        finally:
            await connection.close()

    return asyncio.run(scans())


def _used_mib(cache: "redis.Redis") -> float:
    return float(cache.info("memory")["used_memory"]) / KIB_PER_MIB**2


def _resident_mib(running: Running) -> float:
    command = ["ps", "-o", "rss=", "-p", str(running.pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(shown.stdout) / KIB_PER_MIB
