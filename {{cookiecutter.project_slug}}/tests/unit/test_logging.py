"""Request ids, and a log that a machine can read in production."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.logging import configure_logging
from app.settings import Settings
from tests.clients import Client


@pytest.fixture
def production_log() -> Iterator[io.StringIO]:
    configure_logging(
        Settings(
            environment="production",
            api_token="9Xb" * 11,
            cache_url="redis://cache/0",
            database_url="postgresql://app:s3cret@db/app",
        )
    )
    handler = next(
        handler for handler in logging.getLogger().handlers if handler.get_name() == "service"
    )
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)
    yield stream
    configure_logging(Settings())


async def test_a_sane_request_id_is_kept(client: Client) -> None:
    response = await client.get("/health/live", headers={"X-Request-ID": "abc-1.2_3"})
    assert response.headers["X-Request-ID"] == "abc-1.2_3"


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, 'a"b', "a\tb"])
async def test_any_other_is_replaced(client: Client, given: str) -> None:
    response = await client.get("/health/live", headers={"X-Request-ID": given})
    assert len(response.headers["X-Request-ID"]) == 32


async def test_errors_have_a_request_id_too(client: Client) -> None:
    response = await client.get("/nothing", headers={"X-Request-ID": "abc"})
    assert response.headers["X-Request-ID"] == "abc"


def test_production_logs_one_json_object_a_line(production_log: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="abc"):
        structlog.get_logger("app.somewhere").warning("went wrong", attempt=2)
        logging.getLogger("a.library").warning("says %s", "so")
        logging.getLogger("uvicorn.access").info("GET / 200")
        try:
            raise ValueError("two\nlines")
        except ValueError:
            structlog.get_logger("app.somewhere").exception("failed")
    lines = [json.loads(line) for line in production_log.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["went wrong", "says so", "GET / 200", "failed"]
    assert lines[0]["attempt"] == 2
    assert {line["request_id"] for line in lines} == {"abc"}
    assert lines[1]["logger"] == "a.library"
    assert "ValueError: two" in lines[3]["exception"]


def test_configuring_twice_logs_each_line_once() -> None:
    configure_logging(Settings())
    configure_logging(Settings())
    names = [handler.get_name() for handler in logging.getLogger().handlers]
    assert names.count("service") == 1


@pytest.mark.parametrize(("environment", "is_said"), [("local", True), ("production", False)])
def test_what_routes_depend_on_is_said_where_they_are_written(
    environment: str, is_said: bool, request: pytest.FixtureRequest
) -> None:
    if environment == "production":
        request.getfixturevalue("production_log")
    else:
        configure_logging(Settings())
    assert logging.getLogger("app.cache.reads").isEnabledFor(logging.INFO) is is_said
    assert logging.getLogger("app.cache.reads").isEnabledFor(logging.WARNING)
