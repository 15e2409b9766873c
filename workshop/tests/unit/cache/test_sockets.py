"""A cached route behind a real server: what only sockets show."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask

from app.cache import Cache, CacheMiddleware, InMemoryBackend, cache
from tests.unit.cache.serving import status

SECONDS = 10


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    app.add_middleware(CacheMiddleware)
    memory = Cache(InMemoryBackend(), name="test")

    async def with_state(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"cache": memory}
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(with_state, port=0, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(SECONDS):
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
        await memory.aclose()
        server.should_exit = True
        await running


async def test_a_stream_reaches_its_client_part_by_part_and_ends_when_that_leaves() -> None:
    app, taken, stopped = FastAPI(), asyncio.Event(), asyncio.Event()
    calls = 0

    @app.get("/news")
    @cache(60)
    async def news() -> Response:
        nonlocal calls
        calls += 1

        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await taken.wait()
                while True:
                    yield b"next"
                    await asyncio.sleep(0.001)
            finally:
                stopped.set()

        return StreamingResponse(body())

    async with listening(app) as client:
        async with client.stream("GET", "/news") as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"first"
            taken.set()
            assert (await anext(parts)).startswith(b"next")
        await stopped.wait()
    assert calls == 1


async def test_a_hit_says_once_when_it_was_sent_and_how_old_it_is() -> None:
    """RFC 9110 section 6.6.1: Date is the server's, which knows of no other; Age is the cache's."""
    app = FastAPI()

    @app.get("/page")
    @cache(60)
    async def page() -> Response:
        return PlainTextResponse("page", headers={"Date": "Sat, 21 Nov 2026 10:00:00 GMT"})

    async with listening(app) as client:
        answers = [await client.get("/page") for _ in range(2)]
    assert [status(answer) for answer in answers] == ["fwd=uri-miss", "hit"]
    for answer in answers:
        assert len(answer.headers.get_list("date")) == 1
    assert answers[1].headers.get_list("age") == ["0"]


async def test_a_miss_is_answered_before_its_background_task_has_run() -> None:
    app, go_on = FastAPI(), asyncio.Event()

    @app.get("/report")
    @cache(60)
    async def report() -> Response:
        return PlainTextResponse("report", background=BackgroundTask(go_on.wait))

    async with listening(app) as client:
        assert (await client.get("/report")).text == "report"
        assert status(await client.get("/report")) == "hit"
        go_on.set()


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_file_is_whole_whatever_its_size(tmp_path: Path, size: int) -> None:
    app, path = FastAPI(), tmp_path / "file.bin"
    path.write_bytes(bytes(size))

    @app.get("/file")
    @cache(60)
    async def file() -> Response:
        return FileResponse(path)

    async with listening(app) as client:
        for _ in range(3):
            answer = await client.get("/file")
            assert (answer.status_code, answer.content) == (200, bytes(size))
