"""The path of a request: match → key → lookup → send, ahead of routing and dependencies.

Add it first, so that it is the innermost: what is added later (CORS, request id, access log) sees
hits as well. It finds the `Cache` under `cache` in the lifespan state.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache.budget import Budget
from app.cache.context import answering
from app.cache.decorator import marker_of
from app.cache.entry import Entry
from app.cache.flights import Miss
from app.cache.http._fastapi import get_route_path
from app.cache.http.arguments import InvalidRequestError
from app.cache.http.cache import Cache
from app.cache.http.guard import Guard
from app.cache.http.negotiation import accepts_gzip, age_of, headers_of_304, joined, not_modified
from app.cache.http.origin import Origin
from app.cache.http.payload import Response, decode, for_one_user
from app.cache.http.routes import CachedRoute
from app.cache.identity import NoIdentityError
from app.cache.keys import MAX_QUERY_BYTES
from app.cache.store import Computed, Lookup

MAX_PATH_CHARS = 1024
MAX_VARY_BYTES = 256

log = logging.getLogger("app.cache")


class CacheMiddleware:
    """Answers GET and HEAD of cached routes; lets everything else through.

    `skips` names the middleware classes inside of it whose work a hit does not need. Any other is
    refused when the application starts.
    """

    answers_hits = True

    def __init__(self, app: ASGIApp, skips: Sequence[Any] = ()) -> None:
        self.app, self.skips = app, skips
        self._warned: set[str] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] not in ("http", "websocket"):
            return self.app(scope, receive, send)
        cache, method = scope.get("state", {}).get("cache"), scope.get("method")
        if cache and method in ("GET", "HEAD"):
            path = get_route_path(scope) if scope.get("root_path") else scope["path"]
            table = cache.tables.get(scope["app"]) or cache.bind(scope["app"])
            route = table.find(path)
            if route is not None and (method == "GET" or not table.answers_head(path)):
                return _Exchange(self.app, cache, route, path, scope, receive, send).run()
        return self._pass(cache, scope, receive, send)

    async def _pass(self, cache: Cache | None, scope: Scope, receive: Receive, send: Send) -> None:
        with answering(cache, scope, Budget()):
            await self.app(scope, receive, send)
        marker = marker_of(scope.get("endpoint")) if scope.get("method") == "GET" else None
        if marker is None or not marker.policy.enabled or marker.name in self._warned:
            return
        self._warned.add(marker.name)
        why = "its route was added after the start, or is in a mounted application"
        if cache is None:
            why = "the lifespan did not put an open cache into the state of the application"
        log.warning("%s is answered without the cache: %s", marker.name, why)


class _Exchange:
    """One request to a cached route."""

    def __init__(
        self,
        app: ASGIApp,
        cache: Cache,
        route: CachedRoute,
        path: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self.app, self.cache, self.route, self.path = app, cache, route, path
        self.scope, self.receive, self.send = scope, receive, send
        self.policy, self.budget = route.policy, Budget()
        headers = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(headers)
        if len(self.headers) < len(headers):
            self.headers = joined(headers)

    async def run(self) -> None:
        reason = self._why_not_cached()
        if reason is not None:
            await self._pass("bypass", reason)
            return
        more: tuple[bytes, ...] = ()
        user: tuple[str | None, ...] = ()
        if self.policy.vary:
            more = tuple([self._header(name.encode()) for name in self.policy.vary])
        if self.route.guard is not None:
            try:
                identity, user = await self._identity(self.route.guard)
                more += tuple(identity)
            except NoIdentityError as error:
                self.cache.refuse("identity", self.route.tag, error)
                await self._pass("bypass", "identity")
                return
            except Exception:
                # The endpoint runs its guard again and answers with that guard's own error.
                await self._pass("bypass", "guard")
                return
        try:
            query, mount = self.scope["query_string"], self.scope.get("root_path", "")
            key, tags = self.route.address(self.path, query, mount, more, user)
        except InvalidRequestError:
            await self._pass("bypass", "invalid")
            return
        found = await self.cache.store.lookup(key, tags, self.policy.local, self.budget)
        if found.state == "fresh" and found.entry is not None:
            self.cache.recorder.hit("fresh", found.entry)
            await self._send(self._fresh_response(found.entry, found.now))
            return
        origin = Origin(self.app, self.cache, self.route, self.scope)
        miss = Miss(key, tags, self.policy, self.route.learned, origin.ask)
        if found.state == "stale" and found.entry is not None:
            self.cache.recorder.hit("stale", found.entry)
            origin.abandon()
            with answering(self.cache, None):
                self.cache.flights.refresh(miss, found)
            status = b"fwd=stale; ttl=%d" % found.ttl
            await self._send(self._response(found.entry, found.now, status))
        elif (why := self.cache.why_not_shared(key)) is not None:
            await self._pass("uri-miss", why)
        else:
            await self._miss(miss, found, origin)

    async def _miss(self, miss: Miss, found: Lookup, origin: Origin) -> None:
        try:
            result = await self.cache.compute(miss, found)
        except asyncio.CancelledError:
            origin.abandon()
            raise
        if isinstance(result, Computed):
            self.cache.remember(miss.key, result)
        if origin.streams:
            await origin.stream_to(self.receive, self._forwarding("uri-miss", "stream"))
        else:
            await self._send_computed(result, found)

    async def _send_computed(self, result: Computed | Entry, found: Lookup) -> None:
        if result.payload is None:
            await self._pass("uri-miss", "not-shared")
        elif isinstance(result, Entry):
            status = b"fwd=uri-miss; collapsed"
            if result is found.entry:
                status = b"fwd=stale; ttl=%d; detail=error" % found.ttl
            await self._send(self._response(result, found.now, status))
        else:
            forward = b"fwd=stale" if found.state == "expired" else b"fwd=uri-miss"
            stored = b"; stored" if result.stored else b""
            if result.why_not_stored:
                stored = b"; detail=" + result.why_not_stored.encode()
            response = decode(result.payload, gzip=accepts_gzip(self.headers))
            self._say(response, forward + stored)
            await self._send(response)

    def _why_not_cached(self) -> str | None:
        headers, route = self.headers, self.route
        if route.anonymous and (b"authorization" in headers or b"cookie" in headers):
            return "credentials"
        if self.cache.client_may_bypass:
            control = headers.get(b"cache-control", b"")
            if b"no-cache" in control or b"no-store" in control:
                return "client"
        if len(self.path) > MAX_PATH_CHARS or len(self.scope["query_string"]) > MAX_QUERY_BYTES:
            return "length"
        if route.arguments.closed_query and self._has_undeclared_query():
            return "query"
        vary = self.policy.vary
        if vary and any(len(self._header(name.encode())) > MAX_VARY_BYTES for name in vary):
            return "vary-length"
        overrides = self.scope["app"].dependency_overrides
        if overrides and not route.dependencies.isdisjoint(overrides):
            return "dependency-overrides"
        return None

    def _header(self, wanted: bytes) -> bytes:
        """All its lines: which of them the endpoint reads is not for the cache to guess."""
        return b"\n".join(value for name, value in self.scope["headers"] if name == wanted)

    def _has_undeclared_query(self) -> bool:
        return not Request(self.scope).query_params.keys() <= self.route.arguments.query

    def _identity(self, guard: Guard) -> Awaitable[tuple[list[bytes], tuple[str | None, ...]]]:
        path = self.route.arguments.in_path(self.path)
        return guard.identify(self.cache, self.budget, self.scope, path, self.receive)

    async def _pass(self, forward: str, detail: str) -> None:
        """Lets the route answer this request itself, whatever it sends."""
        send = self._forwarding(forward, detail)
        scope = {**self.scope, "method": "GET", "endpoint": self.route.endpoint}
        with answering(self.cache, scope, self.budget):
            await self.app(scope, self.receive, send)

    def _forwarding(self, forward: str, detail: str) -> Send:
        """A `send` for what the route answers to this request alone."""
        self.cache.recorder.count("bypass", detail)
        status = b"%s; fwd=%s; detail=%s" % (self.cache.slug, forward.encode(), detail.encode())

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if self.policy.per_user:
                    headers = for_one_user(headers)
                message = {**message, "headers": [*headers, (b"cache-status", status)]}
            elif self.scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await self.send(message)

        return send

    def _fresh_response(self, entry: Entry, now: int) -> Response:
        """Made once a second: what it says of its age changes no more often."""
        gzip, second = accepts_gzip(self.headers), now // 1000
        response: Response | None
        made_in, response = entry.prepared.get(gzip, (0, None))
        if response is None or made_in != second:
            ttl = (entry.fresh_until - now) // 1000
            response = self._response(entry, now, b"hit; ttl=%d" % ttl)
            entry.prepared[gzip] = (second, response)
        return response

    def _response(self, entry: Entry, now: int, status: bytes) -> Response:
        """RFC 9111 section 5.1: the age that the origin gave it, and the time in this cache."""
        response = decode(entry.payload, gzip=accepts_gzip(self.headers))
        age = max(0, now - entry.created) // 1000 + age_of(response.headers)
        response.headers[:] = [pair for pair in response.headers if pair[0] != b"age"]
        response.headers.append((b"age", b"%d" % age))
        self._say(response, status)
        return response

    def _say(self, response: Response, status: bytes) -> None:
        """RFC 9211 section 2: behind what caches before this one have said."""
        response.headers.append((b"cache-status", b"%s; %s" % (self.cache.slug, status)))

    async def _send(self, response: Response) -> None:
        given = self.headers
        conditional = b"if-none-match" in given or b"if-modified-since" in given
        if conditional and response.status == 200 and not_modified(response.headers, given):
            response = Response(304, headers_of_304(response.headers), b"")
        status, headers, body = response
        # A copy: some middleware appends to the list that it is handed.
        start = {"type": "http.response.start", "status": status, "headers": [*headers]}
        await self.send(start)
        if self.scope["method"] == "HEAD":
            body = b""
        await self.send({"type": "http.response.body", "body": body})
