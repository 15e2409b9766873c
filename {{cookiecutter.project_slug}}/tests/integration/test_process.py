"""The service as it is run: `uvicorn app.main:app` in a process of its own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from app.settings import Settings
from tests.services import SERVICE, free_port

ANSWER_SECONDS = 30


@asynccontextmanager
async def uvicorn(port: int, **environment: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)),
        cwd=SERVICE,
        env=os.environ | environment,
        stderr=PIPE,
        stdout=PIPE,
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def first_answer(process: Process, url: str, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        while process.returncode is None:
            try:
                return await client.get(url, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    raise AssertionError("the process ended before it answered")


async def test_it_serves_in_production_logs_json_and_ends_when_told(settings: Settings) -> None:
    port = free_port()
    production = {
        "ENVIRONMENT": "production",
        "API_TOKEN": "a secret",
        "DATABASE_URL": settings.database_url,
        "CACHE_URL": settings.cache_url,
    }
    async with uvicorn(port, **production) as process:
        url, headers = f"http://127.0.0.1:{port}/health/ready", {"X-Request-ID": "known-id"}
        assert (await first_answer(process, url, headers)).status_code == 200
        process.send_signal(signal.SIGTERM)
        stdout, stderr = await process.communicate()
    assert process.returncode in (0, -signal.SIGTERM)
    assert stdout == b""
    lines = [json.loads(line) for line in stderr.decode().splitlines()]
    assert "Application shutdown complete." in {line["message"] for line in lines}
    access = [line for line in lines if line["logger"] == "uvicorn.access"]
    assert [line["request_id"] for line in access] == ["known-id"]


async def test_it_does_not_start_in_production_without_secrets() -> None:
    async with uvicorn(free_port(), ENVIRONMENT="production", API_TOKEN="") as process:
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert "API_TOKEN: is not set" in stderr.decode()
    assert "Traceback" not in stderr.decode()
