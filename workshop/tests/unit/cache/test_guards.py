"""Nobody gets another's answer: what guards let in, and what those who pass are told apart by."""

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Response,
    Security,
)
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel, PrivateAttr

from app.cache import Cache, InMemoryBackend, PolicyError, cache
from app.cache.events import Counters
from tests.unit.cache.serving import entry_count, serving, status

SCOPES = {"anna": {"read", "secrets"}, "bob": {"read"}}
token = OAuth2PasswordBearer("/token")
api_key = APIKeyHeader(name="x-key")


async def user(name: Annotated[str, Depends(token)], wanted: SecurityScopes) -> str:
    if not SCOPES.get(name, set()).issuperset(wanted.scopes):
        raise HTTPException(403)
    return name


async def member(name: Annotated[str, Depends(token)]) -> None:
    if name not in SCOPES:
        raise HTTPException(403)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


@pytest.fixture
def memory() -> Cache:
    return Cache(InMemoryBackend(), name="test")


def bind(endpoint: Callable[..., Any], **route: Any) -> None:
    app = FastAPI()
    app.get("/secrets", **route)(endpoint)
    Cache(InMemoryBackend()).bind(app)


async def secrets() -> str:
    return "secret"


async def my_secrets(name: Annotated[str, Security(user, scopes=["secrets"])]) -> str:
    return f"secret of {name}"


async def below(name: Annotated[str, Security(user, scopes=["secrets"])]) -> str:
    return name


async def deep_secrets(name: Annotated[str, Depends(below)]) -> str:
    return f"secret of {name}"


def scoped(**route: Any) -> FastAPI:
    app = FastAPI()
    app.get("/secrets", **route)(cache(60, guard=user)(secrets))
    return app


def scoped_router() -> FastAPI:
    router = APIRouter(dependencies=[Security(user, scopes=["secrets"])])
    router.get("/secrets")(cache(60, guard=user)(secrets))
    app = FastAPI()
    app.include_router(router)
    return app


def scoped_inclusion() -> FastAPI:
    router = APIRouter()
    router.get("/secrets")(cache(60, guard=user)(secrets))
    app = FastAPI()
    app.include_router(router, dependencies=[Security(user, scopes=["secrets"])])
    return app


def scoped_application() -> FastAPI:
    app = FastAPI(dependencies=[Security(user, scopes=["secrets"])])
    app.get("/secrets")(cache(60, guard=user)(secrets))
    return app


def scoped_argument(endpoint: Callable[..., Any] = my_secrets, **route: Any) -> FastAPI:
    app = FastAPI()
    app.get("/secrets", **route)(cache(60, guard=user, per_user=True)(endpoint))
    return app


@pytest.mark.parametrize(
    "app",
    [
        scoped(dependencies=[Security(user, scopes=["secrets"])]),
        scoped(dependencies=[Depends(user), Security(user, scopes=["secrets"])]),
        scoped_router(),
        scoped_inclusion(),
        scoped_application(),
        scoped_argument(),
        scoped_argument(deep_secrets),
        scoped_argument(secrets, dependencies=[Depends(below)]),
    ],
    ids=["route", "twice", "router", "inclusion", "application", "argument", "deep", "below"],
)
async def test_a_hit_runs_the_guard_with_the_scopes_that_the_route_declares(
    memory: Cache, app: FastAPI
) -> None:
    async with serving(app, memory) as client:
        for _ in range(2):
            allowed = await client.get("/secrets", headers=bearer("anna"))
            refused = await client.get("/secrets", headers=bearer("bob"))
            assert refused.status_code == 403
    assert (allowed.status_code, status(allowed)) == (200, "hit")


