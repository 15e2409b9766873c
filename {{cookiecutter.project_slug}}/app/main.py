"""The application: what is wired to what, in the order of a start.

`uvicorn app.main:app` serves it. Nothing is opened on import; the lifespan opens the engine and the
cache (`app.service`), hands them to requests as `request.state`, and closes them.
"""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypedDict

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from sqlalchemy.ext.asyncio import AsyncEngine

from app import health, metrics, problems, resources
from app.cache import Cache, CacheMiddleware, CacheUnavailable
from app.cache.sql.listener import listening
from app.database import Sessions
from app.limits import BodyLimitMiddleware
from app.logging import REQUEST_ID_HEADER, RequestLogMiddleware, configure_logging
from app.service import open_service
from app.settings import Settings

UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"description": "The database does not answer. Try again later."}
}

log = logging.getLogger(__name__)


class State(TypedDict):
    """What requests find in `request.state`."""

    settings: Settings
    engine: AsyncEngine
    sessions: Sessions
    cache: Cache
    prober: health.Prober


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings.load()
    configure_logging(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with open_service(settings, recorder=metrics.PrometheusRecorder()) as service:
            cache = service.cache
            cache.bind(app)
            if settings.environment == "local":
                await _forget_older_code(cache)
            listener = listening(cache, settings.database_url, service.tables)
            async with (
                listener if settings.cache_listen else nullcontext(),
                health.probing(service) as prober,
            ):
                yield State(
                    settings=settings,
                    engine=service.engine,
                    sessions=service.sessions,
                    cache=cache,
                    prober=prober,
                )

    app = FastAPI(
        title=settings.service_name,
        lifespan=lifespan,
        # Looking for an OpenTelemetry provider where there is none takes a fifth of the time of a
        # cached response. Remove this line when you configure one.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware)
    # A hit answers a GET without a body, and needs no limit.
    app.add_middleware(CacheMiddleware, skips=[BodyLimitMiddleware])
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "Location", "Cache-Status", "Age", REQUEST_ID_HEADER],
        )
    app.add_middleware(RequestLogMiddleware)
    problems.install(app)

    app.include_router(health.router)
    app.include_router(metrics.router)
    # Each app/…/router.py: resources.py says why they are found and not listed here.
    for router in resources.routers():
        app.include_router(router, responses=UNAVAILABLE)
    return app


async def _forget_older_code(cache: Cache) -> None:
    """Where code is edited and loaded again, what it was before must not answer."""
    try:
        await cache.clear()
    except CacheUnavailable as error:
        log.warning("the cache may hold answers of older code: it was not cleared: %s", error)


app = create_app()

# What is there by now stays until the end. Left alone, the garbage collector walks over it whenever
# requests have allocated a little: 80 ms each time, and a sixth of what cached responses cost.
gc.freeze()
gc.set_threshold(10_000, 20, 20)
