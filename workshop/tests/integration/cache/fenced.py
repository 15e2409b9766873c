"""Sessions whose COMMITs a cache is told of, over real servers, and what they invalidate."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.cache import Cache, open_cache
from app.cache.sql.observer import observe
from app.cache.sql.tables import Tables


@dataclass
class World:
    cache: Cache
    sessions: async_sessionmaker[Any]
    engine: AsyncEngine
    tags: Sequence[str]

    @property
    def url(self) -> str:
        return self.engine.url.render_as_string(hide_password=False)

    @asynccontextmanager
    async def invalidated(self, *expected: str) -> AsyncIterator[None]:
        """In the block, the generations of exactly these tags come to an end."""
        backend = self.cache.backend
        before = {tag: (await backend.begin(tag, [tag], "t"))[0] for tag in self.tags}
        assert None not in before.values()
        yield
        after = {tag: (await backend.read(tag, [tag]))[1] for tag in self.tags}
        assert {tag for tag in self.tags if before[tag] != after[tag]} == set(expected)
        for tag in self.tags:
            assert (await backend.begin(tag, [tag], "t"))[0], f"{tag} is still held"


@asynccontextmanager
async def observed(
    base: type[DeclarativeBase], database_url: str, cache: Cache, *, strict: bool = False
) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    observe(engine, cache, Tables(base.registry), strict=strict)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def fenced(
    base: type[DeclarativeBase], tags: Sequence[str], database_url: str, cache_url: str
) -> AsyncIterator[World]:
    async with (
        open_cache(cache_url, name="test", coverage=Tables(base.registry)) as cache,
        observed(base, database_url, cache) as engine,
    ):
        async with engine.begin() as connection:
            await connection.run_sync(base.metadata.create_all)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        yield World(cache, sessions, engine, tags)
