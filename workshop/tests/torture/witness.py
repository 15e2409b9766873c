"""How a process says what it does: lines on a pipe, sent from where the promise is decided."""

import asyncio
import os
import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache.backends.base import Backend, CacheUnavailable


def report(what: str, key: str = "-", number: int = 0, at: float | None = None) -> None:
    send([line(what, key, number, at)])


def line(what: str, key: str, number: int, at: float | None = None) -> str:
    now = time.monotonic()
    return f"{os.getpid()} {what} {key} {number} {now if at is None else at!r} {now!r}\n"


def send(lines: Sequence[str]) -> None:
    # One write, shorter than PIPE_BUF: the lines of several processes do not mix.
    os.write(1, "".join(lines).encode())


class Acknowledging:
    """Reports a write when its response begins: the promise counts from there."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send_on: Send) -> None:
        number = dict(scope.get("headers", ())).get(b"x-number")

        async def reporting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                report("acked", self.key, int(number or 0))
            await send_on(message)

        await self.app(scope, receive, reporting if number else send_on)


class Witness:
    """Says what Redis answered to holds and releases: only a failure opens a window."""

    def __init__(self, backend: Backend, key: str) -> None:
        self._hold, self._release = backend.hold, backend.release
        self._key, self.number = key, 0
        self._unreleased: dict[str, tuple[int, set[str]]] = {}  # by writer: number and tags

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        if writer in self._unreleased:  # renewed
            await self._hold(tags, writer)
            return
        self._unreleased[writer] = self.number, set(tags)
        try:
            await self._hold(tags, writer)
        except (CacheUnavailable, asyncio.CancelledError):
            report("unheld", self._key, self.number)
            raise
        report("held", self._key, self.number)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        if writer not in self._unreleased:  # without a hold, as `invalidate` does
            await self._release(tags, writer, changed=changed)
            return
        number, unreleased = self._unreleased[writer]
        try:
            await self._release(tags, writer, changed=changed)
        except (CacheUnavailable, asyncio.CancelledError):
            if changed:
                report("owed", self._key, number)
            raise
        unreleased.difference_update(tags)
        if changed and not unreleased:
            report("released", self._key, number)
