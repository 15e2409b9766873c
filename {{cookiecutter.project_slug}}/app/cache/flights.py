"""Flights: one computation of a key at a time, in this process and over all of them.

A request that misses joins the flight of its key, or starts one. A flight runs in a task of its
own, so a client that disconnects neither stops it nor hangs those who joined. Two rules keep
sharing from crossing an invalidation (without them a read that begins after a write was
acknowledged is handed what was read before it):

* the generations are read before the computation begins its query;
* a request joins only a flight that has not begun, or one whose generations are those that the
  request has just read itself; of the latter it takes only a result that depends on nothing else.

Without generations (a writer holds a tag, or the cache is away) nothing that has begun is joined.
While a writer holds a tag, the next flight waits for the one before it, so that the origin sees one
query at a time. Nobody waits for that when the cache is away: it may be away for long.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from app.cache.backends.base import LOCK_SECONDS, Generations
from app.cache.budget import Budget, current_budget
from app.cache.entry import Entry
from app.cache.events import Recorder
from app.cache.policy import Policy
from app.cache.reads import Coverage, Learned, recorded
from app.cache.store import Computed, Lookup, Store

# While another process computes, its result is looked for this often (doubling, with jitter).
FIRST_POLL_SECONDS, LAST_POLL_SECONDS = 0.005, 0.1
# What another process computes is waited for so long. Without an end, processes would find out one
# after the other that the origin is silent.
TURN_SECONDS = 10.0
# A flight that can share nothing waits at most this long for the one before it.
PREDECESSOR_SECONDS = 1.0
# Refreshes of stale entries that may run at once; more are left to the next request.
MAX_REFRESHES = 8


def may_join(begun: bool, fenced: Generations | None, seen: Generations | None) -> bool:
    """Whether a request that has seen these generations may join a computation with those."""
    if not begun:
        return True
    if fenced is None or seen is None:
        return False
    return fenced.items() <= seen.items()


def depends_on_more(result: Generations | None, fenced: Generations | None) -> bool:
    """Whether a result depends on what those who joined late have not seen themselves."""
    if result is None or fenced is None:
        return True
    return not result.keys() <= fenced.keys()


class Miss(NamedTuple):
    """What is to be computed: `compute` runs detached and opens its own sessions."""

    key: str
    tags: Sequence[str]
    policy: Policy
    learned: Learned
    compute: Callable[[], Awaitable[Computed]]


@dataclass(slots=True, eq=False)
class Flight:
    """A computation under way. `landed` gives its result, or the entry another process stored."""

    miss: Miss
    budget: Budget
    """That of the request which started it."""
    landed: "asyncio.Future[Computed | Entry]"
    predecessor: "Flight | None" = None
    begun: bool = False
    generations: Generations | None = None
    keeper: asyncio.TimerHandle | None = None
    waits_for: "list[Flight]" = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(8))


# The flights that the running code is part of, the innermost last.
_within: ContextVar[tuple[Flight, ...]] = ContextVar("within", default=())


class Flights:
    """The flights of one process, by key."""

    def __init__(
        self, store: Store, coverage: Coverage, recorder: Recorder, *, rng: random.Random
    ) -> None:
        self._store, self._coverage, self._recorder, self._rng = store, coverage, recorder, rng
        self._flights: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refreshes = 0

    def waits_for_caller(self, key: str) -> bool:
        """Whether the computation of this key waits for the caller, who must not wait for it then:
        a function that calls itself with the same arguments, directly or through others."""
        within = _within.get()
        if any(not flight.landed.done() and flight.miss.key == key for flight in within):
            return True
        ahead = [self._flights[key]] if within and key in self._flights else []
        for flight in ahead:  # which grows
            if flight in within:
                return True
            ahead += flight.waits_for
        return False

    async def wait(self, flight: Flight) -> "Computed | Entry":
        """Its result. Whoever leaves does not end it."""
        within = _within.get()
        if within:
            within[-1].waits_for.append(flight)
        try:
            return await asyncio.shield(flight.landed)
        finally:
            if within:
                within[-1].waits_for.remove(flight)

    def join(self, miss: Miss, found: Lookup, *, late: bool = True) -> tuple[Flight, bool]:
        """The flight of this key, and whether this call started it. Await `landed` shielded.

        With `late` it may have begun already.
        """
        current = self._flights.get(miss.key)
        if (
            current is not None
            and (late or not current.begun)
            and may_join(current.begun, current.generations, found.generations)
        ):
            self._recorder.count("collapsed")
            return current, False
        flight = Flight(
            miss, found.budget, asyncio.get_running_loop().create_future(), predecessor=current
        )
        self._flights[miss.key] = flight
        self.run(self._fly(flight))
        return flight, True

    def refresh(self, miss: Miss, found: Lookup) -> None:
        """Computes a stale entry anew, unless that happens already or enough others do."""
        if miss.key in self._flights:
            return
        if self._refreshes >= MAX_REFRESHES:
            self._recorder.count("refresh_skipped")
            return
        self._refreshes += 1
        self._recorder.count("refresh")
        flight, _ = self.join(miss, replace(found, budget=Budget()))  # nobody waits for it
        flight.landed.add_done_callback(self._refreshed)

    def _refreshed(self, landed: "asyncio.Future[Computed | Entry]") -> None:
        self._refreshes -= 1
        if not landed.cancelled() and landed.exception() is not None:
            self._recorder.count("error", "refresh")

    async def drain(self, seconds: float) -> None:
        """Lets flights land; those that have not by then are cancelled."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in (late := set(self._tasks)):
            task.cancel()
        if late:
            await asyncio.wait(late)

    def run(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Runs `work` in a task that `drain` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fly(self, flight: Flight) -> None:
        miss, owner = flight.miss, False
        current_budget.set(flight.budget)
        try:
            found, owner = await self._await_turn(flight)
            if found is not None:
                flight.landed.set_result(found)
                return
            flight.begun = True
            with recorded() as reads:
                computed, milliseconds = await self._compute(flight, owner=owner)
            generations, why_not = miss.learned.judge(self._coverage, reads, flight.generations)
            stored = computed.storable and generations is not None
            if computed.storable and generations is None:
                self._recorder.count("rejected", why_not)
            # The answer goes out while the entry is being stored.
            flight.landed.set_result(
                replace(computed, stored=stored, generations=generations, why_not_stored=why_not)
            )
            if stored and generations is not None:
                owner &= not await self._store.put(
                    miss.key,
                    miss.tags,
                    computed,
                    miss.policy,
                    generations,
                    milliseconds,
                    flight.token,
                )
        except asyncio.CancelledError:
            flight.landed.cancel()
            raise
        except Exception as error:
            flight.landed.set_exception(error)
            flight.landed.exception()  # everybody who waited may have left
        finally:
            if self._flights.get(miss.key) is flight:
                del self._flights[miss.key]
            if owner:
                await self._store.unlock(miss.key, miss.tags, flight.token)

    async def _await_turn(self, flight: Flight) -> tuple[Entry | None, bool]:
        """Until it is this flight's turn to compute (None, and whether it has the lock), or until
        another process has stored the entry."""
        miss, pause, since = flight.miss, FIRST_POLL_SECONDS, time.monotonic()
        while True:
            begun = await self._store.begin(miss.key, miss.tags, flight.token, flight.budget)
            if begun is None:
                return None, False
            flight.generations, owner, stored = begun
            if flight.generations is None:
                if flight.predecessor is not None:
                    await asyncio.wait([flight.predecessor.landed], timeout=PREDECESSOR_SECONDS)
                return None, owner
            if owner and not stored:
                return None, True
            # From here on the answer may be an entry: who joins must have seen its generations.
            flight.begun = True
            if not owner and time.monotonic() - since > TURN_SECONDS:
                return None, False
            if not owner:
                await asyncio.sleep(pause * (0.5 + self._rng.random()))
                pause = min(2 * pause, LAST_POLL_SECONDS)
            found = await self._store.lookup(miss.key, miss.tags)
            if found.state == "fresh":
                return found.entry, owner
            if owner:
                return None, True

    async def _compute(self, flight: Flight, *, owner: bool) -> tuple[Computed, int]:
        """Runs the computation; its lock lives as long as it does."""
        if owner:
            self._keep_lock(flight)
        started = time.perf_counter()
        _within.set((*_within.get(), flight))
        try:
            computed = await flight.miss.compute()
        finally:
            if flight.keeper is not None:
                flight.keeper.cancel()
        return computed, int((time.perf_counter() - started) * 1000)

    def _keep_lock(self, flight: Flight) -> None:
        """A timer: most computations end before it is due, and a task would cost 1 % of a miss."""
        loop = asyncio.get_running_loop()
        flight.keeper = loop.call_later(LOCK_SECONDS / 3, self._extend_lock, flight)

    def _extend_lock(self, flight: Flight) -> None:
        self.run(self._store.extend(flight.miss.key, flight.miss.tags, flight.token))
        self._keep_lock(flight)
