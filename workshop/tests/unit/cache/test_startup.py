"""What cannot be cached safely is refused when the application starts, with the route named."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, Header, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import AliasChoices, BaseModel
from starlette.middleware.base import RequestResponseEndpoint
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.cache import (
    Cache,
    CacheMiddleware,
    InMemoryBackend,
    PolicyError,
    cache,
    shared_dependency,
)


def bind(endpoint: Callable[..., Any], **route: Any) -> None:
    app = FastAPI()
    app.get("/planets", **route)(endpoint)
    Cache(InMemoryBackend()).bind(app)


class OpenHeaders(BaseModel, extra="allow"):
    x_user: str


async def whole_request(request: Request) -> str:
    return request.headers["x-user"]


@shared_dependency
async def session(request: Request) -> object:
    return request.state.session


@cache(60)
async def takes_request(request: Request) -> None: ...
@cache(60)
async def takes_background(background: BackgroundTasks) -> None: ...
@cache(60)
async def takes_header(accept_language: Annotated[str, Header()]) -> None: ...
@cache(60, vary=["x-new"])
async def takes_choice(
    user: Annotated[str, Header(validation_alias=AliasChoices("X-New", "x-old"))],
) -> None: ...
@cache(60, vary=["x-user"])
async def takes_all_headers(headers: Annotated[OpenHeaders, Header()]) -> None: ...
@cache(60, vary=["x-user"])
async def takes_perhaps_all(
    headers: Annotated[OpenHeaders | None, Header()] = None,
) -> None: ...
@cache(60)
async def takes_cookie(sid: Annotated[str, Cookie()]) -> None: ...
@cache(60)
async def takes_token(token: Annotated[Any, Depends(HTTPBearer())]) -> None: ...
@cache(60)
async def takes_user(user: Annotated[str, Depends(whole_request)]) -> None: ...
@cache(60, tags=["planet:{code}"])
async def tags_unknown() -> None: ...
@cache(60)
async def streams() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("endpoint", "route", "reason"),
    [
        (takes_request, {}, "takes the whole request"),
        (takes_background, {}, "background tasks would run on misses only"),
        (takes_header, {}, "headers that are not in vary: accept-language"),
        (takes_choice, {}, "headers that are not in vary: x-old"),
        (takes_all_headers, {}, "the endpoint takes all headers"),
        (takes_perhaps_all, {}, "the endpoint takes all headers"),
        (takes_cookie, {}, r"reads cookies \(sid\)"),
        (takes_token, {}, "is a security scheme"),
        (takes_user, {}, "dependency whole_request takes the whole request"),
        (tags_unknown, {}, r"tag 'planet:\{code\}' needs \['code'\]"),
        (streams, {}, "streams its response"),
        (takes_header, {"response_class": StreamingResponse}, "streams its response"),
    ],
)
def test_a_route_that_cannot_be_cached_is_refused_by_name(
    endpoint: Callable[..., Any], route: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PolicyError, match=reason) as raised:
        bind(endpoint, **route)
    assert "GET /planets" in str(raised.value)
    assert endpoint.__name__ in str(raised.value)


def test_a_mounted_application_is_judged_with_the_one_it_is_mounted_in() -> None:
    app, sub = FastAPI(), FastAPI()
    sub.get("/planets")(takes_request)
    app.mount("/v1", sub)
    with pytest.raises(PolicyError, match="takes_request"):
        Cache(InMemoryBackend()).bind(app)


@pytest.mark.parametrize("has_its_own", [True, False])
def test_a_mounted_application_without_its_own_middleware_is_named_at_the_start(
    has_its_own: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app, sub = FastAPI(), FastAPI(title="The planets")

    @sub.get("/planets")
    @cache(60)
    async def planets() -> int:
        return 8

    app.mount("/v1", sub)
    for application in (app, sub) if has_its_own else (app,):
        application.add_middleware(CacheMiddleware)
    Cache(InMemoryBackend()).bind(app)
    said = "GET /planets is answered without the cache: 'The planets' has no CacheMiddleware"
    assert (said in caplog.text) is not has_its_own


def test_a_guard_of_the_router_is_not_skipped_silently() -> None:
    @cache(60)
    async def planets() -> None: ...

    router = APIRouter(dependencies=[Depends(whole_request)])
    router.get("/planets")(planets)
    app = FastAPI()
    app.include_router(router)
    with pytest.raises(PolicyError, match="dependency whole_request"):
        Cache(InMemoryBackend()).bind(app)


def test_one_router_included_twice_is_judged_each_time() -> None:
    @cache(60)
    async def planets() -> None: ...

    router = APIRouter()
    router.get("/planets")(planets)
    app = FastAPI()
    app.include_router(router, prefix="/open")
    app.include_router(router, prefix="/closed", dependencies=[Depends(whole_request)])
    with pytest.raises(PolicyError, match="GET /closed/planets"):
        Cache(InMemoryBackend()).bind(app)


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_only_get_can_be_cached(method: str) -> None:
    @cache(60)
    async def planets() -> None: ...

    app = FastAPI()
    getattr(app, method)("/planets")(planets)
    app.api_route("/moons", methods=["GET", method.upper()])(planets)
    with pytest.raises(PolicyError, match="only GET can be cached"):
        Cache(InMemoryBackend()).bind(app)


def test_a_guard_that_the_route_does_not_depend_on_is_refused() -> None:
    @cache(60, guard=whole_request)
    async def planets() -> None: ...

    with pytest.raises(PolicyError, match="its guard whole_request is no dependency of the route"):
        bind(planets)


class Timed(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return super().get_route_handler()


class Hosted(APIRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope)


@cache(60)
async def planets(limit: int = 20) -> int:
    return limit


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Timed, "get_route_handler"), (Hosted, "matches")],
    ids=["handler", "match"],
)
@pytest.mark.parametrize("included", [False, True])
def test_a_route_class_that_a_hit_would_skip_is_refused_by_name(
    kind: type[APIRoute], method: str, included: bool
) -> None:
    app, router = FastAPI(), APIRouter(route_class=kind)
    router.get("/planets")(planets)
    app.include_router(router) if included else app.router.routes.extend(router.routes)
    with pytest.raises(PolicyError, match=rf"GET /planets .*{kind.__name__} overrides {method}"):
        Cache(InMemoryBackend()).bind(app)


def test_a_host_before_a_cached_route_is_refused_by_name() -> None:
    app = FastAPI()
    app.host("api.example", FastAPI())
    app.get("/planets")(planets)
    with pytest.raises(PolicyError, match=r"GET /planets .*a Host stands before it"):
        Cache(InMemoryBackend()).bind(app)


def test_a_host_after_all_cached_routes_is_accepted() -> None:
    app = FastAPI()
    app.get("/planets")(planets)
    app.host("api.example", FastAPI())
    Cache(InMemoryBackend()).bind(app)


async def mails(tasks: BackgroundTasks) -> None: ...


@shared_dependency
async def shared_mails(tasks: BackgroundTasks) -> None: ...


@pytest.mark.parametrize("dependency", [mails, shared_mails])
def test_background_tasks_of_a_dependency_are_refused_by_name(dependency: Any) -> None:
    with pytest.raises(PolicyError, match=r"GET /planets .*background .*mails adds some"):
        bind(planets, dependencies=[Depends(dependency)])


class Limited:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def timed(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def test_middleware_inside_the_cache_is_refused_by_name() -> None:
    app = FastAPI()
    app.add_middleware(Limited)
    app.add_middleware(CacheMiddleware)
    app.get("/planets")(planets)
    with pytest.raises(PolicyError, match="middleware Limited was added before CacheMiddleware"):
        Cache(InMemoryBackend()).bind(app)


def test_a_middleware_function_inside_the_cache_is_refused_by_its_own_name() -> None:
    app = FastAPI()
    app.middleware("http")(timed)
    app.add_middleware(CacheMiddleware, skips=[Limited])
    app.get("/planets")(planets)
    with pytest.raises(PolicyError, match="middleware timed was added before CacheMiddleware"):
        Cache(InMemoryBackend()).bind(app)


def test_middleware_that_a_hit_may_skip_or_that_sees_hits_is_accepted() -> None:
    app = FastAPI()
    app.add_middleware(Limited)
    app.add_middleware(CacheMiddleware, skips=[Limited])
    app.middleware("http")(timed)
    app.get("/planets")(planets)
    Cache(InMemoryBackend()).bind(app)


def test_what_is_safe_is_accepted() -> None:
    @cache(60, vary=["accept-language"])
    async def planets(
        accept_language: Annotated[str, Header()], shared: Annotated[object, Depends(session)]
    ) -> None: ...

    @cache(60, vary=["x-user"])
    async def alias(name: Annotated[str, Header(alias="X-User")]) -> None: ...

    bind(alias)

    @cache(60, guard=whole_request, per_user=True)
    async def moons(user: Annotated[str, Depends(whole_request)]) -> None: ...

    bind(planets)
    bind(moons)
