"""Is the process alive, and can it serve? For orchestrators and load balancers, never cached.

PostgreSQL is critical: without it the service is not ready. The cache is not: without it the
service is slower, and says "degraded".
"""

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Literal

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cache import Cache

PROBE_TIMEOUT_SECONDS = 1

router = APIRouter(prefix="/health", tags=["health"])
log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ok", "degraded"]
    database: Literal["up"] = "up"
    cache: Literal["up", "down"]
    pending_invalidations: int = Field(
        description="Tags whose invalidation the cache has not taken yet; they are retried."
    )
    warnings: list[str] = Field(
        description="What the cache promises and cannot keep with this server."
    )


@router.get("/live")
async def live(response: Response) -> Liveness:
    response.headers["Cache-Control"] = "no-store"
    return Liveness()


@router.get("/ready", responses={503: {"description": "PostgreSQL does not answer."}})
async def ready(request: Request, response: Response) -> Readiness:
    engine: AsyncEngine = request.state.engine
    cache: Cache = request.state.cache
    database_up, cache_up = await asyncio.gather(
        _answers("database", _ping(engine)), _answers("cache", cache.ping())
    )
    if not database_up:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "PostgreSQL does not answer.",
            headers={"Cache-Control": "no-store"},
        )
    response.headers["Cache-Control"] = "no-store"
    return Readiness(
        status="ok" if cache_up else "degraded",
        cache="up" if cache_up else "down",
        pending_invalidations=cache.pending,
        warnings=[*cache.warnings],
    )


async def _ping(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _answers(name: str, probe: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            await probe
    except Exception as error:  # whatever it is, the answer is no
        log.warning("probe failed", probe=name, error=repr(error))
        return False
    return True
