"""The values that keys are made of are those that FastAPI gives to the endpoint."""

import itertools
from typing import Annotated, Any

import pytest
from fastapi import Path, Query
from fastapi.dependencies.utils import request_params_to_args
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, Json
from starlette.datastructures import QueryParams

from app.cache.http._fastapi import Extraction, ModelField, get_dependant


class Filters(BaseModel):
    a: int = 1
    b: list[int] = []
    c: str | None = Field(default=None, alias="C")
    d: Annotated[list[str] | None, Field(validation_alias=AliasChoices("d", "a-d"))] = None
    e: Json[list[int]] | None = None


class Named(Filters):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)


class Open(Filters):
    model_config = ConfigDict(extra="allow")


class Closed(Filters):
    model_config = ConfigDict(extra="forbid")


class Required(BaseModel):
    a: int
    b: set[str]


PARAMETERS: dict[str, Any] = {
    "plain": Annotated[int, Query()],
    "constrained": Annotated[int, Query(gt=1)],
    "optional": Annotated[int | None, Query()],
    "alias": Annotated[str, Query(alias="a-d")],
    "choices": Annotated[str, Query(validation_alias=AliasChoices("d", "C"))],
    "several": Annotated[list[int], Query()],
    "several or none": Annotated[list[str] | None, Query()],
    "a set": Annotated[set[str], Query()],
    "JSON": Annotated[Json[list[int]], Query()],
    "path": Annotated[int, Path()],
    **{
        f"{model.__name__}{' or none' * (kind != model)}": Annotated[kind, Query()]
        for model in (Filters, Named, Open, Closed, Required)
        for kind in (model, model | None)
    },
}
GIVEN = ["", *(f"{name}={value}" for name in ("a", "C", "d", "a-d", "other") for value in "12x")]
GIVEN += ["b=1", "b=2", "c=1", "e=[1]", "a="]
QUERIES = ["&".join(pair) for pair in itertools.product(GIVEN, GIVEN)]


@pytest.mark.parametrize("default", [..., None])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_what_the_endpoint_is_given(name: str, default: object) -> None:
    field = parameter(PARAMETERS[name], default)
    extraction = Extraction(field)
    for query in QUERIES:
        given: Any = QueryParams(query)
        if name == "path":
            given = dict(given)
        values, errors = request_params_to_args([field], given)
        value, wrong = extraction.value(given)
        assert bool(wrong) == bool(errors), query
        assert wrong or value == values[field.name], query


def parameter(annotation: Any, default: object) -> ModelField:
    async def endpoint(a: Any = default) -> None: ...

    of_path = "Path" in str(annotation)
    endpoint.__annotations__["a"] = annotation
    if default is ... or of_path:
        endpoint.__defaults__ = ()
    dependant = get_dependant(path="/{a}" if of_path else "/", call=endpoint)
    (field,) = (*dependant.path_params, *dependant.query_params)
    return field
