"""Is the process alive, and can it serve? For orchestrators and load balancers, never cached.

PostgreSQL is critical: without it the service is not ready. The cache is not: without it the
service is slower, and says "degraded". Slow statements are neither: hits are served meanwhile, so
PostgreSQL is asked over a connection of its own, which the pool being empty does not keep waiting.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Literal, NamedTuple

import structlog
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.cache import Cache
from app.database import create_engine
from app.service import Service

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
        description="Tags whose invalidation the cache has not taken, or whose COMMIT is in doubt."
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
    prober: Prober = request.state.prober
    cache: Cache = request.state.cache
    up = await prober.probe()
    if not up.database:
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "PostgreSQL does not answer.",
            headers={"Cache-Control": "no-store"},
        )
    response.headers["Cache-Control"] = "no-store"
    return Readiness(
        status="ok" if up.cache else "degraded",
        cache="up" if up.cache else "down",
        pending_invalidations=cache.pending,
        warnings=[*cache.warnings],
    )


class Up(NamedTuple):
    database: bool
    cache: bool


class Prober:
    """Asks once for all who want to know at the same time: anybody may, as often as they like."""

    def __init__(self, engine: AsyncEngine, cache: Cache) -> None:
        self.engine, self._cache = engine, cache
        self._asking: asyncio.Task[Up] | None = None

    async def probe(self) -> Up:
        """Within PROBE_TIMEOUT_SECONDS."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Up:
        probes = _answers("database", self._query()), _answers("cache", self._cache.ping())
        return Up(*await asyncio.gather(*probes))

    async def _query(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


@asynccontextmanager
async def probing(service: Service) -> AsyncIterator[Prober]:
    engine = create_engine(service.settings, service.cache, service.tables, pool_size=1)
    try:
        yield Prober(engine, service.cache)
    finally:
        await engine.dispose()


async def _answers(name: str, probe: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            await probe
    except Exception as error:  # whatever it is, the answer is no
        log.warning("probe failed", probe=name, error=repr(error))
        return False
    return True
