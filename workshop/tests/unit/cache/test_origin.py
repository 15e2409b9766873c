"""How a route is asked on a miss: once, and for nothing but its answer."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.types import Message

from app.cache import Cache, InMemoryBackend, cache
from app.cache.events import Counters
from tests.unit.cache.serving import entry_count, serving, status

SECONDS = 5


@pytest.fixture
def memory() -> Cache:
    return Cache(InMemoryBackend(), name="test", recorder=Counters())


def counted(cache: Cache, event: str, label: str) -> float:
    assert isinstance(cache.recorder, Counters)
    return cache.recorder.totals[event, label]


class Parts:
    """A route that streams; `started` counts its runs, `ended` those that were not cut off."""

    def __init__(self, *, last: int = 3) -> None:
        self.app, self.last = FastAPI(), last
        self.started, self.ended, self.stopped = 0, 0, asyncio.Event()

        @self.app.get("/parts")
        @cache(60, stale=60)
        async def parts() -> Response:
            self.started += 1
            return StreamingResponse(self.body(), media_type="text/plain")

    async def body(self) -> AsyncIterator[bytes]:
        try:
            for number in range(self.last):
                yield b"%d " % number
                await asyncio.sleep(0)
            self.ended += 1
        finally:
            self.stopped.set()


async def test_a_route_that_streams_runs_once_for_a_request(memory: Cache) -> None:
    route = Parts()
    async with serving(route.app, memory) as client:
        for number in (1, 2, 3):
            response = await client.get("/parts")
            assert (response.text, route.started) == ("0 1 2 ", number)
    assert (route.ended, await entry_count(memory)) == (3, 0)


async def test_requests_for_one_stream_have_one_each(memory: Cache) -> None:
    route = Parts()
    async with serving(route.app, memory) as client:
        answers = await asyncio.gather(*(client.get("/parts") for _ in range(5)))
    assert {answer.text for answer in answers} == {"0 1 2 "}
    assert route.started == route.ended == 5


async def test_head_of_a_stream_has_no_body(memory: Cache) -> None:
    async with serving(Parts().app, memory) as client:
        response = await client.head("/parts")
    assert (response.status_code, response.content) == (200, b"")


async def test_a_stream_ends_when_its_client_leaves(memory: Cache) -> None:
    route, sent = Parts(last=10**9), asyncio.Event()

    async def receive() -> Message:
        if not reads:
            reads.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body", b"").startswith(b"9 "):
            sent.set()

    reads: list[int] = []
    async with serving(route.app, memory), asyncio.timeout(SECONDS):
        await route.app(http_scope(memory, "/parts"), receive, send)
        await route.stopped.wait()


async def test_a_stream_is_not_made_for_a_request_that_was_cancelled(memory: Cache) -> None:
    route, asked, go_on = Parts(last=10**9), asyncio.Event(), asyncio.Event()

    @route.app.get("/late")
    @cache(60)
    async def late() -> Response:
        asked.set()
        await go_on.wait()
        return StreamingResponse(route.body())

    async with serving(route.app, memory) as client:
        request = asyncio.create_task(client.get("/late"))
        await asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        go_on.set()
        await until_nothing_runs(memory)


async def test_a_refresh_of_what_streams_by_now_leaves_nothing_running() -> None:
    now = [1000.0]
    memory = Cache(InMemoryBackend(), clock=lambda: now[0])
    route, app = Parts(last=10**9), FastAPI()
    streams = False

    @app.get("/changed")
    @cache(60, stale=600)
    async def changed() -> Response:
        return StreamingResponse(route.body()) if streams else PlainTextResponse("whole")

    async with serving(app, memory) as client:
        await client.get("/changed")
        streams, now[0] = True, now[0] + 100
        assert (await client.get("/changed")).text == "whole"
        await until_nothing_runs(memory)


async def until_nothing_runs(cache: Cache) -> None:
    async with asyncio.timeout(SECONDS):
        while cache.flights._tasks:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [RuntimeError, Exception])
async def test_a_stream_passes_an_application_that_handles_every_error(
    memory: Cache, error: type[Exception]
) -> None:
    route = Parts()

    @route.app.exception_handler(error)
    async def handle(*_: object) -> Response:
        return PlainTextResponse("handled", 500)

    async with serving(route.app, memory) as client:
        response = await client.get("/parts")
    assert (response.status_code, response.text) == (200, "0 1 2 ")


async def test_a_stream_that_fails_before_its_first_part_is_an_error(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/fails")
    @cache(60)
    async def fails() -> Response:
        async def body() -> AsyncIterator[bytes]:
            raise ZeroDivisionError
            yield b""

        return StreamingResponse(body())

    async with serving(app, memory) as client:
        assert (await client.get("/fails")).status_code == 500


async def test_what_runs_after_the_answer_keeps_nobody_waiting(memory: Cache) -> None:
    app, done = FastAPI(), asyncio.Event()
    order: list[str] = []

    async def work() -> None:
        await done.wait()
        order.append("work")

    async def connection() -> AsyncIterator[None]:
        yield
        order.append("cleaned up")

    @app.get("/report", dependencies=[Depends(connection)])
    @cache(60)
    async def report() -> Response:
        return PlainTextResponse("report", background=BackgroundTask(work))

    async with serving(app, memory) as client, asyncio.timeout(SECONDS):
        assert (await client.get("/report")).text == "report"
        assert status(await client.get("/report")) == "hit"
        assert order == []
        done.set()
    # The end of the cache waits for it.
    assert order == ["work", "cleaned up"]


async def test_what_fails_after_the_answer_is_logged(
    memory: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    async def work() -> None:
        raise ZeroDivisionError

    @app.get("/report")
    @cache(60)
    async def report() -> Response:
        return PlainTextResponse("report", background=BackgroundTask(work))

    async with serving(app, memory) as client:
        assert (await client.get("/report")).status_code == 200
    assert "GET /report failed after its answer" in caplog.text
    assert counted(memory, "error", "background") == 1


async def test_a_file_is_stored_with_its_content_by_a_server_that_sends_by_path(
    memory: Cache, tmp_path: Path
) -> None:
    app, path = FastAPI(), tmp_path / "logo.txt"
    path.write_text("the file")

    @app.get("/logo")
    @cache(60)
    async def logo() -> Response:
        return FileResponse(path)

    bodies = []
    async with serving(app, memory):
        scope = http_scope(memory, "/logo") | {"extensions": {"http.response.pathsend": {}}}
        for _ in range(2):
            sent: list[Message] = []
            await app(scope | {"headers": []}, nothing_to_read, collector(sent))
            bodies.append(b"".join(message.get("body", b"") for message in sent))
    assert bodies == [b"the file"] * 2


async def test_a_hit_promises_no_ranges(memory: Cache, tmp_path: Path) -> None:
    app, path = FastAPI(), tmp_path / "logo.txt"
    path.write_text("the file")

    @app.get("/logo")
    @cache(60)
    async def logo() -> Response:
        return FileResponse(path)

    async with serving(app, memory) as client:
        for _ in range(2):
            response = await client.get("/logo", headers={"range": "bytes=0-2"})
            assert (response.status_code, response.text) == (200, "the file")
            assert "accept-ranges" not in response.headers
    assert status(response) == "hit"


async def test_head_goes_to_an_endpoint_of_its_own(memory: Cache) -> None:
    app = FastAPI()

    @app.head("/items/{name}")
    async def head(name: str, response: Response) -> None:
        response.headers["X-Own"] = name

    @app.get("/items/{name}")
    @cache(60)
    async def get(name: str) -> str:
        return name

    @app.get("/others")
    @cache(60)
    async def others() -> str:
        return "others"

    async with serving(app, memory) as client:
        for _ in range(2):
            assert (await client.get("/items/a")).json() == "a"
            assert (await client.head("/items/a")).headers["x-own"] == "a"
            assert (await client.head("/others")).status_code == 200


async def test_a_private_404_is_for_the_request_that_it_was_made_for(memory: Cache) -> None:
    app, calls = FastAPI(), Counter[str]()

    @app.get("/missing")
    @cache(60)
    async def missing() -> Response:
        calls["missing"] += 1
        await asyncio.sleep(0.01)
        return PlainTextResponse("not yours", 404, headers={"Cache-Control": "private, no-store"})

    async with serving(app, memory) as client:
        await asyncio.gather(*(client.get("/missing") for _ in range(3)))
    assert calls["missing"] == 3


@pytest.mark.parametrize("now_it", ["raises", "streams"])
async def test_an_origin_that_fails_is_replaced_by_what_it_said_before(now_it: str) -> None:
    now = [1000.0]
    memory, route, app = Cache(InMemoryBackend(), clock=lambda: now[0]), Parts(), FastAPI()
    good = True

    @app.get("/page")
    @cache(60, stale_if_error=600)
    async def page() -> Response:
        if good:
            return PlainTextResponse("whole")
        if now_it == "raises":
            raise ZeroDivisionError
        return StreamingResponse(route.body())

    async with serving(app, memory) as client:
        await client.get("/page")
        good, now[0] = False, now[0] + 100
        response = await client.get("/page")
    assert response.text == ("whole" if now_it == "raises" else "0 1 2 ")


async def test_a_run_that_is_cut_off_at_the_end_of_the_cache_is_no_error(
    memory: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.engine.DRAIN_SECONDS", 0.01)
    app, asked = FastAPI(), asyncio.Event()

    @app.get("/never")
    @cache(60)
    async def never() -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(app, memory) as client:
        request = asyncio.create_task(client.get("/never"))
        await asked.wait()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert caplog.text == ""


async def test_what_is_never_stored_is_said_once(
    memory: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "app.cache")
    memory._hits_for_miss = Forgetful()
    async with serving(Parts().app, memory) as client:
        for _ in range(3):
            await client.get("/parts")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "GET /parts is answered without the cache"
    ]
    assert counted(memory, "rejected", "stream") == 3


class Forgetful(dict[str, tuple[float, str]]):
    def __setitem__(self, key: str, value: tuple[float, str]) -> None: ...


def http_scope(cache: Cache, path: str) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [], "state": {"cache": cache}, "root_path": "",
        "scheme": "http", "server": ("test", 80), "asgi": {"spec_version": "2.3"},
        "extensions": {},
    }  # fmt: skip


async def nothing_to_read() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def collector(sent: list[Message]) -> Any:
    async def send(message: Message) -> None:
        sent.append(message)

    return send
