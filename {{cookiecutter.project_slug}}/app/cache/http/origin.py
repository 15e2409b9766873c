"""The route itself, asked for an answer that can be stored: without the conditions of one client,
and with what it sends kept in memory.

The route runs in a task of its own, which may outlive the answer: what it does after its last byte
(background tasks, dependencies that clean up) keeps nobody waiting. An answer in parts cannot be
stored: it goes on to the client that asked, as the route makes it.
"""

import asyncio
import logging
from typing import TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache.context import answering
from app.cache.http.cache import Cache
from app.cache.http.payload import Response, encode, encode_as_it_is, why_not_stored
from app.cache.http.routes import CachedRoute
from app.cache.store import MAX_PAYLOAD_BYTES, Computed

# From this size on, a body is compressed and hashed in a thread: about a millisecond each.
THREAD_BYTES = 256 * 1024

_CONDITIONS = (b"if-none-match", b"if-modified-since", b"if-range", b"range")

Client: TypeAlias = tuple[Receive, Send]

# Said once for each route. An error, or Cache-Control of its own, is none of these.
REASONS = {
    "stream": "its answer comes in parts. Return it whole, and look for middleware inside "
    "CacheMiddleware: @app.middleware('http') makes parts of every answer",
    "set-cookie": "its answer sets a cookie",
    "vary": "its answer names request headers in Vary that are not in vary=. If they are not the "
    "endpoint's, look for middleware inside CacheMiddleware, such as GZip",
    "partial": "its answer is a range of something",
    "header": "a header of its answer holds a line break",
    "too large": f"its answer is larger than {MAX_PAYLOAD_BYTES // 2**20} MiB",
}

log = logging.getLogger("app.cache")


class Origin:
    """One run of a route, for the request that misses."""

    def __init__(self, app: ASGIApp, cache: Cache, route: CachedRoute, scope: Scope) -> None:
        self._app, self._cache, self._route = app, cache, route
        self._scope = {
            **scope,
            "method": "GET",
            # What routing will find, for those inside who look at a copy of the scope.
            "endpoint": route.endpoint,
            "state": dict(scope.get("state", {})),
            "headers": [pair for pair in scope["headers"] if pair[0] not in _CONDITIONS],
            # A server's other ways to send, such as a file by its path, would bypass the capture.
            "extensions": {},
        }
        loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Response | None] = loop.create_future()
        self._client: asyncio.Future[Client | None] = loop.create_future()
        self._run: asyncio.Task[None] | None = None
        self._start: Message = {}
        self._unread = True
        self.streams = False
        """Whether the answer comes in parts, which wait for `stream_to`."""

    async def ask(self) -> Computed:
        """The uncached answer, as soon as its last byte is known."""
        self._run = self._cache.flights.run(self._serve())
        self._run.add_done_callback(self._ended)
        try:
            response = await self._answer
        except asyncio.CancelledError:
            self._run.cancel()
            raise
        if response is None:
            self._reject("stream")
            return Computed(None, storable=False, shared=False)
        return await self._computed(response)

    async def stream_to(self, receive: Receive, send: Send) -> None:
        assert self._run is not None
        self._client.set_result((receive, send))
        await self._run

    def abandon(self) -> None:
        """Nobody is there for an answer in parts: the run ends where it would send one."""
        if not self._client.done():
            self._client.set_result(None)

    async def _serve(self) -> None:
        with answering(self._cache, self._scope):
            await self._app(self._scope, self._receive, self._send)

    async def _computed(self, response: Response) -> Computed:
        policy = self._route.policy
        reason = why_not_stored(response, policy)
        if reason is not None:
            self._reject(reason)
            shared, failed = reason == "status", response.status >= 500
            payload = encode_as_it_is(response, policy)
            return Computed(payload, storable=False, shared=shared, failed=failed)
        expire = policy.expire_not_found if response.status == 404 else None
        if len(response.body) < THREAD_BYTES:
            return Computed(encode(response, policy), expire=expire)
        return Computed(await asyncio.to_thread(encode, response, policy), expire=expire)

    def _reject(self, reason: str) -> None:
        self._cache.recorder.count("rejected", reason)
        if (why := REASONS.get(reason)) is not None:
            self._cache.say_once(reason, self._route.tag, why)

    async def _receive(self) -> Message:
        """A request without a body, from a client that stays unless it is sent a stream."""
        if self._unread:
            self._unread = False
            return {"type": "http.request", "body": b"", "more_body": False}
        client = await asyncio.shield(self._client)
        return await (_never() if client is None else client[0]())

    async def _send(self, message: Message) -> None:
        client = self._client.result() if self._client.done() else None
        if client is not None:
            await client[1](message)
        elif message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body" and not self._answer.done():
            if message.get("more_body"):
                await self._hand_over(message)
            else:
                headers = [(bytes(n).lower(), bytes(v)) for n, v in self._start.get("headers", ())]
                body = bytes(message.get("body", b""))
                self._answer.set_result(Response(self._start["status"], headers, body))

    async def _hand_over(self, message: Message) -> None:
        self.streams = True
        self._answer.set_result(None)
        client = await asyncio.shield(self._client)
        if client is None:
            # Not an exception: the application may have a handler for any of them.
            assert self._run is not None
            self._run.cancel()
            await _never()
        else:
            await client[1](self._start)
            await client[1](message)

    def _ended(self, run: "asyncio.Task[None]") -> None:
        if not self.streams:
            self._run = (
                None  # whose context leads back here: only the collector would end the cycle
            )
        error = None if run.cancelled() else run.exception()
        if not self._answer.done():
            if run.cancelled():
                self._answer.cancel()
            else:
                self._answer.set_exception(error or RuntimeError("the route sent no answer"))
        elif error is not None and not self.streams:
            self._cache.recorder.count("error", "background")
            log.error("GET %s failed after its answer", self._scope["path"], exc_info=error)


async def _never() -> Message:
    future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await future
