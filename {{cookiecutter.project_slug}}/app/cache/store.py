"""Looking up and storing: the only place where freshness and generations are judged.

A failing backend is a miss here, never an error: `Store` turns CacheUnavailable into the state
`unavailable` and a counter.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from app.cache.backends.base import Backend, CacheUnavailable, Generations
from app.cache.budget import SWIFT_SECONDS, Budget, current_budget
from app.cache.entry import Entry
from app.cache.events import Recorder
from app.cache.policy import Policy
from app.cache.writes import Writes

# An entry expires up to this part of its life early, so that pages stored together do not all
# expire together.
JITTER = 0.1
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024

State = Literal["fresh", "stale", "expired", "invalidated", "absent", "unavailable"]


@dataclass(slots=True)
class Lookup:
    """What is under a key. `entry` is set while it may be served: fresh, stale, or on error."""

    state: State
    entry: Entry | None
    generations: Generations | None
    now: int
    budget: Budget
    """What is left for further calls on behalf of the same request."""

    @property
    def ttl(self) -> int:
        """For how many seconds the entry is fresh; less than 0 when it is not."""
        return (self.entry.fresh_until - self.now) // 1000 if self.entry is not None else 0


@dataclass(frozen=True, slots=True)
class Computed:
    """What a computation came to, and what may be done with it."""

    payload: bytes | None
    """None when it could not be captured, so that everybody has to ask the origin on their own."""
    storable: bool = True
    shared: bool = True
    """Whether others who asked for the same key may have it."""
    failed: bool = False
    """Whether the origin is in trouble: a stale entry is better than this."""
    expire: float | None = None
    """Seconds of freshness where they are not those of the policy."""
    stored: bool = False
    """Whether it goes into the cache: not while a writer holds a tag, or the cache is away."""
    generations: Generations | None = None
    """What it depends on; None when that is not known, or was not fenced before it was read."""
    why_not_stored: str = ""


class Store:
    """Entries of one cache; `clock` gives seconds since the Unix epoch.

    What this process has written and the cache does not know yet (`writes`) is invalid here: the
    backend would still call it valid.
    """

    def __init__(
        self,
        backend: Backend,
        writes: Writes,
        recorder: Recorder,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._backend, self._writes, self._recorder = backend, writes, recorder
        self._clock, self._rng = clock, rng

    async def lookup(
        self, key: str, tags: Sequence[str], local: float = 0, budget: Budget | None = None
    ) -> Lookup:
        """With `local`, this process may answer itself: see `Backend.read`."""
        budget = budget or current_budget.get() or Budget()
        # Before Redis is asked: what it is told meanwhile it may have answered without.
        owed = self._writes.owed
        started = time.monotonic()
        try:
            if budget.is_whole:  # a read ends by itself before that is spent
                entry, generations, valid = await self._backend.read(key, tags, local)
            else:
                read = self._backend.read
                entry, generations, valid = await budget.within(read, key, tags, local)
        except (CacheUnavailable, TimeoutError):
            return Lookup("unavailable", None, None, self._now(), budget)
        finally:
            if time.monotonic() - started > SWIFT_SECONDS:  # a hit calls no more than it must
                budget.spend(started)
        if owed:
            generations = generations if owed.isdisjoint(tags) else None
            valid = valid and entry is not None and owed.isdisjoint(entry.generations)
        now = int(self._clock() * 1000)
        state, entry = _judge(entry, now, valid=valid)
        return Lookup(state, entry, generations, now, budget)

    async def begin(
        self, key: str, tags: Sequence[str], token: str, budget: Budget
    ) -> tuple[Generations | None, bool, bool] | None:
        """Generations and lock for a computation (neither while a writer holds a tag), and whether
        there is a fresh entry by now, so that a lookup is worth it. None when the cache is
        unavailable, or does not know of a write yet.
        """
        if not self._writes.owed.isdisjoint(tags):
            return None
        started = time.monotonic()
        try:
            begun = await budget.within(self._backend.begin, key, tags, token)
        except (CacheUnavailable, TimeoutError):
            return None
        finally:
            budget.spend(started)
        entry, generations = begun.entry, begun.generations or {}
        # Of tags that this process has not learned of it cannot tell: the lookup will.
        valid = entry is not None and all(
            generations.get(tag, generation) == generation
            for tag, generation in entry.generations.items()
        )
        state, _ = _judge(entry, self._now(), valid=valid)
        return begun.generations, begun.owner, state == "fresh"

    async def put(
        self,
        key: str,
        tags: Sequence[str],
        computed: Computed,
        policy: Policy,
        generations: Generations,
        compute_ms: int,
        token: str,
    ) -> bool:
        """Stores what was computed from data read after `generations` were, and gives up the lock.

        False when it could not.
        """
        if computed.payload is None or len(computed.payload) > MAX_PAYLOAD_BYTES:
            self._recorder.count("rejected", "too large")
            return False
        expire = policy.expire if computed.expire is None else computed.expire
        fresh = expire * (1 - JITTER * self._rng.random())
        now = self._now()
        entry = Entry(
            created=now,
            fresh_until=now + int(fresh * 1000),
            stale_until=now + int((fresh + policy.stale) * 1000),
            error_until=now + int((fresh + max(policy.stale, policy.stale_if_error)) * 1000),
            compute_ms=compute_ms,
            generations=generations,
            payload=computed.payload,
        )
        life = fresh + max(policy.stale, policy.stale_if_error)
        try:
            await self._backend.store(key, tags, entry, life, token)
        except CacheUnavailable:
            self._recorder.count("rejected", "unavailable")
            return False
        self._recorder.count("stored")
        self._recorder.count("bytes_stored", amount=len(entry.payload))
        return True

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        with suppress(CacheUnavailable):  # counted by the backend; the lock expires by itself
            await self._backend.extend(key, tags, token)

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None:
        with suppress(CacheUnavailable):
            await self._backend.unlock(key, tags, token)

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _judge(entry: Entry | None, now: int, *, valid: bool) -> tuple[State, Entry | None]:
    if entry is None:
        return "absent", None
    if not valid:
        return "invalidated", None
    if now < entry.fresh_until:
        return "fresh", entry
    if now < entry.stale_until:
        return "stale", entry
    return "expired", entry if now < entry.error_until else None
