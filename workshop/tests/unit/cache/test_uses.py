"""One decorator on endpoints and on functions: each use is told from the other, each time."""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Header, Query, WebSocket
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache import Cache, CacheMiddleware, InMemoryBackend, PolicyError, cache
from app.cache.context import active_cache
from tests.unit.cache.serving import serving, status

calls: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@pytest.fixture
def memory() -> Cache:
    return Cache(InMemoryBackend(), name="test")


@pytest.fixture
def opened(memory: Cache) -> Iterator[Cache]:
    token = active_cache.set(memory)
    yield memory
    active_cache.reset(token)


async def create(name: Annotated[str, Body()]) -> str:
    calls[name] += 1
    return name


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return inner


def by_decorator(app: FastAPI, method: str) -> None:
    app.api_route("/planets", methods=[method])(cache(60)(create))


def by_the_other_order(app: FastAPI, method: str) -> None:
    cache(60)(app.api_route("/planets", methods=[method])(create))


def by_add_api_route(app: FastAPI, method: str) -> None:
    app.add_api_route("/planets", cache(60)(create), methods=[method])


def by_router(app: FastAPI, method: str) -> None:
    router = APIRouter(prefix="/planets")
    router.add_api_route("", cache(60)(create), methods=[method])
    app.include_router(router)


def by_decorator_between(app: FastAPI, method: str) -> None:
    app.api_route("/planets", methods=[method])(passed_on(cache(60)(create)))


def by_partial(app: FastAPI, method: str) -> None:
    app.api_route("/planets", methods=[method])(functools.partial(cache(60)(create)))


def by_mount(app: FastAPI, method: str) -> None:
    sub = FastAPI()
    by_decorator(sub, method)
    app.mount("/v1", sub)


ADDED = [
    by_decorator,
    by_the_other_order,
    by_add_api_route,
    by_router,
    by_decorator_between,
    by_partial,
    by_mount,
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("add", ADDED)
def test_a_cached_write_is_refused_when_the_application_starts(
    memory: Cache, add: Callable[[FastAPI, str], None], method: str
) -> None:
    app = FastAPI()
    add(app, method)
    with pytest.raises(PolicyError, match=rf"{method} /planets \(.*create\): only GET"):
        memory.bind(app)


async def test_a_write_that_is_added_late_is_executed_each_time(memory: Cache) -> None:
    app = FastAPI()
    async with serving(app, memory) as client:
        by_decorator(app, "POST")
        for _ in range(2):
            assert (await client.post("/planets", json="Mars")).json() == "Mars"
    assert calls == {"Mars": 2}


def test_the_decorator_without_parentheses_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"create: write @cache\(expire=60\)"):
        cache(create)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["tags", "vary"])
def test_a_text_where_a_list_belongs_is_refused(option: str) -> None:
    with pytest.raises(PolicyError, match=rf'create: .*write {option}=\["books"\]'):
        cache(60, **{option: "books"})(create)  # type: ignore[arg-type]


def test_a_second_decorator_is_refused() -> None:
    with pytest.raises(PolicyError, match="create: it has a @cache already"):
        cache(60)(passed_on(cache(30)(create)))


def test_what_is_no_function_is_refused() -> None:
    class Model:
        async def __call__(self) -> int:
            return 1

    with pytest.raises(PolicyError, match=r"a .*Model is no function"):
        cache(60)(Model())


async def caller(authorization: Annotated[str, Header()]) -> str:
    return authorization


@pytest.mark.parametrize(
    "options",
    [
        {"guard": caller},
        {"guard": caller, "per_user": True},
        {"vary": ["accept-language"]},
        {"public": True},
        {"browser": "max-age=60"},
        {"expire_not_found": 5},
    ],
    ids=lambda options: ", ".join(options),
)
async def test_options_of_http_on_a_function_that_is_called_are_refused_by_name(
    opened: Cache, options: dict[str, Any]
) -> None:
    @cache(60, **options)
    async def profile() -> str:
        return "of Alice"

    with pytest.raises(PolicyError, match="profile: " + ", ".join(options)):
        await profile()


both_run = asyncio.Event()


@cache(60)
async def both(limit: int = 20) -> int:
    calls["both"] += 1
    return limit


@pytest.mark.parametrize("bound_first", [True, False])
async def test_a_function_is_cached_as_what_it_is_used_as(memory: Cache, bound_first: bool) -> None:
    app = FastAPI()

    @app.get("/sum")
    async def total() -> int:
        return await both(1) + await both(1)

    app.get("/both")(both)
    token = active_cache.set(memory)
    if not bound_first:
        assert [await both(1), await both(1)] == [1, 1]
    async with serving(app, memory) as client:
        assert [(await client.get("/sum")).json() for _ in range(2)] == [2, 2]
        assert calls["both"] == 1
        served = [await client.get("/both?limit=1") for _ in range(2)]
        assert [status(answer) for answer in served] == ["fwd=uri-miss", "hit"]
        assert [await both(1), await both(1)] == [1, 1]
    active_cache.reset(token)
    assert calls["both"] == 2


