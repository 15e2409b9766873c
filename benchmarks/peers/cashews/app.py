"""cashews

As its README shows it: one cache, set up with the URL of Redis, and a key for each `limit`.
"""

from __future__ import annotations

import os

from cashews import cache
from fastapi import FastAPI

from countries import EXPIRE_SECONDS, TELEMETRY, Page, computed, page

cache.setup(os.environ["CACHE_URL"])
app = FastAPI(telemetry=TELEMETRY)


@app.get("/countries")
@cache(ttl=EXPIRE_SECONDS, key="countries:{limit}")
async def list_countries(limit: int = 50) -> Page:
    return page(limit)


@app.get("/computed")
async def count() -> int:
    return computed()
