"""fastapi-cache2

As its README shows it: a Redis backend in the lifespan, `@cache` below the route decorator.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_cache import FastAPICache
from fastapi_cache.backends.redis import RedisBackend
from fastapi_cache.decorator import cache
from redis import asyncio as aioredis

from countries import EXPIRE_SECONDS, TELEMETRY, Page, computed, page


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    redis = aioredis.from_url(os.environ["CACHE_URL"])
    FastAPICache.init(RedisBackend(redis), prefix="fastapi-cache")
    yield


app = FastAPI(lifespan=lifespan, telemetry=TELEMETRY)


@app.get("/countries")
@cache(expire=EXPIRE_SECONDS)
async def list_countries(limit: int = 50) -> Page:
    return page(limit)


@app.get("/computed")
async def count() -> int:
    return computed()
