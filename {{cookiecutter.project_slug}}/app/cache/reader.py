"""Lookups in Redis: what is asked for at the same time goes out as one MGET.

That is what comes in one turn of the event loop, and what comes while an MGET is under way. Entries
that the local tier has are asked for by their head alone.
"""

import asyncio
from functools import partial
from typing import Any

import hiredis

from app.cache.backend import CacheUnavailable, Found
from app.cache.breaker import Breaker
from app.cache.connection import Command, Connection
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.local import Copy, LocalTier
from app.cache.metrics import Recorder

# Names of keys, seconds in the local tier, and where the answer goes.
_Read = tuple[tuple[str, ...], float, "asyncio.Future[Found]"]


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
        self._pending: list[_Read] = []
        self._batch: list[_Read] = []

    def read(self, names: tuple[str, ...], local: float) -> "asyncio.Future[Found]":
        """`names` are keys in Redis: of the entry, then of the generations of its tags.

        Raises CacheUnavailable when it is awaited.
        """
        future: asyncio.Future[Found] = self._connection.loop.create_future()
        if local and (known := self._known(names)) is not None:
            future.set_result(known)
            return future
        self._pending.append((names, local, future))
        if not self._batch and len(self._pending) == 1:
            self._connection.loop.call_soon(self._send)
        return future

    def _known(self, names: tuple[str, ...]) -> Found | None:
        """What the local tier has."""
        found = self._local.get(names)
        if found is not None and self._local.wants_proof and self._connection.idle:
            self._connection.send([("PING",)], _ignore, _ignore)
        return found

    def _send(self) -> None:
        self._batch, self._pending = self._pending, []
        if not self._batch:
            return
        if any(local for _, local, _ in self._batch):
            self._connection.track(self._tracked)
        heads: dict[str, Copy] = {}
        whole: dict[str, None] = {}
        for (entry, *generations), _, _ in self._batch:
            if entry not in heads and entry not in whole:
                if copy := self._local.copies.get(entry):
                    heads[entry] = copy
                else:
                    whole[entry] = None
            whole.update(dict.fromkeys(generations))
        commands: list[Command] = [
            ("GETRANGE", name, 0, len(copy.head) - 1) for name, copy in heads.items()
        ]
        if whole:
            commands.append(("MGET", *whole))
        self._connection.send(commands, partial(self._answer, heads, [*whole]), self._fail)

    def _answer(self, heads: dict[str, Copy], whole: list[str], answers: list[Any]) -> None:
        values = answers.pop() if whole else []
        if isinstance(values, hiredis.ReplyError):
            self._breaker.failed("read", values, answered=True)
            self._fail_batch(values)
        else:
            self._breaker.succeeded()
            entries = self._recognised(heads, answers)
            self._hand_out(entries, dict(zip(whole, values, strict=True)))
        self._batch = []
        self._send()

    def _recognised(self, heads: dict[str, Copy], answers: list[Any]) -> dict[str, Entry | None]:
        """The entries here that are still those in Redis. What is another by now is missing."""
        entries: dict[str, Entry | None] = {}
        for (name, copy), head in zip(heads.items(), answers, strict=True):
            if head == copy.head:
                entries[name] = copy.entry
                continue
            self._local.copies.remove(name)
            if not head or isinstance(head, hiredis.ReplyError):  # gone, or no string
                entries[name] = None
        return entries

    def _hand_out(self, entries: dict[str, Entry | None], values: dict[str, bytes | None]) -> None:
        """Who reads the same is given the same."""
        results: dict[tuple[str, ...], Found] = {}
        for read in self._batch:
            names, local, future = read
            if names[0] not in entries and names[0] not in values:
                self._pending.append(read)  # in the next MGET, as a whole
                continue
            found = results.get(names)
            if found is None:
                found = results[names] = self._found(names, entries, values)
                if local and self._connection.tracks:
                    self._local.allow(names, found, local)
            if not future.done():  # a reader that was cancelled
                future.set_result(found)

    def _found(
        self,
        names: tuple[str, ...],
        entries: dict[str, Entry | None],
        values: dict[str, bytes | None],
    ) -> Found:
        entry = entries.get(names[0])
        raw = values.get(names[0])
        if raw is not None:
            entry = entries[names[0]] = Entry.decode(raw)
            if entry is None:
                self._recorder.count("error", "decode")
            else:
                head = raw[: Entry.head_bytes(len(names) - 1)]
                self._local.copies.put(names[0], Copy(entry, head), entry.size)
        generations = [values[name] for name in names[1:]]
        joined = None if None in generations else b"".join(generations)  # type: ignore[arg-type]
        if joined is not None and len(joined) != len(generations) * GENERATION_BYTES:
            joined = None
        return Found(entry, joined)

    def _fail(self, error: Exception) -> None:
        """Fails what waits for the connection, sent or not: it all waits for the same."""
        self._breaker.failed("read", error)
        self._batch, self._pending = self._batch + self._pending, []
        self._fail_batch(error)

    def _fail_batch(self, error: Exception) -> None:
        for _, _, future in self._batch:
            if not future.done():
                future.set_exception(CacheUnavailable(f"read: {error!r}"))
        self._batch = []


def _ignore(_: object) -> None:
    """The local tier has taken note of the answer already."""
