"""A program that changes the library outside of a request: `python -m …script AUTHOR AUTHOR`."""

import asyncio
import sys
import uuid

from sqlalchemy import update
from sqlalchemy.ext.asyncio import async_sessionmaker

from app.service import open_service
from tests.integration.cache.library.models import Author


async def rename(one: int, other: int) -> None:
    """The documented way, a session of the service; and a session of one's own over its engine, as
    a task queue may have it."""
    async with open_service() as service:
        async with service.sessions.write.begin() as session:
            (await session.get_one(Author, one)).name = uuid.uuid4().hex
        async with async_sessionmaker(service.engine).begin() as own:
            by_key = update(Author).where(Author.author_id == other)
            await own.execute(by_key.values(name=uuid.uuid4().hex))


if __name__ == "__main__":
    asyncio.run(rename(*map(int, sys.argv[1:])))
