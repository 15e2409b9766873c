"""The parameters that all lists share."""

from types import SimpleNamespace
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, PlainSerializer, ValidationError

from app.listing import MAX_LIMIT, MAX_OFFSET, ListQuery, Page, SortedQuery, SortText, sortable


class Query(SortedQuery):
    sort: Annotated[SortText, sortable("name", "code")] = "name"


@pytest.mark.parametrize("sort", ["name", "-name", "name,-code", " name , -code "])
def test_lists_sort_by_the_fields_they_name(sort: str) -> None:
    assert Query(sort=sort).sort == sort


@pytest.mark.parametrize("sort", ["", "-", "--name", "secret", "name,", "name;code", "Name"])
def test_any_other_field_is_refused_and_the_allowed_ones_are_named(sort: str) -> None:
    with pytest.raises(ValidationError, match="sort by name, code"):
        Query(sort=sort)


@pytest.mark.parametrize(
    "values", [{"limit": 0}, {"limit": MAX_LIMIT + 1}, {"offset": -1}, {"offset": MAX_OFFSET + 1}]
)
def test_a_page_is_bounded(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Query.model_validate(values)


async def test_a_row_is_validated_once_and_serialised_once_on_its_way_to_the_client() -> None:
    validated, serialised = [], []

    def validate(value: int) -> int:
        validated.append(value)
        return value

    def serialise(value: int) -> int:
        serialised.append(value)
        return value

    class Shown(BaseModel):
        n: Annotated[int, AfterValidator(validate), PlainSerializer(serialise)]

    app = FastAPI()

    @app.get("/")
    async def numbers() -> Page[Shown]:
        return Page[Shown].of([SimpleNamespace(n=1), SimpleNamespace(n=2)], 2, ListQuery())

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get("/")).json()["items"] == [{"n": 1}, {"n": 2}]
    assert (validated, serialised) == ([1, 2], [1, 2])


def test_a_page_repeats_what_was_asked_for() -> None:
    page = Page[int].of([1, 2], 12, Query(limit=2, offset=4))
    assert page.model_dump() == {"items": [1, 2], "total": 12, "limit": 2, "offset": 4}
