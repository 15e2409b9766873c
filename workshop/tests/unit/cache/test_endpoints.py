"""What clients see of a cached endpoint: keys, headers, conditions, and what is never shared."""

import asyncio
import gc
from collections import Counter
from typing import Annotated, Any

import pytest
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Response,
    WebSocket,
)
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel

from app.cache import Cache, CacheMiddleware, InMemoryBackend, cache
from tests.unit.cache.serving import entry_count, serving, status

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def memory() -> Cache:
    return Cache(InMemoryBackend(), name="test")


async def test_a_second_get_is_a_hit_with_the_same_answer(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/planets", status_code=200)
    @cache(60)
    async def planets(response: Response) -> list[str]:
        calls["planets"] += 1
        response.headers["X-Total"] = "2"
        return ["Mars", "Venus"]

    async with serving(app, memory) as client:
        miss, hit = await client.get("/planets"), await client.get("/planets")
    assert calls["planets"] == 1
    assert (status(miss), status(hit)) == ("fwd=uri-miss", "hit")
    assert miss.content == hit.content
    added = {"age", "cache-status"}
    assert {k: v for k, v in miss.headers.items() if k not in added} == {
        k: v for k, v in hit.headers.items() if k not in added
    }
    assert hit.headers["age"] == "0"
    assert hit.headers["cache-control"] == "no-cache"


async def test_head_is_answered_from_get(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/planets")
    @cache(60)
    async def planets() -> list[str]:
        calls["planets"] += 1
        return ["Mars"]

    async with serving(app, memory) as client:
        head, get = await client.head("/planets"), await client.get("/planets")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))
    assert (calls["planets"], status(get)) == (1, "hit")


async def test_head_is_answered_where_the_cache_is_bypassed(memory: Cache) -> None:
    async with serving(personal_app(), memory) as client:
        head = await client.head("/open", headers={"cookie": "sid=1"})
    assert (head.status_code, head.content, status(head)) == (200, b"", "fwd=bypass")


async def test_a_websocket_does_not_hide_a_cached_route(memory: Cache) -> None:
    app = FastAPI()

    @app.websocket("/planets")
    async def socket(websocket: WebSocket) -> None: ...

    @app.get("/planets")
    @cache(60)
    async def planets() -> list[str]:
        return ["Mars"]

    async with serving(app, memory) as client:
        await client.get("/planets")
        assert status(await client.get("/planets")) == "hit"


async def test_a_client_that_has_the_answer_gets_304(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/planets")
    @cache(60)
    async def planets() -> list[str]:
        return ["Mars" * 1000]

    async with serving(app, memory) as client:
        zipped = await client.get("/planets")
        plain = await client.get("/planets", headers={"accept-encoding": "identity"})
        assert zipped.headers["content-encoding"] == "gzip"
        assert zipped.content == plain.content
        again = await client.get("/planets", headers={"if-none-match": zipped.headers["etag"]})
        crossed = await client.get("/planets", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["vary"] == "accept-encoding"
    assert crossed.status_code == 200


class Filters(BaseModel, extra="forbid"):
    region: str | None = None


async def paging(offset: int = 0) -> int:
    return offset


def keyed_app() -> FastAPI:
    app = FastAPI()

    @app.get("/pages/{page:path}")
    @cache(60)
    async def page(
        page: str,
        offset: Annotated[int, Depends(paging)],
        limit: Annotated[int, Query(ge=1)] = 20,
        tag: Annotated[list[str] | None, Query()] = None,
    ) -> list[Any]:
        calls["page"] += 1
        return [page, offset, limit, tag]

    @app.get("/closed")
    @cache(60)
    async def closed(filters: Annotated[Filters, Query()]) -> str | None:
        return filters.region

    return app


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("/pages/a", "/pages/a?limit=20", True),
        ("/pages/a", "/pages/a?offset=0", True),
        ("/pages/a", "/pages/a?unknown=1", True),
        ("/pages/a?limit=5&offset=2", "/pages/a?offset=2&limit=5", True),
        ("/pages/a?limit=1&limit=5", "/pages/a?limit=5", True),
        ("/pages/a", "/pages/b", False),
        ("/pages/a", "/pages/a/", False),
        ("/pages/a?limit=5", "/pages/a?limit=6", False),
        ("/pages/a", "/pages/a?offset=10", False),
        ("/pages/a?tag=1&tag=2", "/pages/a?tag=2&tag=1", False),
        ("/pages/a?tag=1%26tag=2", "/pages/a?tag=1&tag=2", False),
        ("/pages/a%3Flimit=5", "/pages/a?limit=5", False),
        ("/closed?region=Asia", "/closed?region=Europe", False),
    ],
)
async def test_requests_share_an_entry_when_the_handler_cannot_tell_them_apart(
    memory: Cache, one: str, other: str, shared: bool
) -> None:
    async with serving(keyed_app(), memory) as client:
        first, second = await client.get(one), await client.get(other)
    assert (status(second) == "hit") is shared
    if shared:
        assert first.content == second.content


