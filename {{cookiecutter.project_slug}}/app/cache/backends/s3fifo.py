"""Values in memory, bounded in number and in bytes, that a scan cannot push out.

S3-FIFO (Yang et al., SOSP 2023): a value enters a small queue, is moved to the main queue when it
was read there, and is dropped otherwise, so that a walk over many pages does not evict the few that
are read all the time.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")
_MAX_READS = 3


@dataclass(slots=True)
class _Item(Generic[V]):
    value: V
    size: int
    reads: int = 0


class S3Fifo(Generic[V]):
    """Values by key. A value of more than a tenth of `max_bytes` is not kept.

    `remembers` says whether a key that was evicted lately and is wanted again goes straight to the
    main queue; without it, reads alone keep a value.
    """

    def __init__(self, max_entries: int, max_bytes: int, *, remembers: bool = True) -> None:
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._max_ghosts = max_entries if remembers else 0
        self._small: OrderedDict[str, _Item[V]] = OrderedDict()
        self._main: OrderedDict[str, _Item[V]] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def get(self, key: str, *, counts: bool = True) -> V | None:
        item = self._main.get(key) or self._small.get(key)
        if item is None:
            return None
        if counts and item.reads < _MAX_READS:
            item.reads += 1
        return item.value

    def put(self, key: str, value: V, size: int) -> None:
        self.remove(key)
        if size > self._max_bytes // 10:
            return
        queue = self._main if key in self._ghosts else self._small
        self._ghosts.pop(key, None)
        queue[key] = _Item(value, size)
        self.bytes += size
        while len(self) > self._max_entries or self.bytes > self._max_bytes:
            self._evict()

    def clear(self) -> None:
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
        self.bytes = 0

    def remove(self, key: str) -> None:
        item = self._small.pop(key, None) or self._main.pop(key, None)
        if item is not None:
            self.bytes -= item.size

    def _evict(self) -> None:
        small_is_due = len(self._small) * 10 >= len(self) or not self._main
        queue = self._small if small_is_due else self._main
        key, item = queue.popitem(last=False)
        if item.reads:
            item.reads = 0 if queue is self._small else item.reads - 1
            self._main[key] = item
            return
        self.bytes -= item.size
        if queue is self._small:
            self._ghosts[key] = None
            if len(self._ghosts) > self._max_ghosts:
                self._ghosts.popitem(last=False)
