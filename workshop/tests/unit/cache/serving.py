"""A small application behind the cache, called without a network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.types import Receive, Scope, Send

from app.cache import Cache, CacheMiddleware, InMemoryBackend, RedisBackend


@asynccontextmanager
async def serving(app: FastAPI, cache: Cache) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app`, whose lifespan state holds `cache`; closes the cache at the end."""
    app.add_middleware(CacheMiddleware)
    cache.bind(app)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"cache": cache}}, receive, send)

    transport = httpx.ASGITransport(with_state, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        try:
            yield client
        finally:
            await cache.aclose()


async def entry_count(cache: Cache) -> int:
    """How many entries the backend holds; for Redis, also after the cache was closed."""
    if isinstance(cache.backend, InMemoryBackend):
        return len(cache.backend.entries)
    assert isinstance(cache.backend, RedisBackend)
    async with Redis(connection_pool=cache.backend._pool) as client:
        names = await client.keys(f"{cache.name}:e:*")
    await cache.backend._pool.disconnect()
    return len(names)


def status(response: httpx.Response) -> str:
    """`hit`, `fwd=uri-miss`, … of Cache-Status."""
    return response.headers["cache-status"].split("; ")[1]
