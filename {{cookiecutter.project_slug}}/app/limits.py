"""No request may fill the memory: a body that is too large is refused while it arrives, and headers
that are too large before anything reads or remembers them. uvicorn takes headers of any size."""

from http import HTTPStatus

from fastapi import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.problems import problem

MAX_BODY_BYTES = 64 * 1024
MAX_HEADER_BYTES = 32 * 1024
"""Of all headers together. The URL has 64 KiB at most: uvicorn sees to that."""


class BodyLimitMiddleware:
    """Starlette has one, but it answers in plain text."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes = 0

        async def receive_limited() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MAX_BODY_BYTES:
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"A body may have {MAX_BODY_BYTES} bytes at most.",
                )
            return message

        await self.app(scope, receive_limited, send)


def refuse_headers(scope: Scope, size: int) -> Response:
    """RFC 6585 section 5: for headers of more than MAX_HEADER_BYTES."""
    # A connection that is closed is garbage, and collected some hundred connections later.
    scope["headers"].clear()
    return problem(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"All headers together may have {MAX_HEADER_BYTES} bytes at most, not {size}.",
    )
