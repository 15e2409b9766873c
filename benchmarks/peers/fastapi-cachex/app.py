"""fastapi-cachex

As its documentation shows it: a Redis backend for the proxy, `@cache` below the route decorator.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi_cachex import BackendProxy, cache
from fastapi_cachex.backends import AsyncRedisCacheBackend

from countries import EXPIRE_SECONDS, TELEMETRY, Page, computed, page

redis = urlsplit(os.environ["CACHE_URL"])
BackendProxy.set(
    AsyncRedisCacheBackend(
        host=redis.hostname or "127.0.0.1", port=redis.port or 6379, db=int(redis.path.strip("/") or 0)
    )
)
app = FastAPI(telemetry=TELEMETRY)


@app.get("/countries")
@cache(ttl=EXPIRE_SECONDS)
async def list_countries(limit: int = 50) -> Page:
    return page(limit)


@app.get("/computed")
async def count() -> int:
    return computed()
