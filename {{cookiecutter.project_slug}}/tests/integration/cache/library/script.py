"""Programs that change the library outside of a request: `python -m …script PROGRAM=AUTHOR …`
prints what became of each."""

import asyncio
import json
import sys
import uuid

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from app.service import open_service
from tests.integration.cache.library.models import Author


async def told(author_id: int) -> None:
    """The documented way: a session of the service that is opened."""
    async with open_service() as service, service.sessions.write.begin() as session:
        (await session.get_one(Author, author_id)).name = uuid.uuid4().hex


async def told_over_engine(author_id: int) -> None:
    """As a task queue has it: a session of its own over the engine of the service."""
    async with open_service() as service:
        await rename(service.engine, author_id)


async def rename(engine: AsyncEngine, author_id: int) -> None:
    async with async_sessionmaker(engine).begin() as session:
        by_key = update(Author).where(Author.author_id == author_id)
        await session.execute(by_key.values(name=uuid.uuid4().hex))


async def main() -> None:
    for argument in sys.argv[1:]:
        program, _, author_id = argument.partition("=")
        error = ""
        try:
            await globals()[program](int(author_id))
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        sys.stdout.write(json.dumps([program, error]) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