async def test_users_who_pass_with_scopes_are_told_apart(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/me")
    @cache(60, guard=user, per_user=True)
    async def me(name: Annotated[str, Security(user, scopes=["read"])]) -> str:
        return name

    async with serving(app, memory) as client:
        for _ in range(2):
            for name in ("anna", "bob"):
                assert (await client.get("/me", headers=bearer(name))).json() == name


async def takes_guard(name: Annotated[str, Depends(user)]) -> str:
    return name


async def named_after(name: Annotated[str, Depends(user)]) -> str:
    return name.upper()


async def takes_below(name: Annotated[str, Depends(named_after)]) -> str:
    return name


async def takes_scheme(key: Annotated[str, Depends(token)]) -> str:
    return key


async def claims(authorization: Annotated[str, Header()]) -> str:
    return authorization


async def by_claims(claimed: Annotated[str, Depends(claims)]) -> str:
    return claimed


async def takes_claims(claimed: Annotated[str, Depends(claims)]) -> str:
    return claimed


@pytest.mark.parametrize(
    ("endpoint", "guard", "dependencies", "reason"),
    [
        (takes_guard, user, [], "the endpoint takes what the guard user returns"),
        (takes_below, user, [], "dependency named_after takes what the guard user returns"),
        (secrets, user, [named_after], "dependency named_after takes what the guard user returns"),
        (takes_scheme, user, [user], "dependency OAuth2PasswordBearer is a security scheme"),
        (takes_claims, by_claims, [by_claims], "claims reads headers .* authorization"),
    ],
)
def test_what_computes_the_answer_may_take_only_what_the_key_holds(
    endpoint: Callable[..., Any], guard: Any, dependencies: list[Any], reason: str
) -> None:
    route = {"dependencies": [Depends(dependency) for dependency in dependencies]}
    with pytest.raises(PolicyError, match=reason) as raised:
        bind(cache(60, guard=guard)(endpoint), **route)
    assert endpoint.__name__ in str(raised.value)


def test_a_part_of_what_the_guard_knows_is_not_in_the_key_of_its_user() -> None:
    async def key_and_user(
        name: Annotated[str, Depends(user)], key: Annotated[str, Depends(token)]
    ) -> str:
        return key

    with pytest.raises(PolicyError, match="OAuth2PasswordBearer is a security scheme"):
        bind(cache(60, guard=user, per_user=True)(key_and_user))


async def test_a_guard_that_only_keeps_others_out_is_shared(memory: Cache) -> None:
    app = FastAPI()

    @app.get("/one", dependencies=[Depends(user)])
    @cache(60, guard=user)
    async def one() -> str:
        return "for all"

    @app.get("/other")
    @cache(60, guard=member)
    async def other(_: Annotated[None, Depends(member)]) -> str:
        return "for all"

    async with serving(app, memory) as client:
        for path in ("/one", "/other"):
            await client.get(path, headers=bearer("anna"))
            assert status(await client.get(path, headers=bearer("bob"))) == "hit"
            assert (await client.get(path)).status_code == 401


class Session:
    pass


class Plain(BaseModel):
    id: int


class Hidden(BaseModel):
    id: int
    _tenant: str = PrivateAttr("")


class Nested(BaseModel):
    owner: list[Hidden]


@dataclasses.dataclass
class FromOutside:
    id: int
    tenant: dataclasses.InitVar[str] = ""

    def __post_init__(self, tenant: str) -> None:
        self._tenant = tenant


class Slotted:
    __slots__ = ("id",)

    def __init__(self, number: int) -> None:
        self.id = number


class Loaded:
    """A dependency that is a class."""

    def __init__(self, name: Annotated[str, Depends(token)]) -> None:
        self.name = name


async def gives_nothing(name: Annotated[str, Depends(token)]) -> None: ...
async def gives_perhaps(name: Annotated[str, Depends(token)]) -> str | None:
    raise NotImplementedError


async def gives_session(name: Annotated[str, Depends(token)]) -> Session:
    raise NotImplementedError


async def gives_hidden(name: Annotated[str, Depends(token)]) -> Hidden:
    raise NotImplementedError


async def gives_nested(name: Annotated[str, Depends(token)]) -> Nested:
    raise NotImplementedError


async def gives_outside(name: Annotated[str, Depends(token)]) -> FromOutside:
    raise NotImplementedError


async def gives_slotted(name: Annotated[str, Depends(token)]) -> Slotted:
    raise NotImplementedError


async def yields_hidden(name: Annotated[str, Depends(token)]) -> AsyncIterator[Hidden]:
    yield Hidden(id=1)


@pytest.mark.parametrize(
    ("guard", "reason"),
    [
        (gives_nothing, "gives_nothing may return None, one key for all"),
        (gives_perhaps, "gives_perhaps may return None, one key for all"),
        (gives_session, "a Session has no stable identity"),
        (gives_hidden, "a Hidden keeps _tenant outside its fields"),
        (gives_nested, "a Hidden keeps _tenant outside its fields"),
        (gives_outside, "a FromOutside keeps tenant outside its fields"),
        (gives_slotted, "a Slotted has no stable identity"),
        (yields_hidden, "a Hidden keeps _tenant outside its fields"),
        (Loaded, "a Loaded has no stable identity"),
    ],
)
def test_a_guard_whose_annotation_shows_no_identity_is_refused_at_startup(
    guard: Any, reason: str
) -> None:
    with pytest.raises(PolicyError, match=reason):
        bind(cache(60, guard=guard, per_user=True)(secrets), dependencies=[Depends(guard)])


def hidden(tenant: str) -> Hidden:
    made = Hidden(id=1)
    made._tenant = tenant
    return made


def marked(tenant: str) -> Plain:
    made = Plain(id=1)
    object.__setattr__(made, "_tenant", tenant)
    return made


class Name(str):
    tenant = ""


def named(tenant: str) -> Name:
    made = Name("one")
    made.tenant = tenant
    return made


class Account(Slotted):
    __slots__ = ("tenant",)
    tenant: str


def account(tenant: str) -> Account:
    made = Account(1)
    made.tenant = tenant
    return made


WITHOUT_IDENTITY = [
    lambda name: None,
    hidden,
    marked,
    named,
    account,
    lambda name: FromOutside(1, name),
    lambda name: {"user": Session()},
]


def told_apart_by(make: Callable[[str], Any]) -> FastAPI:
    app = FastAPI()

    async def anybody(name: Annotated[str, Depends(token)]) -> Any:
        return make(name)

    @app.get("/me")
    @cache(60, guard=anybody, per_user=True)
    async def me(response: Response, made: Annotated[Any, Depends(anybody)]) -> str:
        return str(getattr(made, "_tenant", None) or getattr(made, "tenant", ""))

    return app


@pytest.mark.parametrize("make", WITHOUT_IDENTITY)
async def test_a_user_without_identity_is_answered_uncached_and_counted_in_production(
    make: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    memory = Cache(InMemoryBackend(), recorder=counters, strict=False)
    async with serving(told_apart_by(make), memory) as client:
        for _ in range(2):
            for name in ("anna", "bob"):
                response = await client.get("/me", headers=bearer(name))
                assert (response.status_code, status(response)) == (200, "fwd=bypass")
                assert response.json() in (name, "")
    assert await entry_count(memory) == 0
    assert counters.totals["refused", "identity"] == 4
    logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == 1
    assert "GET /me" in logged[0].getMessage()
    assert "anybody" in logged[0].getMessage()


@pytest.mark.parametrize("make", WITHOUT_IDENTITY)
async def test_a_user_without_identity_is_an_error_where_the_cache_is_strict(
    make: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(told_apart_by(make), Cache(InMemoryBackend(), strict=True)) as client:
        assert (await client.get("/me", headers=bearer("anna"))).status_code == 500


@pytest.mark.parametrize(
    "given",
    [None, "max-age=60", "no-cache", "private, max-age=60", "public, s-maxage=5"],
)
async def test_an_answer_for_one_user_is_private(memory: Cache, given: str | None) -> None:
    app = FastAPI()

    @app.get("/me")
    @cache(60, guard=user, per_user=True)
    async def me(response: Response, name: Annotated[str, Depends(user)]) -> str:
        if given is not None:
            response.headers["cache-control"] = given
        return name

    async with serving(app, memory) as client:
        miss = await client.get("/me", headers=bearer("anna"))
        hit = await client.get("/me", headers=bearer("anna"))
    assert status(hit) == "hit"
    for answer in (miss, hit):
        control = answer.headers["cache-control"].split(", ")
        assert control.count("private") == 1
        assert set((given or "no-cache").split(", ")) - set(control) <= {"public", "s-maxage=5"}
        assert "public" not in control


@pytest.mark.parametrize("refusal", [403, 404])
async def test_what_is_not_stored_of_one_user_is_private_too(memory: Cache, refusal: int) -> None:
    app = FastAPI()

    @app.get("/me")
    @cache(60, guard=user, per_user=True)
    async def me(name: Annotated[str, Depends(user)]) -> str:
        raise HTTPException(refusal)

    async with serving(app, memory) as client:
        for name in ("anna", "nobody"):
            answer = await client.get("/me", headers=bearer(name))
            assert answer.headers["cache-control"] == "private"


async def sets_header(response: Response, name: Annotated[str, Depends(token)]) -> str:
    response.headers["x-user"] = name
    return name


async def sends_mail(tasks: BackgroundTasks, name: Annotated[str, Depends(token)]) -> str:
    return name


@pytest.mark.parametrize(
    ("guard", "reason"),
    [(sets_header, "takes the response"), (sends_mail, "background tasks .* sends_mail adds some")],
)
def test_a_guard_that_adds_to_the_answer_of_one_client_is_refused(guard: Any, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        bind(cache(60, guard=guard)(secrets), dependencies=[Depends(guard)])
