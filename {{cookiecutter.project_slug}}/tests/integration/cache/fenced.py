"""Sessions whose COMMITs a cache is told of, over real servers, and what they invalidate."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.cache import Cache, open_cache
from app.cache.sql.commit import invalidate_on_commit


@dataclass
class World:
    cache: Cache
    sessions: async_sessionmaker[Any]
    engine: AsyncEngine
    tags: Sequence[str]

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
async def fenced(
    base: type[DeclarativeBase], tags: Sequence[str], database_url: str, cache_url: str
) -> AsyncIterator[World]:
    engine = create_async_engine(database_url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
    async with open_cache(cache_url, name="test") as cache:
        invalidate_on_commit(sessions, cache)
        yield World(cache, sessions, engine, tags)
    await engine.dispose()
