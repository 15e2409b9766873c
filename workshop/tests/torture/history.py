"""What processes report, and how a run is summed up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# So many events are shown before a violation.
EXCERPT_EVENTS = 30
# The fault that harms PostgreSQL; all others harm Redis.
LATE_COMMIT = "late COMMIT"


class Event(NamedTuple):
    """What happened to which version of which key, by the clock that all processes share.

    ready                       a process is up
    hit, miss                   a read, from `at` to `ended`
    intent, acked               around a write; acked when its response begins
    doubted                     a write was answered with 503
    held, unheld                Redis took the hold, or could not be told
    released, owed              Redis took the release (maybe later), or could not be told
    killed, seen                a writer; and the version that PostgreSQL had after that
    fault                       from `at` to `ended`; its kind is the key
    failed                      an answer that was no success, or a process that broke down
    """

    pid: int
    what: str
    key: str
    number: int
    at: float
    ended: float

    def __str__(self) -> str:
        return f"{self.at:.4f}-{self.ended:.4f} {self.pid} {self.what} {self.key} v{self.number}"


@dataclass(slots=True)
class Verdict:
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    documented: Counter[str] = field(default_factory=Counter)
    """Stale reads in a window that the documentation states, by window."""
    violations: list[str] = field(default_factory=list)
    slowest_landing: float = 0.0
    """Seconds from Redis answering again to the last invalidation that it was owed."""

    def table(self) -> str:
        count = self.counts
        rows = [
            (
                "reads",
                f"{count['reads']} ({count['hits']} hits),"
                f" {count['own']} of them by a process of what it wrote",
            ),
            (
                "writes acknowledged",
                f"{count['acked']} of {count['intent']} begun, {count['doubted']} got 503;"
                f" {count['late']} committed after that",
            ),
            (
                "kills",
                f"{count['kills']}: {count['kills in a write']} in a write,"
                f" {count['kills in a hold']} between hold and release,"
                f" {count['kills after COMMIT']} after COMMIT and before the answer",
            ),
            ("faults", _listed(self.faults)),
            (
                "Redis not told",
                f"{count['unheld']} holds, {count['owed']} releases, the slowest of them"
                f" {self.slowest_landing:.2f} s after Redis answered again",
            ),
            ("stale, documented", _listed(self.documented)),
            ("reads after newer", f"{count['reads after newer']} (not promised, a figure)"),
            ("violations", str(len(self.violations))),
        ]
        return "\n".join(f"{name:<21}{value}" for name, value in rows)


def excerpt(history: Sequence[Event], read: Event, newest: int) -> str:
    """What happened to the key since the version that the read returned was written."""
    since = min(
        (
            each.at
            for each in history
            if each.key == read.key and each.number in (newest, read.number)
        ),
        default=read.at,
    )
    near = [
        each
        for each in history
        if since <= each.at <= read.ended
        and (each.key == read.key or each.what == "fault")
        and each.what not in ("hit", "miss")
    ]
    return "\n".join(
        f"    {each}" for each in sorted(near, key=lambda each: each.at)[-EXCERPT_EVENTS:]
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "none"
