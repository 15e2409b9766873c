"""The service without HTTP: engine, sessions and cache, wired to each other.

The lifespan opens it, and so does all that runs outside of a request: scripts, tasks of a queue,
cron jobs. What is written through it is invalidated for every process.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncEngine

from app.cache import Cache, open_cache
from app.cache.events import Recorder
from app.cache.sql.tables import Tables
from app.database import Base, Sessions, create_engine, create_sessions
from app.resources import import_models
from app.settings import Settings
from app.single_process import only_process


@dataclass(frozen=True, slots=True)
class Service:
    settings: Settings
    engine: AsyncEngine
    sessions: Sessions
    cache: Cache
    tables: Tables


@asynccontextmanager
async def open_service(
    settings: Settings | None = None, *, recorder: Recorder | None = None
) -> AsyncIterator[Service]:
    """PostgreSQL and the cache server need not answer yet.

        async with open_service() as service:
            async with service.sessions.write.begin() as session:
                ...

    Each event loop opens its own, once for all that it has to do. The end waits up to
    `app.cache.engine.DRAIN_SECONDS` for invalidations that the cache server has not taken, and logs
    an error when some are left.
    """
    settings = settings or Settings.load()
    import_models()  # a change to one table may end what is told of another
    tables = Tables(Base.registry)
    async with AsyncExitStack() as last, _open_cache(settings, tables, recorder) as cache:
        engine = create_engine(settings, cache, tables)
        last.push_async_callback(engine.dispose)  # what the cache waits for at its end needs it
        yield Service(settings, engine, create_sessions(engine), cache, tables)


@asynccontextmanager
async def _open_cache(
    settings: Settings, tables: Tables, recorder: Recorder | None
) -> AsyncIterator[Cache]:
    # Tests open many in one process, each for a database of its own.
    alone = urlsplit(settings.cache_url).scheme == "memory" and settings.environment != "test"
    with only_process() if alone else nullcontext():
        async with open_cache(
            settings.cache_url,
            name=settings.service_name,
            recorder=recorder,
            client_may_bypass=settings.cache_client_may_bypass,
            strict=settings.environment != "production",
            coverage=tables,
        ) as cache:
            yield cache
