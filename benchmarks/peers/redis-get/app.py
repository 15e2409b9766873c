"""redis.get in a FastAPI endpoint

Written by hand, as many services do: get the body, else make it and set it. The stored bytes are
sent as they are, so that a hit neither validates nor encodes.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Response
from redis.asyncio import Redis

from countries import EXPIRE_SECONDS, TELEMETRY, Page, computed, page

redis = Redis.from_url(os.environ["CACHE_URL"])
app = FastAPI(telemetry=TELEMETRY)


@app.get("/countries", response_model=Page)
async def list_countries(limit: int = 50) -> Response:
    key = f"countries:{limit}"
    body = await redis.get(key)
    if body is None:
        body = page(limit).model_dump_json().encode()
        await redis.set(key, body, ex=EXPIRE_SECONDS)
    return Response(body, media_type="application/json")


@app.get("/computed")
async def count() -> int:
    return computed()
