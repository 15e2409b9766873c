"""Requests share an entry where the endpoint cannot tell them apart, and nowhere else: the endpoint
is asked, and the keys are compared."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from ipaddress import IPv6Address
from itertools import combinations
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Path, Query
from pydantic import AliasChoices, BaseModel, Field, StringConstraints

from app.cache import Cache, InMemoryBackend, cache
from app.cache.http.arguments import InvalidRequestError

TEN = UUID(int=10)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Filters(BaseModel):
    limit: int = 20
    tags: list[str] = []
    colour: Colour | None = None
    name: Annotated[str, StringConstraints(to_lower=True, strip_whitespace=True)] = ""
    by: Annotated[int, Field(validation_alias=AliasChoices("author", "writer"))] = 1


async def model(v: Annotated[Filters, Query()]) -> list[object]:
    return [repr(v), sorted(v.model_fields_set)]


def endpoint(kind: Any, *default: Any) -> Callable[..., Any]:
    async def required(v: kind) -> str:
        return f"{type(v)} {sorted(v) if isinstance(v, set) else v!r}"

    async def optional(v: kind = default[0] if default else None) -> str:
        return await required(v)

    return optional if default else required


@pytest.mark.parametrize(
    ("path", "endpoint", "requests"),
    [
        ("", endpoint(Annotated[int, Query()], 20), "_ v=20 v=020 v=20.0 v=%2B20 v=21 v= w=1"),
        ("", endpoint(int, 20), "v=20&v=21 v=21&v=20 v=20 v=21"),
        ("", endpoint(int | str, 20), "_ v=20 v=020 v=x"),
        ("", endpoint(int | None, None), "_ v=20 v=020 v="),
        ("", endpoint(str, ""), "_ v= v=%20 v=a v=A v=%C3%A9 v=e%CC%81 v=a&utm=1"),
        ("", endpoint(bool, False), "_ v=0 v=false v=off v=1 v=on v=YES"),
        ("", endpoint(Colour, Colour.RED), "_ v=red v=blue v=RED"),
        ("", endpoint(Size, Size.SMALL), "_ v=1 v=01 v=2"),
        ("", endpoint(Literal["a", "1", 1], "a"), "_ v=a v=1"),
        ("", endpoint(Decimal, Decimal("1.5")), "_ v=1.5 v=1.50 v=15e-1 v=01.5"),
        ("", endpoint(float, 1.5), "_ v=1.5 v=1.50 v=15e-1 v=inf v=nan v=0 v=-0"),
        ("", endpoint(date, date(2026, 1, 2)), "_ v=2026-01-02 v=2026-01-02T00:00:00 v=2026-01-03"),
        (
            "",
            endpoint(datetime, datetime(2026, 1, 2)),  # noqa: DTZ001 - as the parameter is
            "_ v=2026-01-02 v=2026-01-02T00:00:00 v=2026-01-02T00:00:00Z "
            "v=2026-01-02T02:00:00%2B02:00",
        ),
        ("", endpoint(timedelta, timedelta(days=1)), "_ v=P1D v=PT24H v=86400"),
        ("", endpoint(Annotated[list[int], Query()]), "v=1&v=2 v=01&v=2 v=2&v=1 v=1"),
        ("", endpoint(Annotated[set[int], Query()]), "v=1&v=2 v=01&v=2 v=2&v=1&v=1 v=1"),
        ("", endpoint(Annotated[int, Query(alias="w")], 1), "_ w=1 v=2 w=01 w=2"),
        (
            "",
            endpoint(Annotated[int, Query(validation_alias=AliasChoices("w", "x"))], 1),
            "_ w=1 x=1 w=01 x=2 w=2 x=2&w=3 w=3&x=2",
        ),
        (
            "",
            model,
            "_ limit=20 limit=020 tags=a&tags=b tags=b&tags=a colour=red name=a name=%20A author=1 "
            "writer=1 limit=20&utm=1",
        ),
        ("/{v}", endpoint(int), "1 01 %201 1.0 2 x"),
        ("/{v:int}", endpoint(int), "1 01 2"),
        ("/{v:float}", endpoint(float), "1 1.0 01.00 2"),
        ("/{v:path}", endpoint(str), "a a/b a%2Fb A"),
        ("/{w}", endpoint(Annotated[int, Path(alias="w")]), "1 01 2"),
        ("/{v}", endpoint(IPv6Address), "::1 0:0:0:0:0:0:0:1 ::2"),
        ("/{v}", endpoint(UUID), f"{TEN} {str(TEN).upper()} {TEN.hex} {UUID(int=2)}"),
    ],
)  # fmt: skip
async def test_requests_share_an_entry_where_the_endpoint_cannot_tell_them_apart(
    path: str, endpoint: Callable[..., Any], requests: str
) -> None:
    app = FastAPI()
    app.get(f"/i{path}")(cache(60)(endpoint))
    [route] = Cache(InMemoryBackend()).bind(app).cached
    found: dict[str, tuple[str, str]] = {}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for text in requests.split():
            url = client.base_url.join(f"/i/{text}" if path else f"/i?{text.strip('_')}")
            answer = await client.get(url)
            try:
                key, _ = route.address(url.path, url.query)
                assert answer.status_code == 200
                found[text] = (key, answer.text)
            except InvalidRequestError:
                assert answer.status_code == 422
    assert len(found) > 1
    for (one, (key, given)), (other, (other_key, other_given)) in combinations(found.items(), 2):
        assert (key == other_key) is (given == other_given), (one, other)
