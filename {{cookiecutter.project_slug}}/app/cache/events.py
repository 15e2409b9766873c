"""Where the cache reports what it does, without knowing a metrics library.

The events and their labels are few and fixed, so that they can become Prometheus counters:

    hit{state=fresh|stale|error}  miss{reason=absent|expired|invalidated|unavailable}
    bypass{reason}  collapsed  stored  rejected{reason}  refused{reason}  refresh
    refresh_skipped  error{operation}  breaker{state=open|closed}
    pending_invalidation{state=queued|done}
    commit_in_doubt{state=open|settled}
    bytes_stored  seconds_saved  listener{connected|lost|invalidated}
"""

from collections import Counter
from typing import Protocol

from app.cache.entry import Entry


class Recorder(Protocol):
    def count(self, event: str, label: str = "", amount: float = 1) -> None: ...

    def hit(self, state: str, entry: Entry) -> None:
        """A `hit`, and `seconds_saved`: what it took to compute the entry."""


class Counters:
    """The recorder that is used when none is given: plain counters in memory."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[str, str]] = Counter()

    def count(self, event: str, label: str = "", amount: float = 1) -> None:
        self.totals[event, label] += amount  # type: ignore[assignment]

    def hit(self, state: str, entry: Entry) -> None:
        self.count("hit", state)
        self.count("seconds_saved", amount=entry.compute_ms / 1000)
