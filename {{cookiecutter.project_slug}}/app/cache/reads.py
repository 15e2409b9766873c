"""What a computation reads, learned while it is under way.

An entry depends on the tables that were read to make it. Those that the declared tags of its route
cover need nothing more; each other table adds the tag of the table. What a route was seen to read
stays with the route, so its generation is taken before the next query. An answer made from a table
whose generation was not taken before is served and not stored.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from app.cache.backends.base import Generations
from app.cache.policy import Policy, table_tag

# Why it cannot be said which tables a statement reads, or changes.
Unclear = Literal["textual-sql", "view", "function"]

recording: ContextVar["Reads | None"] = ContextVar("recording", default=None)

_UNCLEAR = {"textual-sql": "textual SQL", "view": "views", "function": "functions of PostgreSQL"}

# One of its own: what routes depend on is for those who write them, and not said in production.
log = logging.getLogger(__name__)


class Coverage(Protocol):
    def covered(self, families: frozenset[str]) -> Set[str]:
        """The tables of which every change ends a tag of one of these families."""

    def problems(self, policy: Policy) -> Iterable[str]:
        """What the policy names and no model has, and what to write."""


class NothingCovered:
    """No models are known, so none can be missed."""

    def covered(self, families: frozenset[str]) -> Set[str]:
        return frozenset()

    def problems(self, policy: Policy) -> Iterable[str]:
        return ()


@dataclass(slots=True)
class Reads:
    """What one computation has read so far."""

    tables: set[str] = field(default_factory=set)
    unclear: Unclear | None = None
    """Why it cannot be said which tables were read; None when it can."""
    generations: dict[str, bytes] = field(default_factory=dict)
    """By tag: what cached functions that it called depend on, as they found it."""
    functions: set[str] = field(default_factory=set)
    """Their names."""
    functions_fenced: bool = True
    """Whether that is known of each of them."""

    def is_part_of(self, other: "Reads") -> bool:
        return (
            self.tables <= other.tables
            and self.functions <= other.functions
            and (self.unclear is None or other.unclear is not None)
        )

    def depend_on(self, function: str, generations: Generations | None) -> None:
        """A cached function was called; None where its result depends on nobody knows what."""
        self.functions.add(function)
        if generations is None:
            self.functions_fenced = False
        else:
            # Of two reads the earlier counts: what was made of it is not valid under the later.
            self.generations = {**generations, **self.generations}


def depend_on(function: str, generations: Generations | None) -> None:
    """Tells the computation under way, if there is one, what a cached function depends on."""
    if (reads := recording.get()) is not None:
        reads.depend_on(function, generations)


@contextmanager
def recorded() -> Iterator[Reads]:
    """Records what is read in the block, by this task and by those that it starts."""
    reads = Reads()
    token = recording.set(reads)
    try:
        yield reads
    finally:
        recording.reset(token)


class Learned:
    """What a route, or a function, was seen to read."""

    def __init__(
        self, name: str, policy: Policy, on_change: Callable[[], Any] = lambda: None
    ) -> None:
        self.name, self.policy, self._on_change = name, policy, on_change
        self._families = policy.families
        self.seen: Reads | None = None
        """All of it, over all computations; None before the first."""
        self.tags: tuple[str, ...] = tuple(map(table_tag, policy.reads or ()))
        """Those of the tables that no declared tag covers."""

    def __str__(self) -> str:
        tables = ", ".join(sorted(tag.removeprefix("table:") for tag in self.tags))
        parts = [tag.text for tag in self.policy.tags]
        parts += [f"{tables} (by table)"] if tables else []
        parts += [f"{name} (function)" for name in sorted(self.seen.functions if self.seen else ())]
        return f"{self.name} depends on {', '.join(parts) or 'nothing but its expiry'}"

    @property
    def unclear(self) -> Unclear | None:
        """Why its answers are not stored."""
        return self.seen.unclear if self.seen and self.policy.reads is None else None

    def judge(
        self, coverage: Coverage, reads: Reads, generations: Generations | None
    ) -> tuple[Generations | None, str]:
        """The generations that an entry made from these reads depends on; else None, and why."""
        uncovered = {table_tag(table) for table in reads.tables - coverage.covered(self._families)}
        if self.seen is None or not reads.is_part_of(self.seen):
            self._learn(reads, uncovered)
        if generations is None:
            return None, "not-fenced"
        if reads.unclear is not None and self.policy.reads is None:
            return None, reads.unclear
        if not uncovered <= generations.keys():
            return None, "learning"
        if not reads.functions_fenced:
            return None, "function-not-stored"
        for tag, generation in reads.generations.items():
            if generations.get(tag, generation) != generation:
                return None, "invalidated"  # between the two
        return {**generations, **reads.generations}, ""

    def _learn(self, reads: Reads, uncovered: Set[str]) -> None:
        seen = self.seen or Reads()
        tables, functions = seen.tables | reads.tables, seen.functions | reads.functions
        self.seen = Reads(tables, seen.unclear or reads.unclear, functions=functions)
        if not uncovered <= {*self.tags}:
            self.tags = (*self.tags, *sorted(uncovered - {*self.tags}))
            self._on_change()
        if self.unclear is None:
            log.info(str(self))
        elif seen.unclear is None:
            log.warning(
                "%s is not stored: what its %s read is not known. Name the tables, reads=[…]; or "
                "say reads=[], where expiry is enough",
                self.name,
                _UNCLEAR[self.unclear],
            )
