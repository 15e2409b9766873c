"""Lookups in Redis: what is asked for at the same time goes out as one MGET.

That is what comes in one turn of the event loop, and what comes while an MGET is under way; but
nobody waits longer for that than BATCH_SECONDS.
"""

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from app.cache.backends.base import CacheUnavailable, Found
from app.cache.backends.redis.client import Client
from app.cache.backends.redis.connection import Connection
from app.cache.backends.redis.local import Copy, LocalTier
from app.cache.backends.redis.resp import ProtocolError
from app.cache.backends.redis.server import Server
from app.cache.entry import Entry
from app.cache.events import Recorder

# What one request may lose is 100 ms: a command has 90 (see base.py), waiting for it has this.
BATCH_SECONDS = 0.005

Asked: TypeAlias = tuple[str, tuple[str, ...]]  # the key of an entry, and tags


@dataclass(slots=True)
class _Read:
    """Who waits for the same, and for how many seconds they may be answered locally then."""

    key: str
    tags: tuple[str, ...]
    local: float
    futures: list["asyncio.Future[Found]"] = field(default_factory=list)
    copy: Copy | None = None
    copied_now: bool = False
    """Whether the copy was made for this read, from what Redis answered a moment ago."""


@dataclass(slots=True, eq=False)
class _Batch:
    """What one MGET is for."""

    reads: list[_Read]
    wanted: list[str]
    sent: float


class Reader:
    def __init__(
        self,
        connection: Connection,
        client: Client,
        server: Server,
        local: LocalTier,
        recorder: Recorder,
        *,
        name: str,
    ) -> None:
        self._connection, self._client, self._server = connection, client, server
        self._local, self._recorder = local, recorder
        self._entries, self._tracked = f"{name}:e:", f"{name}:g:"
        self._pending: dict[Asked, _Read] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[_Batch] = set()

    def read(self, key: str, tags: tuple[str, ...], local: float) -> "asyncio.Future[Found]":
        """Raises CacheUnavailable when it is awaited."""
        loop = self._connection.loop
        future: asyncio.Future[Found] = loop.create_future()
        if local and (known := self._known(key)) is not None:
            future.set_result(known)
            return future
        if not self._pending:
            if not self._under_way:
                loop.call_soon(self._send)
            else:
                self._timer = loop.call_later(BATCH_SECONDS, self._send)
        asked = key, tags
        read = self._pending.get(asked)
        if read is None:
            read = self._pending[asked] = _Read(key, tags, local)
        read.futures.append(future)
        return future

    def _known(self, key: str) -> Found | None:
        """What the local tier has."""
        found = self._local.get(key)
        if found is not None and self._local.wants_proof and self._connection.idle:
            self._ask_server()
        return found

    def _ask_server(self) -> None:
        """Whether it still is what it was, ahead of what is judged by that."""
        count = partial(self._recorder.count, "error", "info")
        self._connection.send([self._server.QUESTION], self._server.check, lambda _: count())

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reads, self._pending = [*self._pending.values()], {}
        if not reads:  # they have failed meanwhile
            return
        wanted: dict[str, object] = {}
        for read in reads:
            if read.local:
                self._local.track(self._connection, self._tracked)
            copy = read.copy = read.copy or self._local.copy(read.key)
            if copy is None:
                wanted[self._entries + read.key] = None
                wanted.update(dict.fromkeys(map(self._generation, read.tags)))
            else:
                wanted.update(copy.fences)
        if self._server.is_to_be_asked():
            self._ask_server()
        batch = _Batch(reads, [*wanted], time.monotonic())
        self._under_way.add(batch)
        answered, failed = partial(self._answer, batch), partial(self._fail, batch)
        self._client.send("read", [("MGET", *wanted)], answered, failed)

    def _answer(self, batch: _Batch, answers: list[Any]) -> None:
        (values,) = answers
        if not isinstance(values, list) or len(values) != len(batch.wanted):
            raise ProtocolError(f"{len(batch.wanted)} keys, and the answer is {values!r:.80}")
        self._under_way.discard(batch)
        self._hand_out(batch, dict(zip(batch.wanted, values, strict=True)))
        if self._pending:
            self._send()

    def _hand_out(self, batch: _Batch, values: dict[str, bytes | None]) -> None:
        for read in batch.reads:
            if read.copy is None:
                self._copy(read, values)
            copy = read.copy
            if copy is not None and self._is_valid(copy, values):
                found = copy.found
            elif copy is not None and self._is_worth_a_question(read, values):
                if time.monotonic() - batch.sent > BATCH_SECONDS:
                    _fail(read, CacheUnavailable("read: no time to ask again"))
                else:
                    again = _Read(read.key, read.tags, read.local)
                    again = self._pending.setdefault((read.key, read.tags), again)
                    again.futures += read.futures
                    again.copy, again.copied_now = read.copy, read.copied_now
                continue
            else:
                found = self._not_valid(read, values)
            if read.local and self._local.tracks:
                self._local.allow(read.key, found, read.local)
            for future in read.futures:
                if not future.done():  # a reader that was cancelled
                    future.set_result(found)

    def _copy(self, read: _Read, values: dict[str, bytes | None]) -> None:
        raw = values[self._entries + read.key]
        if raw is None:
            return
        entry = Entry.decode(raw)
        if entry is None:
            self._recorder.count("error", "decode")
            return
        read.copy, read.copied_now = Copy(entry, self._tracked), True
        self._local.keep(read.key, read.copy)

    def _is_valid(self, copy: Copy, values: dict[str, bytes | None]) -> bool:
        known = copy.incarnation == self._server.incarnation
        return known and copy.fences.items() <= values.items()

    def _is_worth_a_question(self, read: _Read, values: dict[str, bytes | None]) -> bool:
        """Whether Redis has to be asked once more, with another question."""
        assert read.copy is not None
        if read.copied_now:
            # It may depend on more than this process has learned, so generations of it are missing.
            return not values.keys() >= read.copy.fences.keys()
        if None in [values[name] for name in read.copy.fences]:
            return False
        # What was invalidated here may have been made anew elsewhere.
        self._local.drop(read.key)
        read.copy = None
        return True

    def _not_valid(self, read: _Read, values: dict[str, bytes | None]) -> Found:
        generations = {tag: values.get(self._generation(tag)) for tag in read.tags}
        entry = read.copy.entry if read.copy is not None else None
        return Found(entry, self._server.complete(generations))

    def _generation(self, tag: str) -> str:
        return self._tracked + "{" + tag + "}"

    def _fail(self, batch: _Batch, error: CacheUnavailable) -> None:
        """Fails what waits for the connection, sent or not: it all waits for the same."""
        self._under_way.discard(batch)
        pending, self._pending = self._pending, {}
        for read in (*batch.reads, *pending.values()):
            _fail(read, error)


def _fail(read: _Read, error: CacheUnavailable) -> None:
    for future in read.futures:
        if not future.done():
            future.set_exception(CacheUnavailable(*error.args))
