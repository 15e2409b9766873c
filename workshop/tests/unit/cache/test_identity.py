"""What tells one value from another: two that differ share no key, or no key is made."""

import enum
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, PrivateAttr, RootModel

from app.cache.identity import NoIdentityError, argument_parts
from app.cache.keys import digest


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int


def argument(value: object) -> str:
    return digest(argument_parts("value", value))


def test_values_of_different_types_do_not_collide() -> None:
    values = [
        None, True, 1, 1.0, "1", b"1", Decimal(1), [1], (1,), {1}, frozenset({1}), {1: 1},
        [[1]], ["1"], Colour.RED, Point(1), date(2026, 1, 1), uuid.UUID(int=1), "None", [], {},
    ]  # fmt: skip
    assert len({argument(value) for value in values}) == len(values)


class Names(RootModel[list[str]]):
    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)


class Open(BaseModel, extra="allow"):
    id: int


class Pair(NamedTuple):
    one: int
    other: int


def test_models_and_collections_are_all_that_they_hold() -> None:
    values = [
        Names(["a"]), Names(["b"]), Open(id=1), Open.model_validate({"id": 1, "tenant": "a"}),
        Open.model_validate({"id": 1, "tenant": "b"}), Pair(1, 2), Pair(2, 1),
        defaultdict(list, {"a": [1]}), {"a": [1]},
    ]  # fmt: skip
    assert len({argument(value) for value in values}) == len(values)


class Circle(BaseModel):
    radius: int

    @cached_property
    def area(self) -> float:
        return 3.14 * self.radius**2


def test_what_is_derived_from_the_fields_changes_no_key() -> None:
    circle = Circle(radius=1)
    before = argument(circle)
    assert circle.area
    assert argument(circle) == before


class Hidden(BaseModel):
    id: int
    _tenant: str = PrivateAttr("")


@dataclass
class FromOutside:
    id: int
    tenant: InitVar[str]

    def __post_init__(self, tenant: str) -> None:
        self.of = tenant


class Text(str):
    tenant = ""


class Rank(int):
    pass


def with_tenant(value: Any) -> Any:
    value.tenant = "a"
    return value


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        (Hidden(id=1), "_tenant"),
        (FromOutside(1, "a"), "of"),
        (with_tenant(Text("one")), "tenant"),
        (with_tenant(Rank(1)), "tenant"),
        ([{"user": Hidden(id=1)}], "_tenant"),
    ],
)
def test_what_is_kept_outside_the_fields_is_refused_by_name(value: Any, hidden: str) -> None:
    with pytest.raises(NoIdentityError, match=f"which keeps {hidden} outside its fields"):
        argument(value)


def test_sets_and_mappings_have_no_order() -> None:
    assert argument({"b", "a"}) == argument({"a", "b"})
    assert argument({"a": 1, "b": 2}) == argument({"b": 2, "a": 1})


def test_an_object_without_a_stable_identity_is_refused() -> None:
    with pytest.raises(TypeError, match="'session' is a object, which has no stable identity"):
        list(argument_parts("session", object()))
