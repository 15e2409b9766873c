"""Errors as clients see them: RFC 9457 problem documents, for whatever goes wrong.

Nobody else knows the status of an error: code raises those of `errors.py`, or lets errors of the
database pass. Constraints become 409, a database that cannot be reached becomes 503.
"""

import socket
from collections.abc import Iterable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import asyncpg
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

from app.cache import CacheUnavailable
from app.database import Base
from app.errors import Changed, Conflict, Invalid, NotFound

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5

# SQLSTATEs of a database that cannot serve now: connection, login, catalog, deadlock, resources,
# lock timeout, operator intervention.
_UNAVAILABLE_SQLSTATES = ("08", "28", "3D", "40", "53", "55P03", "57")

# Of foreign keys: that of RESTRICT is the second one since PostgreSQL 18.
_REFERENCES = (asyncpg.ForeignKeyViolationError, asyncpg.RestrictViolationError)

_STATUSES = {NotFound: 404, Conflict: 409, Changed: 412, Invalid: 422}

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


Location = Literal["body", "query", "path", "header", "cookie"]


class InvalidValue(BaseModel):
    location: Location
    field: str = Field(examples=["currencies/0"])
    message: str


class Problem(BaseModel):
    """An error, as described by RFC 9457."""

    type: str = "about:blank"
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str | None = None
    errors: list[InvalidValue] | None = Field(
        default=None, description="The values that were not accepted."
    )


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document, and its OpenAPI document say so."""
    handlers: dict[type[Exception], Any] = {
        StarletteHTTPException: _on_http_exception,
        RequestValidationError: _on_invalid_request,
        IntegrityError: _on_integrity_error,
        DBAPIError: _on_database_error,
        PoolTimeoutError: _on_unavailable,
        # What asyncpg raises while it connects, and when an answer takes too long.
        ConnectionError: _on_unavailable,
        TimeoutError: _on_unavailable,
        socket.gaierror: _on_unavailable,
        # With CACHE_STRICT_WRITES only, before COMMIT.
        CacheUnavailable: _on_cache_unavailable,
    } | {error: partial(_on_domain_error, status) for error, status in _STATUSES.items()}
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)
    _document(app)


def problem(
    status: int,
    detail: str | None = None,
    errors: list[InvalidValue] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors)
    return Response(
        body.model_dump_json(exclude_none=True), status, headers=headers, media_type=MEDIA_TYPE
    )


async def _on_domain_error(status: int, _: Request, error: Exception) -> Response:
    errors = None
    if isinstance(error, Invalid):
        errors = [InvalidValue(location="body", field=error.field, message=error.message)]
    return problem(status, str(error), errors)


async def _on_http_exception(request: Request, error: StarletteHTTPException) -> Response:
    # Starlette repeats the title as the detail when nothing was said.
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else None
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    return problem(error.status_code, detail, headers=headers)


async def _on_invalid_request(_: Request, error: RequestValidationError) -> Response:
    errors = [
        InvalidValue(
            location=item["loc"][0],
            # For text that is not JSON this is a position, not a field.
            field="" if item["type"] == "json_invalid" else "/".join(map(str, item["loc"][1:])),
            message=item["msg"].removeprefix("Value error, "),
        )
        for item in error.errors()
    ]
    detail = "; ".join(f"{item.field or item.location}: {item.message}" for item in errors)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors)


async def _on_integrity_error(_: Request, error: IntegrityError) -> Response:
    cause = error.driver_exception
    if isinstance(cause, asyncpg.UniqueViolationError):
        detail, message = "There is one already with this {}.", "is taken"
    elif not isinstance(cause, _REFERENCES):
        raise error
    elif (error.statement or "").startswith("DELETE"):
        table = (cause.table_name or "").replace("_", " ")
        return problem(HTTPStatus.CONFLICT, f"Some {table} still refer to it.")
    else:
        detail, message = "There is nothing with this {}.", "does not exist"
    fields = _fields(cause.table_name or "", cause.constraint_name or "")
    errors = [InvalidValue(location="body", field=field, message=message) for field in fields]
    detail = detail.format(" and ".join(fields) or "value")
    return problem(HTTPStatus.CONFLICT, detail, errors or None)


async def _on_database_error(request: Request, error: DBAPIError) -> Response:
    sqlstate = getattr(error.driver_exception, "sqlstate", None) or ""
    if error.connection_invalidated or sqlstate.startswith(_UNAVAILABLE_SQLSTATES):
        return await _on_unavailable(request, error)
    raise error


async def _on_unavailable(_: Request, error: Exception) -> Response:
    log.warning("database unavailable", error=repr(error))
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The database does not answer at the moment.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _allowed_methods(request: Request) -> list[str]:
    # Starlette names those of the first route of the path only.
    return [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _on_cache_unavailable(_: Request, error: Exception) -> Response:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Nothing was written: the cache does not answer at the moment.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _fields(table: str, constraint: str) -> list[str]:
    """The columns of a constraint, or of a unique index."""
    described = Base.metadata.tables.get(table)
    named: Iterable[Any] = () if described is None else described.constraints | described.indexes
    return [
        column.name
        for candidate in named
        if candidate.name == constraint
        for column in candidate.columns
    ]


def _document(app: FastAPI) -> None:
    """FastAPI describes errors as application/json, and 422 in its own shape: replace both.

    The errors that any operation with such inputs has are added: no route repeats them.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs") | {"Problem": schema}
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for operation in _operations(document):
            for status, description in _implied(operation):
                operation["responses"].setdefault(status, {"description": description})
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")):
                    response["content"] = content
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _implied(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    parameters = operation.get("parameters", ())
    if "requestBody" in operation:
        yield "400", "The body cannot be read as JSON text."
        yield "413", "The body is too large."
    if "security" in operation:
        yield "401", "The token is missing or wrong."
    if any(parameter["in"] == "path" for parameter in parameters):
        yield "404", "There is no such resource."
    if any(parameter["name"].lower() == "if-match" for parameter in parameters):
        yield "412", "It has been changed since."
