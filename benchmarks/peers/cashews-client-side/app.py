"""cashews with client_side=True

As its README shows it: a copy of every value in this process, which Redis says is out of date.
"""

from __future__ import annotations

import os

from cashews import cache
from fastapi import FastAPI

from countries import EXPIRE_SECONDS, TELEMETRY, Page, computed, page

cache.setup(os.environ["CACHE_URL"], client_side=True)
app = FastAPI(telemetry=TELEMETRY)


@app.get("/countries")
@cache(ttl=EXPIRE_SECONDS, key="countries:{limit}")
async def list_countries(limit: int = 50) -> Page:
    return page(limit)


@app.get("/computed")
async def count() -> int:
    return computed()