async def test_an_endpoint_that_another_calls_is_a_function_there(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/tree")
    @cache(60)
    async def tree(depth: int = 2) -> list[Any]:
        calls[f"tree {depth}"] += 1
        return [await tree(depth - 1), await tree(depth - 1)] if depth else []

    async with serving(app, memory) as client:
        answers = [(await client.get("/tree")).json() for _ in range(2)]
    assert answers == [[[[], []], [[], []]]] * 2
    assert calls == {"tree 2": 1, "tree 1": 1, "tree 0": 1}


async def test_a_function_is_cached_as_a_dependency_too(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/planets")
    async def planets(limit: Annotated[int, Depends(both)]) -> int:
        return limit

    async with serving(app, memory) as client:
        assert [(await client.get("/planets?limit=3")).json() for _ in range(2)] == [3, 3]
    assert calls["both"] == 1


class Service:
    def __init__(self, name: str) -> None:
        self.name = name

    @cache(60)
    async def planets(self, limit: int = 20) -> list[str]:
        calls[self.name] += 1
        return [self.name] * limit

    async def moons(self, limit: int = 20) -> list[str]:
        calls[self.name] += 1
        return [self.name] * limit


@pytest.mark.parametrize("decorated", ["class", "object"])
async def test_a_bound_method_is_an_endpoint(memory: Cache, decorated: str) -> None:
    app = FastAPI()
    for name in ("Mars", "Venus"):
        service = Service(name)
        method = service.planets if decorated == "class" else cache(60)(service.moons)
        app.get(f"/{name}")(method)
    async with serving(app, memory) as client:
        for name in ("Mars", "Venus") * 2:
            answer = await client.get(f"/{name}?limit=1")
            assert (answer.status_code, answer.json()) == (200, [name])
    assert status(answer) == "hit"
    assert calls == {"Mars": 1, "Venus": 1}


class Session:
    pass


def session() -> Session:
    return Session()


def rich_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware)

    @app.get("/planets", dependencies=[Depends(caller)])
    @cache(60, guard=caller)
    async def planets(opened: Annotated[Session, Depends(session)], limit: int = 20) -> int:
        calls["planets"] += 1
        return limit

    @app.get("/moons")
    @cache(60, public=True)
    def moons(limit: int = 20) -> int:
        calls["moons"] += 1
        return limit

    return app


@pytest.mark.parametrize("path", ["/planets", "/moons"])
async def test_an_application_whose_lifespan_did_not_run_answers_uncached_and_says_so_once(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = httpx.ASGITransport(rich_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(2):
            answer = await client.get(path, headers={"authorization": "x"})
            assert (answer.status_code, answer.json()) == (200, 20)
    assert calls[path[1:]] == 2
    assert ["the lifespan" in record.getMessage() for record in caplog.records] == [True]


class Copying:
    """Middleware that hands on a copy of the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


@pytest.mark.parametrize("path", ["/planets", "/moons"])
async def test_middleware_that_copies_the_scope_hides_no_endpoint(memory: Cache, path: str) -> None:
    app = FastAPI()
    app.add_middleware(Copying)
    app.add_middleware(CacheMiddleware, skips=[Copying])
    app.router.routes.extend(rich_app().router.routes)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"cache": memory}}, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for expected in ("fwd=uri-miss", "hit"):
            answer = await client.get(path, headers={"authorization": "x"})
            assert (answer.status_code, status(answer)) == (200, expected)


async def test_a_mounted_application_without_the_middleware_answers_uncached(
    memory: Cache,
) -> None:
    app, sub = FastAPI(), FastAPI()
    sub.router.routes.extend(rich_app().router.routes)
    app.mount("/v1", sub)
    async with serving(app, memory) as client:
        for _ in range(2):
            for path in ("/planets", "/moons"):
                answer = await client.get(f"/v1{path}", headers={"authorization": "x"})
                assert (answer.status_code, answer.json()) == (200, 20)
    assert calls == {"planets": 2, "moons": 2}


@pytest.mark.parametrize("path", ["/planets", "/moons"])
async def test_a_route_that_is_added_after_the_start_answers_uncached_and_says_so_once(
    memory: Cache, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    async with serving(app, memory) as client:
        app.router.routes.extend(rich_app().router.routes)
        for _ in range(2):
            answer = await client.get(path, headers={"authorization": "x"})
            assert (answer.status_code, answer.json()) == (200, 20)
    assert calls[path[1:]] == 2
    messages = [record.getMessage() for record in caplog.records]
    assert [path[1:] in message and "added after the start" in message for message in messages] == [
        True
    ]


def in_a_websocket(app: FastAPI) -> None:
    @app.websocket("/both")
    async def both_over_websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(await both(7))
        await websocket.close()


async def over_websocket(app: ASGIApp) -> str:
    """What a client is sent that connects to `/both`."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/both", "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return str(next(message["text"] for message in sent if message["type"] == "websocket.send"))


async def test_a_function_is_cached_in_a_websocket_handler(memory: Cache) -> None:
    app = FastAPI()
    app.add_middleware(CacheMiddleware)
    in_a_websocket(app)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"cache": memory}}, receive, send)

    assert [await over_websocket(with_state) for _ in range(2)] == ["7", "7"]
    assert calls["both"] == 1


