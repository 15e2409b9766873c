"""From a URL to an open cache."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from app.cache.backends.base import Backend, CacheUnavailable, UnsupportedServer
from app.cache.backends.memory import InMemoryBackend
from app.cache.backends.redis.backend import RedisBackend
from app.cache.context import active_cache
from app.cache.events import Counters, Recorder
from app.cache.http.cache import Cache
from app.cache.reads import Coverage


@asynccontextmanager
async def open_cache(
    url: str,
    *,
    name: str = "cache",
    recorder: Recorder | None = None,
    client_may_bypass: bool = False,
    strict: bool = True,
    coverage: Coverage | None = None,
) -> AsyncIterator[Cache]:
    """The cache at `memory://`, `redis://…` or `rediss://…`. Redis need not answer yet.

    Cached functions find it for as long as the block lasts. With `client_may_bypass` a request that
    says `Cache-Control: no-cache` or `no-store` goes to the origin, so that any client can load it.
    With `strict`, what turns out to be unsafe to cache (a user without an identity, a result that
    is not read back as it was) is an error: for development and tests. Without, it is answered
    uncached, counted and logged.

    Raises ValueError for another URL, and UnsupportedServer for a Redis Cluster.
    """
    recorder = recorder or Counters()
    backend: Backend
    match urlsplit(url).scheme:
        case "memory":
            backend = InMemoryBackend()
        case "redis" | "rediss":
            backend = RedisBackend(url, name=name, recorder=recorder)
        case scheme:
            raise ValueError(
                f"CACHE_URL begins with {scheme!r}: allowed are memory://, redis:// and rediss://"
            )
    cache = Cache(
        backend,
        name=name,
        recorder=recorder,
        client_may_bypass=client_may_bypass,
        strict=strict,
        coverage=coverage,
    )
    try:
        await cache.ping()  # a connection now, not when the first requests wait for it
    except UnsupportedServer:
        await cache.aclose()
        raise
    except CacheUnavailable:
        pass  # it was counted; caching begins when the server answers
    token = active_cache.set(cache)
    try:
        yield cache
    finally:
        active_cache.reset(token)
        await cache.aclose()
