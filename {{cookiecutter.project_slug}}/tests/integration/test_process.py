"""The service as it is run: `uvicorn app.main:app` in a process of its own."""

import asyncio
import fcntl
import json
import os
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.cache import cache
from app.main import create_app
from app.settings import STARTUP_FAILURE, Settings
from devtools.servers import free_port
from tests.clients import make_settings, serving
from tests.services import SERVICE

ANSWER_SECONDS = 30


@pytest.fixture
def memory_to_itself() -> Iterator[None]:
    """One process of this folder may have such a cache: the workers of a test run take turns."""
    with Path(__file__).open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def uvicorn(port: int, *options: str, **environment: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), *options),
        cwd=SERVICE,
        env=os.environ | environment,
        stderr=PIPE,
        stdout=PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # with its workers
            await process.communicate()


async def first_answer(process: Process, url: str, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        while process.returncode is None:
            try:
                return await client.get(url, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    _, stderr = await process.communicate()
    raise AssertionError(f"the process ended before it answered: {stderr.decode()}")


async def test_it_serves_in_production_logs_json_and_ends_when_told(settings: Settings) -> None:
    port = free_port()
    production = {
        "ENVIRONMENT": "production",
        "API_TOKEN": secrets.token_urlsafe(32),
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
    assert process.returncode == STARTUP_FAILURE
    assert "API_TOKEN: is not set" in stderr.decode()
    assert "Traceback" not in stderr.decode()


async def test_nor_does_it_try_for_ever_with_several_workers() -> None:
    async with uvicorn(free_port(), "--workers", "2", ENVIRONMENT="production") as process:
        _, stderr = await process.communicate()
    assert "API_TOKEN: is not set" in stderr.decode()


@pytest.mark.usefixtures("memory_to_itself")
@pytest.mark.parametrize(
    ("options", "environment"), [(["--workers", "2"], {}), ([], {"WEB_CONCURRENCY": "2"})]
)
async def test_several_processes_do_not_start_with_a_cache_of_one(
    options: list[str], environment: dict[str, str]
) -> None:
    async with uvicorn(free_port(), *options, **environment, CACHE_URL="memory://") as process:
        _, stderr = await process.communicate()
    assert "CACHE_URL is memory://, a cache of one process, and this is not the" in stderr.decode()


@pytest.mark.usefixtures("memory_to_itself")
async def test_nor_a_second_one_while_the_first_one_runs() -> None:
    port = free_port()
    live = f"http://127.0.0.1:{port}/health/live"
    async with uvicorn(port, CACHE_URL="memory://") as first:
        assert (await first_answer(first, live, {})).status_code == 200
        async with uvicorn(free_port(), CACHE_URL="memory://") as second:
            _, stderr = await second.communicate()
        assert second.returncode == STARTUP_FAILURE
        assert "CACHE_URL is memory://" in stderr.decode()
        assert (await first_answer(first, live, {})).status_code == 200
    # Killed, not ended: what is left of it holds nobody up.
    async with uvicorn(port, CACHE_URL="memory://") as third:
        assert (await first_answer(third, live, {})).status_code == 200


def versioned(settings: Settings, version: int) -> FastAPI:
    app = create_app(settings)

    @app.get("/version")
    @cache(60, public=True)
    async def shown() -> int:
        return version

    return app


async def test_code_that_was_edited_does_not_meet_the_answers_of_the_old_code(
    settings: Settings,
) -> None:
    answers = {}
    for environment in ("test", "local"):
        mine = settings.model_copy(update={"environment": environment})
        async with serving(app=versioned(mine, 1)) as client:
            assert (await client.get("/version")).json() == 1
            assert (await client.get("/version")).json() == 1
        async with serving(app=versioned(mine, 2)) as client:
            answers[environment] = (await client.get("/version")).json()
    assert answers == {"test": 1, "local": 2}


async def test_a_local_service_starts_although_its_cache_cannot_be_cleared(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    settings = make_settings(environment="local", database_url=database_url, cache_url=nowhere)
    async with serving(app=versioned(settings, 1)) as client:
        assert (await client.get("/version")).json() == 1
    assert "it was not cleared" in caplog.text


LARGE_BYTES, LARGE_REQUESTS = 4 * 2**20, 20


def statistics(pid: int) -> tuple[int, float]:
    """Bytes of memory, and seconds of CPU time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK")


async def status_line(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    line = await reader.readline()
    writer.close()
    return line.removeprefix(b"HTTP/1.1 ").strip()


def large(name: bytes, number: int) -> bytes:
    """A request for a cached route, with a header that no other request has."""
    value = b"%d, gzip" % number + b"," * LARGE_BYTES
    return b"GET /countries HTTP/1.1\r\nHost: test\r\n%s: %s\r\n\r\n" % (name, value)


async def test_large_headers_are_refused_and_neither_kept_nor_read(settings: Settings) -> None:
    port, answers = free_port(), set()
    async with uvicorn(port, CACHE_URL=settings.cache_url, DATABASE_URL=settings.database_url) as p:
        await first_answer(p, f"http://127.0.0.1:{port}/countries", {})
        answers.add(await status_line(port, large(b"Accept-Encoding", 0)))
        memory, cpu = statistics(p.pid)
        for number in range(LARGE_REQUESTS):
            for name in (b"Accept-Encoding", b"If-None-Match", b"X-Request-ID", b"Host"):
                answers.add(await status_line(port, large(name, number)))
        memory_after, cpu_after = statistics(p.pid)
    assert answers == {b"431 Request Header Fields Too Large"}
    # A few are there at once; what Accept-Encoding alone was would be more.
    assert memory_after - memory < LARGE_REQUESTS / 2 * LARGE_BYTES
    assert (cpu_after - cpu) / (4 * LARGE_REQUESTS) < 0.15
