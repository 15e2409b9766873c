"""One log for the service, uvicorn and libraries: lines to read locally, JSON in production.

Each request has an id: the caller's `X-Request-ID` when it is sane, else a new one. It is in every
line that is logged on the way and in the response. What no handler caught is logged here, once.
"""

import logging
import random
import re
import sys
from contextvars import ContextVar
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.limits import MAX_HEADER_BYTES, refuse_headers
from app.problems import problem
from app.settings import Settings

REQUEST_ID_HEADER = "X-Request-ID"

_HANDLER_NAME = "service"
_HEADER_NAME = REQUEST_ID_HEADER.lower().encode()
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# Not one of structlog's own: binding those costs a tenth of a cached response.
_request_id: ContextVar[str] = ContextVar("request_id")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def configure_logging(settings: Settings) -> None:
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler()
    handler.set_name(_HANDLER_NAME)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _drop_color_message,
                *_renderers(settings),
            ],
        )
    )
    _replace_handlers(handler, settings.log_level)
    # What each route depends on, once per process: for those who write routes.
    quiet = settings.environment == "production"
    logging.getLogger("app.cache.reads").setLevel(logging.WARNING if quiet else logging.NOTSET)


class RequestLogMiddleware:
    """The outermost middleware: every response has its id, the 500 included, and headers that are
    too large reach nobody else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size, given = 0, b""
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == _HEADER_NAME:
                given = value
        request_id = (given and _sane(given)) or random.getrandbits(128).to_bytes(16).hex()
        header = (_HEADER_NAME, request_id.encode())
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        token = _request_id.set(request_id)
        try:
            app = self.app if size <= MAX_HEADER_BYTES else refuse_headers(scope, size)
            await app(scope, receive, send_with_id)
        except Exception:
            if started:
                raise  # half a response was sent: the server logs it and cuts the connection
            log.exception("unhandled error", method=scope["method"], path=scope["path"])
            await problem(500, "It is our fault, and it has been logged.")(
                scope, receive, send_with_id
            )
        finally:
            _request_id.reset(token)


def _sane(given: bytes) -> str | None:
    return str(given, "ascii") if _SANE_ID.fullmatch(given) else None


def _add_request_id(_: object, __: str, event: structlog.types.EventDict) -> Any:
    if (request_id := _request_id.get(None)) is not None:
        event["request_id"] = request_id
    return event


def _drop_color_message(_: object, __: str, event: structlog.types.EventDict) -> Any:
    """uvicorn repeats its messages with colours, as an extra."""
    event.pop("color_message", None)
    return event


def _renderers(settings: Settings) -> list[structlog.types.Processor]:
    if settings.environment == "production":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _replace_handlers(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    root.setLevel(level)
    # Only what an earlier call installed: a test runner's handlers stay.
    root.handlers = [other for other in root.handlers if other.get_name() != _HANDLER_NAME]
    root.addHandler(handler)
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        # --no-access-log leaves its logger without handlers, and so it stays silent.
        if logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
