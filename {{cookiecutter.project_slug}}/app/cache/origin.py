"""The route itself, asked for an answer that can be stored: without the conditions of one client,
and with what it sends kept in memory."""

import asyncio
from collections.abc import Iterator
from functools import partial

from starlette.types import ASGIApp, Message, Scope

from app.cache.context import answering
from app.cache.core import Cache
from app.cache.negotiation import Headers
from app.cache.payload import Response, encode, encode_as_it_is, why_not_stored
from app.cache.policy import Policy
from app.cache.store import Computed


class StreamingResponseError(RuntimeError):
    """A cached endpoint answered in more than one part; only whole bodies can be cached."""


async def ask(app: ASGIApp, cache: Cache, policy: Policy, scope: Scope) -> Computed:
    """The uncached answer, from the route itself. Run it in a task of its own."""
    scope = {
        **scope,
        "method": "GET",
        "state": dict(scope.get("state", {})),
        "headers": [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"if-none-match", b"if-modified-since", b"range")
        ],
    }
    capture = Capture()
    try:
        with answering(cache, scope):
            await app(scope, partial(_empty_request, iter((True,))), capture)
    except StreamingResponseError:
        return Computed(None, storable=False, shared=False)
    response = capture.response
    reason = why_not_stored(response, policy)
    failed = response.status >= 500
    if reason is None:
        expire = policy.expire_not_found if response.status == 404 else None
        return Computed(encode(response, policy), expire=expire)
    cache.recorder.count("rejected", reason)
    shared = reason == "status"  # the last reason that is looked for: nothing else forbids it
    return Computed(encode_as_it_is(response), storable=False, shared=shared, failed=failed)


class Capture:
    """An ASGI `send` that keeps the response. Raises StreamingResponseError on a second part."""

    def __init__(self) -> None:
        self._status, self._body = 0, b""
        self._headers: Headers = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(bytes(n).lower(), bytes(v)) for n, v in message["headers"]]
        elif message["type"] == "http.response.body":
            if message.get("more_body"):
                raise StreamingResponseError
            self._body = message.get("body", b"")

    @property
    def response(self) -> Response:
        return Response(self._status, self._headers, self._body)


async def _empty_request(unread: Iterator[bool]) -> Message:
    """A request without a body, from a client that never leaves."""
    if next(unread, False):
        return {"type": "http.request", "body": b"", "more_body": False}
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never
