"""Reading from Redis: one connection, one MGET at a time, and the news for the local tier.

A client costs more per command than Redis does. So lookups of one turn of the event loop, and those
that come while an MGET is under way, go out as one; and redis-py only connects (TLS, AUTH, SELECT),
then the socket gets a protocol of ours.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import hiredis
from redis.asyncio import Connection

from app.cache.backend import CacheUnavailable, Found
from app.cache.breaker import Breaker
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.local import Copy, LocalTier
from app.cache.metrics import Recorder

_INCOMPLETE = object()

log = logging.getLogger("app.cache")


OnAnswers = Callable[[list[Any]], None]
# Names of keys, seconds in the local tier, and where the answer goes.
_Read = tuple[tuple[str, ...], float, "asyncio.Future[Found]"]


class Reader:
    """`connect` gives a connection that is ready; names of generations begin with `tracked`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        breaker: Breaker,
        recorder: Recorder,
        *,
        tracked: str,
        timeout: float,
    ) -> None:
        self._connect, self._breaker, self._recorder = connect, breaker, recorder
        self._tracked, self._timeout = tracked, timeout
        self.local = LocalTier()
        self._pending: list[_Read] = []
        self._batch: list[_Read] = []
        self._timer: asyncio.TimerHandle | None = None
        self._link: _Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()  # until Python 3.12 a system call each time

    def read(self, names: tuple[str, ...], local: float) -> "asyncio.Future[Found]":
        """`names` are keys in Redis: of the entry, then of the generations of its tags.

        Raises CacheUnavailable when it is awaited.
        """
        future: asyncio.Future[Found] = self._loop.create_future()
        if local and (known := self._known(names)) is not None:
            future.set_result(known)
            return future
        self._pending.append((names, local, future))
        if not self._batch and len(self._pending) == 1:
            self._loop.call_soon(self._send)
        return future

    def _known(self, names: tuple[str, ...]) -> Found | None:
        """What the local tier has."""
        found = self.local.get(names)
        if found is not None and self.local.wants_proof and self._link and not self._link.busy:
            self._link.send([("PING",)], lambda _: None)
        return found

    async def aclose(self) -> None:
        self._fail(ConnectionError("the cache is closed"))
        if self._closing:
            await asyncio.wait(self._closing)

    def _send(self) -> None:
        self._batch, self._pending = self._pending, []
        if not self._batch:
            return
        self._timer = self._loop.call_later(self._timeout, self._time_out)
        if self._link is None:
            self._opening = self._loop.create_task(self._open())
        else:
            self._ask(self._link)

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except Exception as error:  # on a broken connection redis-py raises more than its own
            self._opening = None
            self._breaker.failed("read", error)
            self._fail(error)
        else:
            self._opening = None
            self._link = _Link(connection, self.local, self._lost)
            self._ask(self._link)

    def _ask(self, link: "_Link") -> None:
        """Heads of the entries that are here; other entries and all generations by one MGET."""
        if any(local for _, local, _ in self._batch):
            link.track(self._tracked)
        heads: dict[str, Copy] = {}
        whole: dict[str, None] = {}
        for (entry, *generations), _, _ in self._batch:
            if entry not in heads and entry not in whole:
                if copy := self.local.copies.get(entry):
                    heads[entry] = copy
                else:
                    whole[entry] = None
            whole.update(dict.fromkeys(generations))
        commands: list[tuple[str, ...]] = [
            ("GETRANGE", name, "0", str(len(heads[name].head) - 1)) for name in heads
        ]
        if whole:
            commands.append(("MGET", *whole))
        link.send(commands, partial(self._answer, heads, [*whole]))

    def _answer(self, heads: dict[str, Copy], whole: list[str], answers: list[Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        values = answers.pop() if whole else []
        if isinstance(values, hiredis.ReplyError):
            self._breaker.failed("read", values, answered=True)
            self._fail_reads(values)
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
            self.local.copies.remove(name)
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
                if local and self._link and self._link.tracks:
                    self.local.allow(names, found, local)
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
                self.local.copies.put(names[0], Copy(entry, head), entry.size)
        generations = [values[name] for name in names[1:]]
        joined = None if None in generations else b"".join(generations)  # type: ignore[arg-type]
        if joined is not None and len(joined) != len(generations) * GENERATION_BYTES:
            joined = None
        return Found(entry, joined)

    def _time_out(self) -> None:
        error = TimeoutError(f"no answer within {self._timeout:g} s")
        self._breaker.failed("read", error)
        self._fail(error)

    def _lost(self, link: "_Link") -> None:
        if link is self._link:
            error = ConnectionError("the server hung up")
            if self._batch:
                self._breaker.failed("read", error)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Gives the connection up, and the reads that wait for it: it has one silence for all."""
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._link is not None:
            task = self._loop.create_task(self._link.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._timer = self._opening = self._link = None
        self.local.forget_all()
        self._batch, self._pending = self._batch + self._pending, []
        self._fail_reads(error)
        self._batch = []

    def _fail_reads(self, error: Exception) -> None:
        for _, _, future in self._batch:
            if not future.done():
                future.set_exception(CacheUnavailable(f"read: {error!r}"))


@dataclass(slots=True)
class _Expected:
    sent: float
    number: int
    on_answers: OnAnswers
    answers: list[Any] = field(default_factory=list)


class _Link(asyncio.Protocol):
    """A socket to Redis: commands are answered in their order, pushes come in between."""

    def __init__(
        self, connection: Connection, local: LocalTier, on_lost: Callable[["_Link"], None]
    ) -> None:
        self._connection, self._local, self._on_lost = connection, local, on_lost
        self._parser = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._expected: deque[_Expected] = deque()
        self._asked = self.tracks = False
        # No public attribute of redis-py has the transport.
        self._transport = connection._writer.transport  # type: ignore[union-attr]
        self._streams = self._transport.get_protocol()
        self._transport.set_protocol(self)

    @property
    def busy(self) -> bool:
        return bool(self._expected)

    def send(self, commands: Sequence[tuple[str, ...]], on_answers: OnAnswers) -> None:
        self._expected.append(_Expected(time.monotonic(), len(commands), on_answers))
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        self._transport.write(b"".join(packed))

    def track(self, prefix: str) -> None:
        """From now on Redis pushes the keys with this prefix that change."""
        if not self._asked:
            self._asked = True
            tracking = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
            self.send([("HELLO", "3"), tracking], self._tracking)

    def _tracking(self, answers: list[Any]) -> None:
        self.tracks = answers[1] == b"OK"
        if not self.tracks:
            log.warning("no local hits: the cache server refuses CLIENT TRACKING: %s", answers)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not _INCOMPLETE:
            if isinstance(answer, hiredis.PushNotification):
                self._push(answer)
                continue
            expected = self._expected[0]
            expected.answers.append(answer)
            if len(expected.answers) < expected.number:
                continue
            del self._expected[0]
            if self.tracks:
                self._local.prove(expected.sent)
            expected.on_answers(expected.answers)

    def _push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # everything was flushed
            self._local.forget_all()
        else:
            for name in message[1]:
                self._local.forget(name.decode())

    def connection_lost(self, error: Exception | None) -> None:
        self._streams.connection_lost(error)
        self._on_lost(self)

    async def aclose(self) -> None:
        await self._connection.disconnect(nowait=True)
