"""Whatever goes wrong, clients get application/problem+json, and nothing about the inside."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Query
from pydantic import BaseModel

from app.database import ReadSessionDep
from app.errors import Changed, Conflict, Invalid, NotFound
from app.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES
from app.main import create_app
from app.settings import Settings
from tests.clients import Client, serving

ERRORS = {
    404: NotFound("There is no such thing."),
    409: Conflict("It was sent already."),
    412: Changed("Read it again."),
    422: Invalid("name", "is reserved"),
}


class Thing(BaseModel):
    name: str


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    app = create_app(settings)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the secret inside")

    @app.get("/asks-the-database")
    async def asks_the_database(session: ReadSessionDep) -> None:
        await session.connection()

    @app.get("/errors/{status}")
    async def errors(status: int) -> None:
        raise ERRORS[status]

    @app.get("/things")
    async def list_things() -> list[Thing]:
        return []

    @app.post("/things")
    async def make_thing(thing: Thing, size: Annotated[int, Query(ge=1)] = 1) -> Thing:
        return thing

    async with serving(app=app) as client:
        yield client


async def test_an_unknown_path_is_404(client: Client) -> None:
    response = await client.get("/nothing/here")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": "Not Found", "status": 404}


async def test_an_unknown_method_is_405_and_says_what_is_allowed(client: Client) -> None:
    response = await client.put("/things")
    assert response.status_code == 405
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Allow"] == "GET, POST"


@pytest.mark.parametrize("status", ERRORS)
async def test_an_error_of_the_domain_has_its_status_and_its_words(
    client: Client, status: int
) -> None:
    response = await client.get(f"/errors/{status}")
    assert response.status_code == response.json()["status"] == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"] == str(ERRORS[status])


async def test_a_value_that_the_domain_refuses_is_named(client: Client) -> None:
    named = {"location": "body", "field": "name", "message": "is reserved"}
    assert (await client.get("/errors/422")).json()["errors"] == [named]


async def test_an_unexpected_error_is_500_without_internals_and_is_logged_once(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.get("/broken")
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "X-Request-ID" in response.headers
    assert "secret" not in response.text
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info


async def test_a_database_that_refuses_is_503_and_says_when_to_come_back(client: Client) -> None:
    response = await client.get("/asks-the-database")
    assert response.status_code == 503
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Retry-After"] == "5"


async def test_invalid_values_are_422_and_each_is_named(client: Client) -> None:
    response = await client.post("/things", params={"size": 0}, json={"name": 5})
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert [(error["location"], error["field"]) for error in response.json()["errors"]] == [
        ("query", "size"),
        ("body", "name"),
    ]


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b'{"name": ', "application/json", 422),
        (b"", "application/json", 422),
        (b'{"name": "a"}', "text/plain", 422),
        (b"name=a", "application/x-www-form-urlencoded", 422),
        (b"[" * 50_000, "application/json", 400),
        (b'{"name": "\xff"}', "application/json", 400),
        (b'"' + b"a" * MAX_BODY_BYTES, "application/json", 413),
    ],
)
async def test_a_body_that_is_not_json_is_refused(
    client: Client, content: bytes, media_type: str, status: int
) -> None:
    response = await client.post("/things", content=content, headers={"Content-Type": media_type})
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == status


async def test_a_body_in_pieces_is_refused_as_soon_as_it_is_too_large(client: Client) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * (MAX_BODY_BYTES // 4)

    response = await client.post(
        "/things", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert sent < 10


@pytest.mark.parametrize("headers", [{"a": "a" * MAX_HEADER_BYTES}, {"a" * MAX_HEADER_BYTES: "a"}])
async def test_headers_that_are_too_large_are_refused(
    client: Client, headers: dict[str, str]
) -> None:
    response = await client.get("/things", headers=headers)
    assert response.status_code == 431
    assert response.headers["Content-Type"] == "application/problem+json"
    assert f"{MAX_HEADER_BYTES} bytes at most" in response.json()["detail"]
    many = [("a", "b")] * (MAX_HEADER_BYTES // 2 + 1)
    assert (await client.get("/things", headers=many)).status_code == 431
