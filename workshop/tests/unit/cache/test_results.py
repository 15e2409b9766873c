"""Results of functions are read back as they were. What cannot be is refused, its type named."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
)
from typing_extensions import TypedDict

from app.cache import Cache, InMemoryBackend, cache
from app.cache.context import active_cache
from app.cache.events import Counters


def opening(opened: Cache) -> Iterator[Cache]:
    token = active_cache.set(opened)
    yield opened
    active_cache.reset(token)


@pytest.fixture
def strict() -> Iterator[Cache]:
    yield from opening(Cache(InMemoryBackend()))


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def production(counters: Counters) -> Iterator[Cache]:
    yield from opening(Cache(InMemoryBackend(), recorder=counters, strict=False))


class Aliased(BaseModel):
    one: int = Field(alias="the-one")
    two: int = Field(serialization_alias="out", validation_alias="in")


class Computed(BaseModel, extra="forbid"):
    side: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Measured(BaseModel, ser_json_inf_nan="constants"):
    value: float
    error: float | None = None


class Packed(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Settings(BaseModel):
    sizes: Json[list[int]]


class Stamped(BaseModel):
    at: datetime

    @field_serializer("at")
    def in_iso(self, at: datetime) -> str:
        return at.isoformat()


class Colour(Enum):
    RED = "red"


class Row(TypedDict):
    id: UUID
    price: Decimal


@dataclasses.dataclass(eq=False)
class Point:
    x: float
    y: float = 0.0


READ_BACK: list[tuple[Any, Any]] = [
    (Aliased, Aliased.model_validate({"the-one": 1, "in": 2})),
    (list[Aliased], [Aliased.model_validate({"the-one": 1, "in": 2})]),
    (Computed, Computed(side=3)),
    (Measured, Measured(value=math.inf, error=-math.inf)),
    (Measured, Measured(value=math.nan)),
    (Packed, Packed(data=b"\xff\x00")),
    (Settings, Settings(sizes="[1, 2]")),
    (Stamped, Stamped(at=datetime(2026, 1, 2, tzinfo=UTC))),
    (float, math.inf),
    (list[float], [1.0, math.nan]),
    (float, 1),
    (bytes, b"\xff\x00"),
    (dict[str, bytes], {"a": b"\xff"}),
    (Row, {"id": UUID(int=1), "price": Decimal("1.50")}),
    (Point, Point(1.0)),
    (dict[Colour, date], {Colour.RED: date(2026, 1, 2)}),
    (tuple[int, str] | None, (1, "a")),
    (set[int], {1, 2}),
    (None, None),
]


results: list[Any] = []
runs: list[Any] = []


def returning(annotation: Any, *values: Any) -> Callable[[], Any]:
    """A cached function of that annotation, which returns these, one after the other."""
    results[:], runs[:] = values, []

    async def made() -> Any:
        runs.append(results[min(len(runs), len(results) - 1)])
        return runs[-1]

    made.__annotations__["return"] = annotation
    decorated: Callable[[], Any] = cache(60, tags=["made"])(made)
    return decorated


@pytest.mark.parametrize(("annotation", "value"), READ_BACK, ids=lambda value: repr(value)[:40])
async def test_a_result_is_read_back_as_it_was(strict: Cache, annotation: Any, value: Any) -> None:
    made = returning(annotation, value)
    first, hit = await made(), await made()
    assert len(runs) == 1
    for result in (first, hit):
        assert type(result) is type(value) or annotation is float
        assert repr(result) == repr(value) or result == value


class Secret(BaseModel):
    token: SecretStr


class Excluding(BaseModel):
    shown: int
    hidden: int = Field(default=0, exclude=True)


class Animal(BaseModel):
    name: str


class Dog(Animal):
    breed: str


class Spoken(BaseModel):
    at: Annotated[datetime, PlainSerializer(lambda at: at.strftime("%d %B"))]


class Rounded(BaseModel):
    price: Annotated[float, PlainSerializer(lambda price: round(price, 1))]


class Noted(BaseModel):
    name: str
    _note: str = PrivateAttr("")


class Raw(BaseModel):
    data: bytes = b""
    value: float | None = None


@dataclasses.dataclass
class Ranked:
    name: str
    rank: Annotated[int, PlainSerializer(lambda rank: 0)] = dataclasses.field(
        default=0, compare=False
    )


def noted() -> Noted:
    made = Noted(name="a")
    made._note = "b"
    return made


LOST: list[tuple[Any, Any, str]] = [
    (Secret, Secret(token=SecretStr("a")), "Secret"),
    (Excluding, Excluding(shown=1, hidden=2), "Excluding"),
    (Animal, Dog(name="a", breed="b"), "Dog"),
    (list[Animal], [Dog(name="a", breed="b")], "list"),
    (Spoken, Spoken(at=datetime(2026, 1, 2)), "Spoken"),  # noqa: DTZ001
    (Rounded, Rounded(price=1.25), "Rounded"),
    (Noted, noted(), "Noted"),
    (Raw, Raw(data=b"\xff"), "Raw"),
    (Raw, Raw(value=math.inf), "Raw"),
    (Any, datetime(2026, 1, 2, tzinfo=UTC), "datetime"),
    (int, "1", "str"),
    (Ranked, Ranked("a", 5), "Ranked"),
    (Point, Point(1.0, math.nan), "Point"),
]


@pytest.mark.parametrize(("annotation", "value", "name"), LOST, ids=lambda value: repr(value)[:40])
async def test_what_is_not_read_back_as_it_was_is_refused_with_its_type_named(
    strict: Cache, annotation: Any, value: Any, name: str
) -> None:
    made = returning(annotation, value)
    with pytest.raises(TypeError, match=rf"made: it returned a {name}, and as JSON"):
        await made()


async def test_a_later_result_is_not_lost_silently_either(strict: Cache) -> None:
    made = returning(Animal, Animal(name="a"), Dog(name="a", breed="b"))
    await made()
    await strict.invalidate("made")
    with pytest.raises(TypeError, match="it returned a Dog"):
        await made()


@pytest.mark.parametrize(("annotation", "value", "name"), LOST, ids=lambda value: repr(value)[:40])
async def test_in_production_it_is_returned_uncached_counted_and_logged_once(
    production: Cache,
    counters: Counters,
    caplog: pytest.LogCaptureFixture,
    annotation: Any,
    value: Any,
    name: str,
) -> None:
    made = returning(annotation, value)
    assert await made() is value
    assert await made() is value
    assert len(runs) == 2
    assert counters.totals["refused", "result"] == 2
    logged = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert [name in message and "made" in message for message in logged] == [True]
    assert "b'\\xff'" not in logged[0]


limits = {"price": 10}


class Limited(BaseModel):
    price: int

    @field_validator("price")
    @classmethod
    def under_the_limit(cls, price: int) -> int:
        assert price < limits["price"]
        return price


async def test_a_result_that_is_no_longer_valid_is_computed_anew(
    production: Cache, counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = returning(Limited, Limited(price=9), Limited(price=1))
    await made()
    monkeypatch.setitem(limits, "price", 5)
    assert await made() == Limited(price=1)
    assert counters.totals["error", "result"] == 1


class NoSchema:
    pass


async def test_a_type_that_pydantic_does_not_know_is_refused_by_name(strict: Cache) -> None:
    made = returning(NoSchema, NoSchema())
    with pytest.raises(TypeError, match=r"made: .*NoSchema"):
        await made()
