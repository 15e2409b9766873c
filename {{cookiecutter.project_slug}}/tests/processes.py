"""The service as it is run: uvicorn in a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from app.settings import Settings
from devtools.servers import free_port
from tests.clients import TOKEN
from tests.services import SERVICE

START_SECONDS, STOP_SECONDS = 120, 10


@asynccontextmanager
async def uvicorn(
    settings: Settings, *, app: str = "app.main:app", log: Path | None = None, **environment: str
) -> AsyncIterator[str]:
    """The URL of a server in a process of its own, which ends with the block.

    What it logs goes to the file `log`.
    """
    port = free_port()
    stderr = log.open("wb") if log else None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", app, "--port", str(port)),
        cwd=SERVICE,
        stderr=stderr,
        env={
            **os.environ,
            "ENVIRONMENT": "test",
            "API_TOKEN": TOKEN,
            "DATABASE_URL": settings.database_url,
            "CACHE_URL": settings.cache_url,
            "LOG_LEVEL": "WARNING",
            **environment,
        },
    )
    if stderr:
        stderr.close()
    url = f"http://127.0.0.1:{port}"
    try:
        await _until_it_answers(url)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


async def _until_it_answers(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(START_SECONDS):
        while True:
            try:
                await client.get("/health/live")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
