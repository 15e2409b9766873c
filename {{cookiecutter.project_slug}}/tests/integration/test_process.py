"""The service as it is run: `uvicorn app.main:app` in a process of its own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process

import httpx

from app.settings import Settings
from tests.services import SERVICE, free_port

START_SECONDS = 30


async def uvicorn(port: int, **environment: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)),
        cwd=SERVICE,
        env=os.environ | environment,
        stderr=PIPE,
        stdout=PIPE,
    )


async def test_it_serves_in_production_logs_json_and_ends_when_told(settings: Settings) -> None:
    port = free_port()
    process = await uvicorn(
        port,
        ENVIRONMENT="production",
        API_TOKEN="a secret",
        DATABASE_URL=settings.database_url,
        CACHE_URL=settings.cache_url,
    )
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
        url, headers = f"http://127.0.0.1:{port}/health/ready", {"X-Request-ID": "known-id"}
        while True:
            try:
                response = await client.get(url, headers=headers)
                break
            except httpx.TransportError:
                assert process.returncode is None
                await asyncio.sleep(0.05)
    assert response.json() == {"status": "ok", "database": "up", "cache": "up"}

    process.send_signal(signal.SIGTERM)
    stdout, stderr = await process.communicate()
    assert process.returncode in (0, -signal.SIGTERM)
    assert stdout == b""
    lines = [json.loads(line) for line in stderr.decode().splitlines()]
    assert "Application shutdown complete." in {line["message"] for line in lines}
    access = [line for line in lines if line["logger"] == "uvicorn.access"]
    assert [line["request_id"] for line in access] == ["known-id"]


async def test_it_does_not_start_in_production_without_secrets() -> None:
    process = await uvicorn(free_port(), ENVIRONMENT="production", API_TOKEN="")
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert "API_TOKEN: is not set" in stderr.decode()
    assert "Traceback" not in stderr.decode()
