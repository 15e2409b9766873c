"""No request may fill the memory: a body that is too large is refused while it arrives, and what
comes before the body as soon as it is there.

uvicorn takes headers of any size. The cache, and whatever else remembers a part of a request, has
to be inside of `HeaderLimitMiddleware`.
"""

from collections.abc import Awaitable
from http import HTTPStatus

from fastapi import HTTPException
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


class HeaderLimitMiddleware:
    """RFC 6585 section 5."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        size = 0
        for name, value in scope.get("headers", ()):
            size += len(name) + len(value)
        if size <= MAX_HEADER_BYTES:
            return self.app(scope, receive, send)
        # A connection that is closed is garbage, and collected some hundred connections later.
        scope["headers"].clear()
        return problem(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"All headers together may have {MAX_HEADER_BYTES} bytes at most, not {size}.",
        )(scope, receive, send)
