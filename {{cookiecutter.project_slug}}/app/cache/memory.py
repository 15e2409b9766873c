"""The cache of one process: `memory://`. The same contract as Redis, without a server.

Entries are bounded in number and in bytes. Eviction is S3-FIFO (Yang et al., SOSP 2023): an entry
enters a small queue, is moved to the main queue when it was read there, and is dropped otherwise,
so that a scan over many pages does not push out the few that are read all the time.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.cache.backend import GENERATION_SECONDS, HOLD_SECONDS, LOCK_SECONDS, Begun
from app.cache.entry import GENERATION_BYTES

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024
MAX_TAGS = 100_000
_MAX_READS = 3


@dataclass(slots=True)
class _Item:
    value: bytes
    expires: float
    reads: int = 0


@dataclass(slots=True)
class _Lock:
    token: str
    generations: bytes
    deadline: float


class _Entries:
    """Values by key, bounded, evicted by S3-FIFO."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._small: OrderedDict[str, _Item] = OrderedDict()
        self._main: OrderedDict[str, _Item] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def get(self, key: str, now: float) -> bytes | None:
        item = self._small.get(key) or self._main.get(key)
        if item is None:
            return None
        if item.expires <= now:
            self.remove(key)
            return None
        item.reads = min(item.reads + 1, _MAX_READS)
        return item.value

    def put(self, key: str, value: bytes, expires: float) -> None:
        self.remove(key)
        if len(value) > self._max_bytes // 10:
            return
        # A key that was evicted lately and is wanted again has earned the main queue.
        queue = self._main if key in self._ghosts else self._small
        self._ghosts.pop(key, None)
        queue[key] = _Item(value, expires)
        self.bytes += len(value)
        while len(self) > self._max_entries or self.bytes > self._max_bytes:
            self._evict()

    def remove(self, key: str) -> None:
        item = self._small.pop(key, None) or self._main.pop(key, None)
        if item is not None:
            self.bytes -= len(item.value)

    def _evict(self) -> None:
        small_is_due = len(self._small) * 10 >= len(self) or not self._main
        queue = self._small if small_is_due else self._main
        key, item = queue.popitem(last=False)
        if item.reads:
            item.reads = 0 if queue is self._small else item.reads - 1
            self._main[key] = item
            return
        self.bytes -= len(item.value)
        if queue is self._small:
            self._ghosts[key] = None
            if len(self._ghosts) > self._max_entries:
                self._ghosts.popitem(last=False)


class InMemoryBackend:
    """Bounded by `max_entries` and `max_bytes`; `clock` gives seconds that never go back."""

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.entries = _Entries(max_entries, max_bytes)
        self._generations: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._holders: dict[str, dict[str, float]] = {}
        self._locks: dict[str, _Lock] = {}

    async def read(self, key: str, tags: Sequence[str]) -> tuple[bytes | None, bytes | None]:
        now = self._clock()
        return self.entries.get(key, now), _joined([self._generation(tag, now) for tag in tags])

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        now = self._clock()
        value = self.entries.get(key, now)
        generations = _joined(
            [self._generation(tag, now) or self._create(tag, now) for tag in tags]
        )
        if generations is None:
            return Begun(None, False, value)
        lock = self._locks.get(key)
        if lock and lock.generations == generations and lock.deadline > now:
            return Begun(generations, lock.token == token, value)
        self._locks[key] = _Lock(token, generations, now + LOCK_SECONDS)
        return Begun(generations, True, value)

    async def store(self, key: str, tags: Sequence[str], value: bytes, seconds: float) -> None:
        expires = self._clock() + seconds
        self.entries.put(key, value, expires)
        for tag in tags:
            if tag in self._generations:
                generation, until = self._generations[tag]
                self._generations[tag] = (generation, max(until, expires))

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        lock = self._locks.get(key)
        if lock and lock.token == token:
            lock.deadline = self._clock() + LOCK_SECONDS

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None:
        lock = self._locks.get(key)
        if lock and lock.token == token:
            del self._locks[key]

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        deadline = self._clock() + HOLD_SECONDS
        for tag in tags:
            self._holders.setdefault(tag, {})[writer] = deadline
            self._generations.pop(tag, None)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        for tag in tags:
            holders = self._holders.get(tag, {})
            holders.pop(writer, None)
            if not holders:
                self._holders.pop(tag, None)
            if changed:
                self._generations.pop(tag, None)

    async def clear(self) -> None:
        self._generations.clear()

    async def ping(self) -> None:
        return None

    async def aclose(self) -> None:
        return None

    def _generation(self, tag: str, now: float) -> bytes | None:
        generation, expires = self._generations.get(tag, (None, 0.0))
        return generation if expires > now else None

    def _create(self, tag: str, now: float) -> bytes | None:
        if any(deadline > now for deadline in self._holders.get(tag, {}).values()):
            return None
        generation = secrets.token_bytes(GENERATION_BYTES)
        self._generations[tag] = (generation, now + GENERATION_SECONDS)
        if len(self._generations) > MAX_TAGS:
            self._generations.popitem(last=False)
        return generation


def _joined(generations: Sequence[bytes | None]) -> bytes | None:
    return None if None in generations else b"".join(generations)  # type: ignore[arg-type]
