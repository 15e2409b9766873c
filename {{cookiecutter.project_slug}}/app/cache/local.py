"""The local tier: entries that Redis answered with, kept in this process.

Every lookup profits: whether an entry is valid its generations tell, so of one that is here and
fresh Redis is asked for these alone. A body crosses the network once and is decoded once.

Where a policy allows it (`local`), there are lookups that ask nobody. Redis pushes the name of each
generation that changes (client-side caching in broadcast mode, redis.io/docs/latest/develop/
reference/client-side-caching) over the connection that its answers come by: answers and news have
one order, so what was read before an invalidation cannot settle here after the news of it. And what
Redis did before it answered a command is known here with the answer: a local hit lacks at most what
was invalidated since the last answered command was sent, and there is none when that is
PROOF_SECONDS ago.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hiredis import ReplyError

from app.cache.backend import Found
from app.cache.connection import Connection
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.s3fifo import S3Fifo

PROOF_SECONDS = 0.5
MAX_ENTRIES = 10_000
MAX_BYTES = 32 * 1024 * 1024

log = logging.getLogger("app.cache")


@dataclass(slots=True)
class _Copy:
    entry: Entry
    until: float = 0.0
    """Till when it may be used without a question, by `monotonic`."""
    fences: tuple[tuple[str, bytes], ...] = ()
    """Names and values of the generations that it was valid under."""
    found: Found | None = None


class LocalTier:
    """By the names of keys in Redis: that of an entry first, then those of its generations.

    It listens to the connection."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._asked = self.tracks = False
        self.forget_all()

    def track(self, connection: Connection, prefix: str) -> None:
        """From now on Redis pushes the keys with this prefix that change."""
        if not self._asked:
            self._asked = True
            tracking = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
            connection.send([("HELLO", "3"), tracking], self._told, lambda _: None)

    def _told(self, answers: list[Any]) -> None:
        hello, tracking = answers
        # To a client that does not speak RESP3, Redis says OK and pushes nothing.
        self.tracks = tracking == b"OK" and not isinstance(hello, ReplyError)
        if not self.tracks:
            log.warning("no local hits: the cache server refuses to push changes: %s", answers)

    def pushed(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # everything was flushed
            self.forget_all()
        else:
            for name in message[1]:
                self.forget(name.decode(errors="replace"))

    def answered(self, sent: float) -> None:
        """A command that was sent then, by `monotonic`, has been answered: that is a proof."""
        if self.tracks:
            self._proven_until = sent + PROOF_SECONDS

    def lost(self) -> None:
        """What Redis would have pushed over the connection is lost with it."""
        self._asked = self.tracks = False
        self.forget_all()

    def get(self, names: Sequence[str]) -> Found | None:
        """None when Redis has to be asked."""
        now = self._monotonic()
        copy = self._copies.get(names[0])
        if copy is None or now >= copy.until or now >= self._proven_until:
            return None
        for name, generation in copy.fences:
            if self._generations.get(name) != generation:
                return None
        return copy.found

    def copy(self, name: str) -> Entry | None:
        """The entry of this name, while it is fresh. Its generations tell whether it is valid."""
        copy = self._copies.get(name)
        if copy is None or copy.entry.fresh_until <= self._clock() * 1000:
            return None
        return copy.entry

    def keep(self, name: str, entry: Entry) -> None:
        self._copies.put(name, _Copy(entry), entry.size)

    def drop(self, name: str) -> None:
        self._copies.remove(name)

    def allow(self, names: Sequence[str], found: Found, seconds: float) -> None:
        """Redis has just said that it is valid: for so long it may be used without a question."""
        entry, copy = found.entry, self._copies.get(names[0])
        if copy is None or entry is not copy.entry or entry.generations != found.generations:
            return
        fresh = entry.fresh_until / 1000 - self._clock()
        copy.until = self._monotonic() + min(seconds, fresh)
        each = range(0, len(entry.generations), GENERATION_BYTES)
        generations = [entry.generations[start : start + GENERATION_BYTES] for start in each]
        copy.fences, copy.found = tuple(zip(names[1:], generations, strict=True)), found
        if len(self._generations) >= MAX_ENTRIES:
            self._generations.clear()
        self._generations.update(copy.fences)

    @property
    def wants_proof(self) -> bool:
        """Whether it is time to send a command for the sake of its answer."""
        return self._monotonic() > self._proven_until - PROOF_SECONDS / 2

    def forget(self, generation: str) -> None:
        self._generations.pop(generation, None)

    def forget_all(self) -> None:
        self._copies: S3Fifo[_Copy] = S3Fifo(MAX_ENTRIES, MAX_BYTES)
        self._generations: dict[str, bytes] = {}
        self._proven_until = 0.0
