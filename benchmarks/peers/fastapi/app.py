"""FastAPI without cache or database

What an endpoint costs whose data is at hand: the model, its validation, its JSON.
"""

from __future__ import annotations

from fastapi import FastAPI

from countries import TELEMETRY, Page, page

app = FastAPI(telemetry=TELEMETRY)


@app.get("/countries")
async def list_countries(limit: int = 50) -> Page:
    return page(limit)
