"""The smallest useful program: slow data, cached in memory.

    uvicorn examples.slow_data:app

`curl -i localhost:8000/slow-data` takes two seconds, then nothing for ten, then two seconds again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.cache import Cache, CacheMiddleware, cache, open_cache


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Cache]]:
    async with open_cache("memory://", name="slow-data") as opened:
        opened.bind(app)
        yield {"cache": opened}


app = FastAPI(lifespan=lifespan)
app.add_middleware(CacheMiddleware)


@app.get("/slow-data")
@cache(expire=10)
async def slow_data() -> dict[str, str]:
    await asyncio.sleep(2)
    return {"data": "took two seconds to make"}


@cache(expire=120)
async def exchange_rate(base: str, quote: str) -> float:
    await asyncio.sleep(2)
    return 1.08 if (base, quote) == ("EUR", "USD") else 1.0


@app.get("/price")
async def price(euros: float = 1.0) -> dict[str, float]:
    return {"usd": euros * await exchange_rate("EUR", "USD")}
