"""The OpenAPI document says what the service does."""

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from app.etags import IfMatch
from app.main import create_app
from app.security import token_required
from app.settings import Settings

WRITES = {"post", "put", "patch", "delete"}


@pytest.fixture
def document(settings: Settings) -> dict[str, Any]:
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400":
                assert list(response["content"]) == ["application/problem+json"], (path, method)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_write_needs_the_token(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if method in WRITES:
            assert "security" in operation, (path, method)


def test_what_needs_a_token_says_so_and_nothing_else_does(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        assert ("401" in operation["responses"]) == ("security" in operation), (path, method)


def test_what_the_inputs_of_a_route_imply_is_said_for_it(settings: Settings) -> None:
    app = create_app(settings)

    @app.patch("/moons/{moon}", dependencies=[token_required])
    async def rename(moon: int, name: dict[str, str], if_match: IfMatch = None) -> None: ...

    @app.get("/moons/{moon}", responses={404: {"description": "No such moon."}})
    async def read(moon: int) -> None: ...

    operations = app.openapi()["paths"]["/moons/{moon}"]
    responses = operations["patch"]["responses"]
    assert responses.keys() == {"200", "400", "401", "404", "412", "413", "422"}
    assert operations["get"]["responses"].keys() == {"200", "404", "422"}
    assert operations["get"]["responses"]["404"]["description"] == "No such moon."


def test_every_operation_on_data_may_be_unavailable(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if path != "/health/live":
            assert "503" in operation["responses"], (path, method)


def test_every_operation_with_input_may_refuse_it(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        if operation.get("parameters") or operation.get("requestBody"):
            assert "422" in operation["responses"], (path, method)