async def test_a_function_in_a_websocket_handler_without_a_cache_runs_uncached() -> None:
    app = FastAPI()
    in_a_websocket(app)
    assert [await over_websocket(app) for _ in range(2)] == ["7", "7"]
    assert calls["both"] == 2


def test_a_cached_websocket_is_refused(memory: Cache) -> None:
    app = FastAPI()

    @app.websocket("/ws")
    @cache(60)
    async def socket(websocket: WebSocket) -> None: ...

    with pytest.raises(PolicyError, match=r"/ws \(.*socket\): only GET can be cached"):
        memory.bind(app)


async def test_a_function_that_calls_its_like_does_not_wait_for_itself(opened: Cache) -> None:
    def named_alike(inner: Callable[[int], Any] | None) -> Callable[[int], Any]:
        @cache(60)
        async def value(x: int) -> int:
            calls["value"] += 1
            return x if inner is None else await inner(x) + 1

        return value

    async with asyncio.timeout(5):
        chain = named_alike(named_alike(named_alike(None)))
        assert [await chain(1), await chain(1)] == [3, 3]
    assert calls["value"] == 3


async def test_a_function_that_comes_back_to_itself_computes_directly(opened: Cache) -> None:
    @cache(60)
    async def one(x: int) -> int:
        calls["one"] += 1
        return await other(x) if calls["one"] == 1 else x

    @cache(60)
    async def other(x: int) -> int:
        return await one(x) + 1

    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(one(1) for _ in range(5)))
    assert set(answers) == {2}
    assert calls["one"] == 2


async def test_two_functions_that_call_each_other_do_not_wait_for_each_other(opened: Cache) -> None:
    @cache(60)
    async def one(x: int) -> int:
        calls["one"] += 1
        await both_run.wait()
        return await other(x) if calls["one"] == 1 else x

    @cache(60)
    async def other(x: int) -> int:
        calls["other"] += 1
        await both_run.wait()
        return await one(x) + 1

    async with asyncio.timeout(5):
        started = asyncio.gather(one(1), other(1))
        while calls.total() < 2:
            await asyncio.sleep(0)
        both_run.set()
        assert [*await started] == [2, 2]


async def test_an_endpoint_that_asks_for_itself_computes_directly(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/self")
    @cache(60)
    async def itself(again: Annotated[bool, Query()] = True) -> int:
        calls["self"] += 1
        return 1 if calls["self"] > 1 else 1 + (await client.get("/self")).json()

    async with serving(app, memory) as client, asyncio.timeout(5):
        assert (await client.get("/self")).json() == 2


async def test_closures_of_one_factory_are_told_apart(opened: Cache) -> None:
    def scaled_by(factor: int) -> Callable[[int], Any]:
        @cache(60)
        async def scaled(x: int) -> int:
            return x * factor

        return scaled

    def applying(function: Callable[[int], int]) -> Callable[[int], Any]:
        @cache(60)
        async def applied(x: int) -> int:
            return function(x)

        return applied

    twice, thrice = scaled_by(2), scaled_by(3)
    assert [await twice(1), await thrice(1), await twice(1)] == [2, 3, 2]
    increased = applying(
        lambda x: x + 1,
    )
    decreased = applying(
        lambda x: x - 1,
    )
    assert [await increased(1), await decreased(1)] == [2, 0]


async def test_two_functions_of_one_name_are_told_apart(opened: Cache) -> None:
    def made(kind: str) -> Any:
        if kind == "one":

            @cache(60)
            async def value() -> int:
                return 1
        else:

            @cache(60)
            async def value() -> int:
                return 2

        return value

    assert [await made(kind)() for kind in ("one", "other", "one")] == [1, 2, 1]


async def test_a_result_of_another_build_is_invalidated_too(opened: Cache) -> None:
    def built(annotation: Any) -> Any:
        async def planet(name: str) -> Any:
            calls["planet"] += 1
            return 1

        planet.__annotations__["return"] = annotation
        return cache(60)(planet)

    old, new = built(int), built(int | None)
    for function in (old, new):
        await function("Mars")
    await new.invalidate("Mars")
    for function in (old, new):
        await function("Mars")
    assert calls == {"planet": 4}


async def test_methods_of_two_objects_are_told_apart_or_refused(opened: Cache) -> None:
    one, other = (cache(60)(Service(name).moons) for name in ("Mars", "Venus"))
    for moons in (one, other):
        with pytest.raises(TypeError, match=r"moons: 'self' is a Service, which"):
            await moons(1)


async def test_a_closure_over_what_has_no_identity_is_refused_by_name(opened: Cache) -> None:
    def of(client: Session) -> Callable[[], Any]:
        @cache(60)
        async def rates() -> int:
            return id(client)

        return rates

    with pytest.raises(TypeError, match=r"rates: of what it closes over, 'client' is a Session"):
        await of(Session())()
