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
from collections.abc import Callable
from typing import Any

from hiredis import ReplyError

from app.cache.backends.base import Found
from app.cache.backends.redis.connection import Connection
from app.cache.backends.s3fifo import S3Fifo
from app.cache.entry import INCARNATION_BYTES, Entry

PROOF_SECONDS = 0.5
MAX_ENTRIES = 10_000
MAX_BYTES = 32 * 1024 * 1024

log = logging.getLogger("app.cache")


class Copy:
    """An entry, with what has to be compared to tell whether it is valid."""

    __slots__ = ("entry", "fences", "found", "incarnation", "until")

    def __init__(self, entry: Entry, tracked: str) -> None:
        self.entry = entry
        self.fences = {tracked + "{" + tag + "}": each for tag, each in entry.generations.items()}
        """Its generations, by the names of their keys."""
        incarnations = {each[:INCARNATION_BYTES] for each in entry.generations.values()}
        self.incarnation = incarnations.pop() if len(incarnations) == 1 else b""
        self.found = Found(entry, entry.generations, valid=True)
        """What to answer when it is."""
        self.until = 0.0
        """Till when it may be used without a question, by `monotonic`."""


class LocalTier:
    """Entries by their keys.

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

    def get(self, key: str) -> Found | None:
        """None when Redis has to be asked."""
        now = self._monotonic()
        copy = self._copies.get(key)
        if copy is None or now >= copy.until or now >= self._proven_until:
            return None
        for name, generation in copy.fences.items():
            if self._generations.get(name) != generation:
                return None
        return copy.found

    def copy(self, key: str) -> Copy | None:
        """That of an entry, while it is fresh. Its generations tell whether it is valid."""
        copy = self._copies.get(key)
        if copy is None or copy.entry.fresh_until <= self._clock() * 1000:
            return None
        return copy

    def keep(self, key: str, copy: Copy) -> None:
        self._copies.put(key, copy, copy.entry.size)

    def drop(self, key: str) -> None:
        self._copies.remove(key)

    def allow(self, key: str, found: Found, seconds: float) -> None:
        """Redis has just said what is valid: for so long it may be used without a question."""
        copy = self._copies.get(key)
        if copy is None or found.entry is not copy.entry or not found.valid:
            return
        fresh = copy.entry.fresh_until / 1000 - self._clock()
        copy.until = self._monotonic() + min(seconds, fresh)
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
        self._copies: S3Fifo[Copy] = S3Fifo(MAX_ENTRIES, MAX_BYTES)
        self._generations: dict[str, bytes] = {}
        self._proven_until = 0.0
