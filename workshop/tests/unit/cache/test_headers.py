"""What a hit says in its headers, and how those of a request are read, by RFC 9110, 9111, 9211."""

import gzip
import threading
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from app.cache import Cache, InMemoryBackend, cache
from app.cache.http import payload
from app.cache.http.routes import CachedRoute
from app.cache.store import MAX_PAYLOAD_BYTES
from tests.unit.cache.serving import entry_count, serving, status


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Cache:
    return Cache(InMemoryBackend(), name="test", clock=clock)


def app_of(body: str = "body", **headers: str) -> FastAPI:
    app = FastAPI()

    @app.get("/page")
    @cache(600)
    async def page() -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return PlainTextResponse(body, headers=named)

    return app


async def test_age_counts_from_what_the_origin_says(memory: Cache, clock: Clock) -> None:
    """RFC 9111 section 5.1: an estimate of the time since the origin made the response."""
    async with serving(app_of(age="30"), memory) as client:
        miss = await client.get("/page")
        clock.now += 12
        hit = await client.get("/page")
        known = await client.get("/page", headers={"if-none-match": hit.headers["etag"]})
    assert (miss.headers["age"], hit.headers["age"], known.headers["age"]) == ("30", "42", "42")
    assert known.status_code == 304


async def test_cache_status_is_appended_to_that_of_the_origin(memory: Cache) -> None:
    """RFC 9211 section 2: the list goes from the cache next to the origin to that next to the
    user."""
    async with serving(app_of(cache_status="upstream; hit"), memory) as client:
        for expected in ("test; fwd=uri-miss; stored", "test; hit; ttl="):
            lines = (await client.get("/page")).headers.get_list("cache-status")
            assert lines[0] == "upstream; hit"
            assert lines[1].startswith(expected)


async def test_what_is_stored_and_how_long_it_is_fresh_agree_with_expires(
    memory: Cache, clock: Clock
) -> None:
    date, expires = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:01:00 GMT"
    async with serving(app_of(date=date, expires=expires), memory) as client:
        await client.get("/page")
        clock.now += 20
        hit = await client.get("/page")
    # RFC 9111 section 4.2: 40 seconds remain.
    assert (hit.headers["cache-control"], hit.headers["age"]) == ("max-age=60", "20")
    assert "expires" not in hit.headers


async def test_several_lines_of_a_request_header_count_as_one_list(memory: Cache) -> None:
    """RFC 9110 section 5.3."""
    async with serving(app_of("a" * 5000), memory) as client:
        etag = (await client.get("/page")).headers["etag"]
        for other in (('"x"', etag), (etag, '"x"')):
            lines = [("if-none-match", value) for value in other]
            assert (await client.get("/page", headers=lines)).status_code == 304
        for codings in (("gzip", "br"), ("br", "gzip"), ("BR", "GZip")):
            request = httpx.Request("GET", "http://test/page", headers=[])
            request.headers = httpx.Headers([("accept-encoding", value) for value in codings])
            assert (await client.send(request)).headers["content-encoding"] == "gzip"


async def test_an_answer_that_is_too_large_is_whole_and_not_said_to_be_stored(
    memory: Cache,
) -> None:
    body = "a" * (MAX_PAYLOAD_BYTES + 1)
    async with serving(app_of(body), memory) as client:
        for _ in range(2):
            response = await client.get("/page")
            assert (response.text, status(response)) == (body, "fwd=uri-miss")
            assert "stored" not in response.headers["cache-status"]
            assert "content-encoding" not in response.headers
    assert await entry_count(memory) == 0


async def test_a_large_answer_is_compressed_beside_the_event_loop(
    memory: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def compress(*args: Any, **options: Any) -> bytes:
        threads.append(threading.get_ident())
        return gzip.compress(*args, **options)

    monkeypatch.setattr(payload, "compress", compress)
    body = "a" * 500_000
    async with serving(app_of(body), memory) as client:
        miss, hit = await client.get("/page"), await client.get("/page")
    assert miss.headers["content-encoding"] == hit.headers["content-encoding"] == "gzip"
    assert miss.text == hit.text == body
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


async def test_a_new_shape_of_an_answer_is_sent_to_clients_that_have_the_old_one() -> None:
    """A deployment adds a field: the version in the ETag of the endpoint is the same."""
    etags: list[str] = []
    for body in ("name", "name and moons"):
        async with serving(app_of(body, etag='"v1"'), Cache(InMemoryBackend())) as client:
            for _ in range(2):
                known = {"if-none-match": etags[0]} if etags else {}
                response = await client.get("/page", headers=known)
                assert (response.status_code, response.text) == (200, body)
            etags.append(response.headers["etag"])


async def test_keys_of_long_requests_are_not_remembered(memory: Cache) -> None:
    """Clients choose them: 4,096 would be tens of megabytes."""
    app = FastAPI()

    @app.get("/search")
    @cache(600)
    async def search(q: str) -> int:
        return len(q)

    async with serving(app, memory) as client:
        before = CachedRoute._remembered.cache_info().currsize
        for _ in range(2):
            response = await client.get("/search", params={"q": "x" * 3000})
            assert response.json() == 3000
        assert CachedRoute._remembered.cache_info().currsize == before
        await client.get("/search", params={"q": "x"})
        assert CachedRoute._remembered.cache_info().currsize == before + 1
    assert status(response) == "hit"