async def test_invalid_parameters_are_422_and_leave_no_entry(memory: Cache) -> None:
    async with serving(keyed_app(), memory) as client:
        for _ in range(2):
            assert (await client.get("/pages/a?limit=0")).status_code == 422
        await client.get("/closed")
        assert (await client.get("/closed?bogus=1")).status_code == 422
    assert await entry_count(memory) == 1


async def test_undeclared_parameters_mint_no_entries(memory: Cache) -> None:
    async with serving(keyed_app(), memory) as client:
        for number in range(500):
            await client.get(f"/pages/a?utm_{number}={number}")
    assert await entry_count(memory) == 1
    assert calls["page"] == 1


async def test_a_very_long_query_is_answered_and_not_cached(memory: Cache) -> None:
    async with serving(keyed_app(), memory) as client:
        response = await client.get("/pages/a?tag=" + "x" * 5000)
    assert (response.status_code, status(response)) == (200, "fwd=bypass")


async def test_one_router_under_two_prefixes_has_two_entries(memory: Cache) -> None:
    router = APIRouter()

    @router.get("/planets/{name}")
    @cache(60)
    async def planet(name: str) -> str:
        calls[name] += 1
        return name

    app, sub = FastAPI(), FastAPI()
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    sub.include_router(router)
    async with serving(app, memory) as client:
        answers = [await client.get(f"/{v}/planets/Mars") for v in ("v1", "v2", "v1", "v2")]
    assert [status(answer) for answer in answers] == ["fwd=uri-miss"] * 2 + ["hit"] * 2


def numbered_app() -> FastAPI:
    """Routes that name no tags: what each answers shows how often it was asked."""
    app = FastAPI()

    @app.get("/moons/{name}")
    @cache(60, public=True)
    async def moon(name: str) -> int:
        calls[name] += 1
        return calls[name]

    @app.get("/comets")
    @cache(60, public=True)
    async def comets() -> int:
        calls["comets"] += 1
        return calls["comets"]

    return app


async def test_clear_reaches_routes_that_name_no_tags(memory: Cache) -> None:
    async with serving(numbered_app(), memory) as client:
        before = [(await client.get("/moons/Io")).json() for _ in range(2)]
        await memory.clear()
        after = [(await client.get("/moons/Io")).json() for _ in range(2)]
    assert (before, after) == ([1, 1], [2, 2])


async def test_a_route_is_purged_by_its_method_and_path(memory: Cache) -> None:
    pages = ["/moons/Io", "/moons/Titan", "/comets"]
    async with serving(numbered_app(), memory) as client:
        for page in pages:
            await client.get(page)
        await memory.invalidate("GET /moons/{name}")
        answers = [status(await client.get(page)) for page in pages]
    assert answers == ["fwd=uri-miss", "fwd=uri-miss", "hit"]


