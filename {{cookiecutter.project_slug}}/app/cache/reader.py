"""Lookups in Redis: what is asked for at the same time goes out as one MGET.

That is what comes in one turn of the event loop, and what comes while an MGET is under way.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hiredis import ReplyError

from app.cache.backend import CacheUnavailable, Found
from app.cache.breaker import Breaker
from app.cache.connection import Connection
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.local import LocalTier
from app.cache.metrics import Recorder

# Keys in Redis: of an entry, then of the generations of its tags.
Names = tuple[str, ...]


@dataclass(slots=True)
class _Read:
    """Who waits for the same, and for how many seconds they may be answered locally then."""

    local: float
    futures: list["asyncio.Future[Found]"] = field(default_factory=list)
    copy: Entry | None = None


class Reader:
    """Names of generations begin with `tracked`."""

    def __init__(
        self,
        connection: Connection,
        local: LocalTier,
        breaker: Breaker,
        recorder: Recorder,
        *,
        tracked: str,
    ) -> None:
        self._connection, self._local, self._tracked = connection, local, tracked
        self._breaker, self._recorder = breaker, recorder
        self._pending: dict[Names, _Read] = {}
        self._sent: dict[Names, _Read] = {}

    def read(self, names: Names, local: float) -> "asyncio.Future[Found]":
        """Raises CacheUnavailable when it is awaited."""
        future: asyncio.Future[Found] = self._connection.loop.create_future()
        if local and (known := self._known(names)) is not None:
            future.set_result(known)
            return future
        if not self._pending and not self._sent:
            self._connection.loop.call_soon(self._send)
        read = self._pending.get(names)
        if read is None:
            read = self._pending[names] = _Read(local)
        read.futures.append(future)
        return future

    def _known(self, names: Names) -> Found | None:
        """What the local tier has."""
        found = self._local.get(names)
        if found is not None and self._local.wants_proof and self._connection.idle:
            self._connection.send([("PING",)], _ignore, _ignore)
        return found

    def _send(self) -> None:
        self._sent, self._pending = self._pending, {}
        wanted: dict[str, None] = {}
        for (entry, *generations), read in self._sent.items():
            if read.local:
                self._connection.track(self._tracked)
            read.copy = self._local.copy(entry)
            if read.copy is None:
                wanted[entry] = None
            wanted.update(dict.fromkeys(generations))
        answered = partial(self._answer, [*wanted])
        self._connection.send([("MGET", *wanted)], answered, self._fail)

    def _answer(self, wanted: list[str], answers: list[Any]) -> None:
        (values,) = answers
        if isinstance(values, ReplyError):
            self._breaker.failed("read", values, answered=True)
            self._fail_sent(values)
        else:
            self._breaker.succeeded()
            self._hand_out(dict(zip(wanted, values, strict=True)))
        self._sent = {}
        if self._pending:
            self._send()

    def _hand_out(self, values: dict[str, bytes | None]) -> None:
        for names, read in self._sent.items():
            found = self._found(names, read, values)
            if read.copy is not None and found.generations not in (None, read.copy.generations):
                # What was invalidated here may have been made anew elsewhere.
                self._local.drop(names[0])
                self._pending.setdefault(names, _Read(read.local)).futures += read.futures
                continue
            if read.local and self._connection.tracks:
                self._local.allow(names, found, read.local)
            for future in read.futures:
                if not future.done():  # a reader that was cancelled
                    future.set_result(found)

    def _found(self, names: Names, read: _Read, values: dict[str, bytes | None]) -> Found:
        entry, raw = read.copy, values.get(names[0])
        if raw is not None:
            entry = Entry.decode(raw)
            if entry is None:
                self._recorder.count("error", "decode")
            else:
                self._local.keep(names[0], entry)
        generations = [values[name] for name in names[1:]]
        joined = None if None in generations else b"".join(generations)  # type: ignore[arg-type]
        if joined is not None and len(joined) != len(generations) * GENERATION_BYTES:
            joined = None
        return Found(entry, joined)

    def _fail(self, error: Exception) -> None:
        """Fails what waits for the connection, sent or not: it all waits for the same."""
        self._breaker.failed("read", error)
        self._fail_sent(error)
        self._sent, self._pending = self._pending, {}
        self._fail_sent(error)
        self._sent = {}

    def _fail_sent(self, error: Exception) -> None:
        for read in self._sent.values():
            for future in read.futures:
                if not future.done():
                    future.set_exception(CacheUnavailable(f"read: {error!r}"))


def _ignore(_: object) -> None:
    """The local tier has taken note of the answer already."""