async def test_a_mounted_application_is_purged_wherever_it_is_mounted(memory: Cache) -> None:
    app, mounted = FastAPI(), numbered_app()
    mounted.add_middleware(CacheMiddleware)
    pages = ["/one/comets", "/two/comets"]
    for mount in ("/one", "/two"):
        app.mount(mount, mounted)
    async with serving(app, memory) as client:
        first = [status(await client.get(page)) for page in pages]
        assert first == ["fwd=uri-miss"] * 2
        assert [status(await client.get(page)) for page in pages] == ["hit"] * 2
        await memory.invalidate("GET /comets")
        assert [status(await client.get(page)) for page in pages] == ["fwd=uri-miss"] * 2


async def test_a_route_declared_earlier_wins_as_in_the_router(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/planets/{name}")
    async def planet(name: str) -> str:
        return "not cached"

    @app.get("/planets/all")
    @cache(60)
    async def shadowed() -> str:
        return "never reached"

    async with serving(app, memory) as client:
        response = await client.get("/planets/all")
    assert response.json() == "not cached"
    assert "cache-status" not in response.headers


async def test_vary_keeps_answers_apart(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/greeting")
    @cache(60, vary=["accept-language"])
    async def greeting(accept_language: Annotated[str, Header()] = "en") -> str:
        return accept_language

    async with serving(app, memory) as client:
        german = await client.get("/greeting", headers={"accept-language": "de"})
        french = await client.get("/greeting", headers={"accept-language": "fr"})
        again = await client.get("/greeting", headers={"accept-language": "de"})
    assert (german.json(), french.json(), again.json()) == ("de", "fr", "de")
    assert status(again) == "hit"
    assert again.headers["vary"] == "accept-language"


async def test_a_repeated_header_does_not_poison_the_answer_of_another(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/greeting")
    @cache(60, vary=["accept-language"])
    async def greeting(accept_language: Annotated[str, Header()] = "en") -> str:
        return accept_language

    async with serving(app, memory) as client:
        for first in ("de", "fr"):
            lines = [("accept-language", first), ("accept-language", "en")]
            assert (await client.get("/greeting", headers=lines)).json() == first


async def user(authorization: Annotated[str, Header()]) -> str:
    if not authorization.startswith("Bearer "):
        raise HTTPException(401)
    return authorization.removeprefix("Bearer ")


def personal_app() -> FastAPI:
    app = FastAPI()

    @app.get("/me")
    @cache(60, guard=user, per_user=True)
    async def me(name: Annotated[str, Depends(user)]) -> str:
        calls[name] += 1
        return name

    @app.get("/members", dependencies=[Depends(user)])
    @cache(60, guard=user)
    async def members() -> str:
        calls["members"] += 1
        return "for members"

    @app.get("/open")
    @cache(60)
    async def undecided() -> str:
        calls["open"] += 1
        return "open"

    @app.get("/public")
    @cache(60, public=True)
    async def public() -> str:
        calls["public"] += 1
        return "public"

    return app


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


async def test_what_was_computed_for_one_user_is_never_served_to_another(memory: Cache) -> None:
    async with serving(personal_app(), memory) as client:
        for _ in range(2):
            assert (await client.get("/me", headers=bearer("alice"))).json() == "alice"
            assert (await client.get("/me", headers=bearer("bob"))).json() == "bob"
            assert (await client.get("/me")).status_code == 422
            assert (await client.get("/me", headers={"authorization": "no"})).status_code == 401
        hit = await client.get("/me", headers=bearer("alice"))
    assert calls == {"alice": 1, "bob": 1}
    assert hit.headers["cache-control"] == "private, no-cache"


async def test_a_guard_runs_before_every_hit(memory: Cache) -> None:
    async with serving(personal_app(), memory) as client:
        await client.get("/members", headers=bearer("alice"))
        hit = await client.get("/members", headers=bearer("bob"))
        refused = await client.get("/members", headers={"authorization": "no"})
    assert (status(hit), calls["members"]) == ("hit", 1)
    assert refused.status_code == 401


@pytest.mark.parametrize("credentials", [bearer("alice"), {"cookie": "sid=1"}])
async def test_requests_with_credentials_share_public_answers_only(
    memory: Cache, credentials: dict[str, str]
) -> None:
    async with serving(personal_app(), memory) as client:
        for _ in range(2):
            assert status(await client.get("/open", headers=credentials)) == "fwd=bypass"
            await client.get("/public", headers=credentials)
    assert calls == {"open": 2, "public": 1}
    assert await entry_count(memory) == 1


async def test_a_client_cannot_bypass_the_cache(memory: Cache) -> None:
    async with serving(personal_app(), memory) as client:
        for control in ("no-cache", "no-store", "max-age=0"):
            await client.get("/open", headers={"cache-control": control, "pragma": "no-cache"})
    assert calls["open"] == 1


async def test_a_client_can_bypass_the_cache_where_a_setting_allows_it() -> None:
    memory = Cache(InMemoryBackend(), client_may_bypass=True)
    async with serving(personal_app(), memory) as client:
        await client.get("/open")
        bypass = await client.get("/open", headers={"cache-control": "no-cache"})
        hit = await client.get("/open", headers={"cache-control": "max-age=0"})
    assert (status(bypass), status(hit)) == ("fwd=bypass", "hit")


async def test_a_dependency_override_is_respected(memory: Cache) -> None:
    app = personal_app()
    async with serving(app, memory) as client:
        await client.get("/me", headers=bearer("alice"))
        app.dependency_overrides[user] = lambda: "fake"
        assert (await client.get("/me")).json() == "fake"
        app.dependency_overrides.clear()
        assert (await client.get("/me", headers=bearer("alice"))).json() == "alice"


async def test_middleware_added_later_sees_hits(memory: Cache) -> None:
    app = personal_app()
    async with serving(app, memory) as client:
        app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
        for _ in range(2):
            response = await client.get("/open", headers={"origin": "https://a.example"})
    assert status(response) == "hit"
    assert response.headers["access-control-allow-origin"] == "https://a.example"


def uncacheable_app() -> FastAPI:
    app = FastAPI()

    @app.get("/cookie")
    @cache(60)
    async def cookie(response: Response) -> int:
        calls["cookie"] += 1
        response.set_cookie("number", str(calls["cookie"]))
        return calls["cookie"]

    @app.get("/stream")
    @cache(60)
    async def stream() -> Response:
        async def parts() -> Any:
            yield b"one "
            yield b"two"

        return StreamingResponse(parts(), media_type="text/plain")

    @app.get("/text")
    @cache(60)
    def text() -> PlainTextResponse:
        return PlainTextResponse("from a thread")

    @app.get("/fails")
    @cache(60)
    async def fails() -> None:
        calls["fails"] += 1
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    @app.get("/missing/{name}")
    @cache(60, expire_not_found=5)
    async def missing(name: str) -> None:
        calls["missing"] += 1
        raise HTTPException(404)

    return app


async def test_a_cookie_goes_to_the_client_it_was_made_for(memory: Cache) -> None:
    async with serving(uncacheable_app(), memory) as client:
        answers = await asyncio.gather(*(client.get("/cookie") for _ in range(10)))
    numbers = [answer.json() for answer in answers]
    assert sorted(numbers) == list(range(1, 11))
    for answer, number in zip(answers, numbers, strict=True):
        assert f"number={number};" in answer.headers["set-cookie"]


async def test_uncacheable_answers_do_not_queue_behind_each_other(memory: Cache) -> None:
    app, inside = FastAPI(), asyncio.Barrier(5)

    @app.get("/private")
    @cache(60)
    async def private(response: Response) -> None:
        calls["private"] += 1
        response.headers["cache-control"] = "no-store"
        if calls["private"] > 1:
            await inside.wait()

    async with serving(app, memory) as client, asyncio.timeout(5):
        await client.get("/private")
        answers = await asyncio.gather(*(client.get("/private") for _ in range(5)))
    assert {status(answer) for answer in answers} == {"fwd=uri-miss"}
    assert calls["private"] == 6


async def test_a_mounted_application_is_cached_where_it_is_mounted(memory: Cache) -> None:
    app, sub = FastAPI(), FastAPI()
    sub.add_middleware(CacheMiddleware)

    @sub.get("/planets")
    @cache(60)
    async def planets(limit: int = 20) -> int:
        calls["planets"] += 1
        return calls["planets"]

    app.mount("/v1", sub)
    app.mount("/v2", sub)
    async with serving(app, memory) as client:
        urls = ["/v1/planets", "/v2/planets", "/v1/planets?limit=20", "/v2/planets"]
        answers = [(await client.get(url)).json() for url in urls]
    assert answers == [1, 2, 1, 2]


async def test_a_stream_is_sent_whole_and_not_stored(memory: Cache) -> None:
    async with serving(uncacheable_app(), memory) as client:
        for _ in range(2):
            response = await client.get("/stream")
            assert (response.status_code, response.text) == (200, "one two")
    assert await entry_count(memory) == 0


async def test_a_sync_handler_and_its_media_type_are_cached(memory: Cache) -> None:
    async with serving(uncacheable_app(), memory) as client:
        await client.get("/text")
        hit = await client.get("/text")
    assert (status(hit), hit.text) == ("hit", "from a thread")
    assert hit.headers["content-type"] == "text/plain; charset=utf-8"


async def test_every_waiter_gets_the_error_and_nothing_is_cached(memory: Cache) -> None:
    async with serving(uncacheable_app(), memory) as client:
        answers = await asyncio.gather(*(client.get("/fails") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {500}
        assert calls["fails"] == 1
        await client.get("/fails")
    assert calls["fails"] == 2


@pytest.mark.parametrize("expire_not_found", [0, 5])
async def test_a_404_that_is_private_is_made_for_each_who_asks(
    memory: Cache, expire_not_found: float
) -> None:
    app = FastAPI()

    @app.get("/missing")
    @cache(60, expire_not_found=expire_not_found)
    async def missing() -> None:
        calls["missing"] += 1
        number = calls["missing"]
        await asyncio.sleep(0)
        raise HTTPException(404, number, {"cache-control": "private, no-store"})

    async with serving(app, memory) as client:
        answers = await asyncio.gather(*(client.get("/missing") for _ in range(5)))
    assert sorted(answer.json()["detail"] for answer in answers) == [1, 2, 3, 4, 5]


async def test_a_parameter_with_two_defaults_keeps_what_is_said_from_what_is_not(
    memory: Cache,
) -> None:
    app = FastAPI()

    async def page(limit: int = 20) -> int:
        return limit

    @app.get("/planets")
    @cache(60)
    async def planets(paged: Annotated[int, Depends(page)], limit: int = 50) -> list[int]:
        return [paged, limit]

    async with serving(app, memory) as client:
        for _ in range(2):
            for query, answer in (("", [20, 50]), ("?limit=20", [20] * 2), ("?limit=50", [50] * 2)):
                assert (await client.get(f"/planets{query}")).json() == answer


async def test_a_404_is_cached_when_the_policy_says_so(memory: Cache) -> None:
    async with serving(uncacheable_app(), memory) as client:
        answers = [await client.get("/missing/x") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert calls["missing"] == 1


async def test_a_miss_leaves_nothing_to_the_garbage_collector(memory: Cache) -> None:
    async with serving(keyed_app(), memory) as client:
        await client.get("/pages/first")
        gc.collect()
        gc.freeze()  # what other tests have left is not looked at
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await client.get("/pages/second")
            gc.collect()
            left = [each for each in gc.garbage if "app.cache" in str(module_of(each))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.unfreeze()
    assert left == []


def module_of(found: object) -> object:
    return getattr(found, "__module__", None)
