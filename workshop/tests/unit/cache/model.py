"""The protocol as a state machine, with all that can happen to it: one key with one tag.

A `World` says who is there and what may happen, a `Protocol` what is left out of the real one.
`explore` walks through every interleaving and raises `Stale` when a read returns less than was
*due* when it began: what was acknowledged to a writer, and what was committed by a writer that was
killed, or that does not know of its COMMIT. What its own process acknowledged is due to a reader
even when Redis could not be told.

Steps that only delay are merged where that makes the check stricter: a reader begins when its
lookup is executed, a flight may be joined until its query is executed, a write is due from its
release on.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias, TypeVar

from app.cache.backends.base import Generations
from app.cache.flights import may_join

T = TypeVar("T")
Joining: TypeAlias = Callable[[bool, Generations | None, Generations | None], bool]
NONE = 0  # no generation


@dataclass(frozen=True, slots=True)
class Protocol:
    """The real protocol, and what can be left out of it."""

    holds: bool = True
    deletes_before_commit: bool = True
    holder_per_writer: bool = True
    missing_matches: bool = False
    may_join: Joining = may_join
    fences_incarnations: bool = True
    incarnation_returns: bool = False
    """`run_id` for an incarnation: a server that is master once more has the one it had."""
    holds_in_doubt: bool = True
    renews_holds: bool = True
    excuses_expired_holds: bool = False
    """Promises less: when a hold has run out before COMMIT, the write is due from its release on,
    and never when its writer is killed before that."""
    owed_is_invalid: bool = True
    owed_shares_nothing: bool = True


@dataclass(frozen=True, slots=True)
class World:
    """The process of each reader and writer, and how often what may happen."""

    readers: tuple[int, ...] = (0, 0, 0)
    writers: tuple[int, ...] = (0, 0)
    evictions: int = 0
    restores: int = 0
    """Another server with a copy of before, such as a snapshot or a replica, takes over."""
    doubts: int = 0
    """The writer has sent COMMIT and got an error. It may still happen."""
    refusals: int = 0
    """For some time Redis answers reads and refuses writes."""


class Reader(NamedTuple):
    """idle → answered (a miss, with the generation it saw) → waiting for a flight → done."""

    process: int
    step: str = "idle"
    due: int = 0
    generation: int = NONE
    flight: int = -1


class Flight(NamedTuple):
    """The flight that the reader of this number starts: none → new → fenced → queried → none."""

    step: str = "none"
    generation: int = NONE
    version: int = 0


class Writer(NamedTuple):
    """idle → held → committed → done, by way of owing when Redis refuses the release.

    held → doubt → committed, or done after ROLLBACK. Killed on the way: its hold expires, and a
    COMMIT in doubt stays one.
    """

    process: int
    step: str = "idle"
    version: int = 0
    excused: bool = False
    """Redis did not take its hold, or lost it: nothing is due before its release."""


class Redis(NamedTuple):
    incarnation: int = 0
    generation: int = NONE
    born: int = 0
    """The incarnation that made the generation."""
    entry: tuple[int, int] | None = None  # generation, version
    holders: tuple[bool, ...] = ()


class State(NamedTuple):
    redis: Redis
    readers: tuple[Reader, ...]
    flights: tuple[Flight, ...]
    writers: tuple[Writer, ...]
    current: tuple[int, ...]  # the flight that may be joined, by process
    copy: Redis | None = None
    database: int = 0
    due: int = 0
    refusing: bool = False
    evictions: int = 0
    restores: int = 0
    doubts: int = 0
    refusals: int = 0


class Stale(Exception):
    """A read returned what was overwritten before it began."""


def beginning(world: World) -> State:
    processes = 1 + max(world.readers + world.writers)
    return State(
        Redis(holders=(False,) * len(world.writers)),
        tuple(Reader(process) for process in world.readers),
        (Flight(),) * len(world.readers),
        tuple(Writer(process) for process in world.writers),
        (-1,) * processes,
        evictions=world.evictions,
        restores=world.restores,
        doubts=world.doubts,
        refusals=world.refusals,
    )


def put(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])


def answer(due: int, version: int) -> None:
    if version < due:
        raise Stale


def successors(state: State, protocol: Protocol) -> Iterator[State]:
    for index, reader in enumerate(state.readers):
        if reader.step == "idle":
            yield look_up(state, protocol, index)
        elif reader.step == "answered":
            yield join_or_start(state, protocol, index)
    for index, flight in enumerate(state.flights):
        if flight.step == "new":
            yield fence(state, protocol, index)
        elif flight.step == "fenced":
            queried = flight._replace(step="queried", version=state.database)
            yield state._replace(flights=put(state.flights, index, queried))
        elif flight.step == "queried":
            yield land_and_store(state, protocol, index)
    for index in range(len(state.writers)):
        yield from write(state, protocol, index)
    yield from happen(state, protocol)


def happen(state: State, protocol: Protocol) -> Iterator[State]:
    """What befalls Redis."""
    redis = state.redis
    if state.evictions and redis.generation:
        redis = redis._replace(generation=NONE)
        yield state._replace(redis=redis, evictions=state.evictions - 1)
    if state.refusing:
        yield state._replace(refusing=False)
    elif state.refusals:
        yield state._replace(refusing=True, refusals=state.refusals - 1)
    if state.copy is None and state.restores:
        yield state._replace(copy=redis._replace(incarnation=1))
    if state.copy is not None and state.restores:
        yield restore(state, protocol)


def restore(state: State, protocol: Protocol) -> State:
    """The copy takes over, and what was there until now is the copy."""
    assert state.copy is not None
    back, gone = state.copy, state.redis
    if not protocol.incarnation_returns:
        back = back._replace(incarnation=gone.incarnation + 1)
    writers = tuple(
        writer._replace(excused=True) if had and not has and writer.step != "done" else writer
        for writer, had, has in zip(state.writers, gone.holders, back.holders, strict=True)
    )
    left = state.restores - 1
    return state._replace(redis=back, copy=gone if left else None, restores=left, writers=writers)


def current_generation(redis: Redis, protocol: Protocol) -> int:
    foreign = protocol.fences_incarnations and redis.born != redis.incarnation
    return NONE if foreign else redis.generation


def owing(state: State, process: int) -> list[int]:
    """The versions of which this process has told its clients, and not Redis."""
    return [w.version for w in state.writers if (w.process, w.step) == (process, "owing")]


def look_up(state: State, protocol: Protocol, index: int) -> State:
    process, redis = state.readers[index].process, state.redis
    owed = owing(state, process)
    due = max(state.due, *owed, 0)
    generation = current_generation(redis, protocol)
    if redis.entry is not None and not (owed and protocol.owed_is_invalid):
        made_under, version = redis.entry
        matches = protocol.missing_matches if generation == NONE else made_under == generation
        if matches:
            answer(due, version)
            return state._replace(readers=put(state.readers, index, Reader(process, "done")))
    if owed and protocol.owed_shares_nothing:
        generation = NONE
    reader = Reader(process, "answered", due, generation)
    return state._replace(readers=put(state.readers, index, reader))


def join_or_start(state: State, protocol: Protocol, index: int) -> State:
    reader = state.readers[index]
    current = state.current[reader.process]
    if current < 0 or not joins(state.flights[current], reader.generation, protocol):
        current = index
        state = state._replace(
            flights=put(state.flights, index, Flight("new")),
            current=put(state.current, reader.process, index),
        )
    waiting = Reader(reader.process, "waiting", reader.due, NONE, current)
    return state._replace(readers=put(state.readers, index, waiting))


def joins(flight: Flight, seen: int, protocol: Protocol) -> bool:
    fenced = known(flight.generation)
    return protocol.may_join(flight.step == "queried", fenced, known(seen))


@cache
def known(generation: int) -> Generations | None:
    return None if generation == NONE else {"tag": bytes([generation])}


def fence(state: State, protocol: Protocol, index: int) -> State:
    """Reads the generation; makes one unless a writer holds the tag."""
    redis = state.redis
    generation = NONE if state.refusing else current_generation(redis, protocol)
    if generation == NONE and not state.refusing and not any(redis.holders):
        generation = max(generations(state), default=NONE) + 1
        redis = redis._replace(generation=generation, born=redis.incarnation)
    flights = put(state.flights, index, Flight("fenced", generation))
    return state._replace(redis=redis, flights=flights)


def land_and_store(state: State, protocol: Protocol, index: int) -> State:
    flight, readers, process = state.flights[index], [], state.readers[index].process
    for reader in state.readers:
        if reader.step == "waiting" and reader.flight == index:
            answer(reader.due, flight.version)
            reader = Reader(reader.process, "done")
        readers.append(reader)
    redis = state.redis
    if (flight.generation != NONE or protocol.missing_matches) and not state.refusing:
        redis = redis._replace(entry=(flight.generation, flight.version))
    left = put(state.current, process, -1)
    return state._replace(
        redis=redis,
        readers=tuple(readers),
        flights=put(state.flights, index, Flight()),
        current=left if state.current[process] == index else state.current,
    )


def write(state: State, protocol: Protocol, index: int) -> Iterator[State]:
    writer = state.writers[index]
    step, holds = writer.step, state.redis.holders[index]
    if step == "idle":
        yield hold(state, protocol, index)
    if step in ("held", "doubt", "killed in doubt"):
        yield commit(state, index)
    if step == "held":
        yield become(state, index, Writer(writer.process, "killed"))
        if state.doubts:
            redis = with_holder(state.redis, protocol, index, holds and protocol.holds_in_doubt)
            in_doubt = become(state, index, writer._replace(step="doubt"), redis)
            yield in_doubt._replace(doubts=state.doubts - 1)
    if step == "doubt":
        yield release(state, protocol, index)  # after ROLLBACK
        yield become(state, index, writer._replace(step="killed in doubt"))
    if step == "committed":
        due = 0 if writer.excused else writer.version
        yield become(state, index, Writer(writer.process, "killed"), due=due)
    if step in ("committed", "owing") and not state.refusing:
        yield release(state, protocol, index)
    elif step == "committed":
        yield become(state, index, writer._replace(step="owing"))
    if holds and not (protocol.renews_holds and step in ("held", "doubt", "committed")):
        window = step == "killed in doubt" or (protocol.excuses_expired_holds and step != "killed")
        expired = writer._replace(excused=writer.excused or (window and not writer.version))
        yield become(state, index, expired, with_holder(state.redis, protocol, index, False))


def hold(state: State, protocol: Protocol, index: int) -> State:
    process = state.writers[index].process
    if state.refusing:
        return become(state, index, Writer(process, "held", excused=True))
    redis = with_holder(state.redis, protocol, index, protocol.holds)
    if protocol.deletes_before_commit:
        redis = redis._replace(generation=NONE)
    return become(state, index, Writer(process, "held"), redis)


def commit(state: State, index: int) -> State:
    writer, version = state.writers[index], state.database + 1
    due = 0 if writer.step == "held" or writer.excused else version
    step = "killed" if writer.step == "killed in doubt" else "committed"
    committed = writer._replace(step=step, version=version)
    return become(state, index, committed, due=due)._replace(database=version)


def release(state: State, protocol: Protocol, index: int) -> State:
    writer = state.writers[index]
    redis = with_holder(state.redis, protocol, index, False)._replace(generation=NONE)
    return become(state, index, Writer(writer.process, "done"), redis, due=writer.version)


def become(
    state: State, index: int, writer: Writer, redis: Redis | None = None, *, due: int = 0
) -> State:
    return state._replace(
        writers=put(state.writers, index, writer),
        redis=redis or state.redis,
        due=max(state.due, due),
    )


def with_holder(redis: Redis, protocol: Protocol, index: int, holds: bool) -> Redis:
    holders = put(redis.holders, index, holds)
    if not holds and not protocol.holder_per_writer:  # one value for all
        holders = (False,) * len(holders)
    return redis._replace(holders=holders)


def generations(state: State) -> set[int]:
    """Those that something still refers to."""
    found = {flight.generation for flight in state.flights}
    found.update([reader.generation for reader in state.readers])
    for redis in (state.redis, state.copy):
        if redis is not None:
            found.add(redis.generation)
            found.add(redis.entry[0] if redis.entry else NONE)
    found.discard(NONE)
    return found


def versions(state: State) -> set[int]:
    """Those that may still be compared."""
    found = {0, state.database, state.due}
    found.update([reader.due for reader in state.readers])
    found.update([flight.version for flight in state.flights])
    found.update([writer.version for writer in state.writers])
    found.update([r.entry[1] for r in (state.redis, state.copy) if r is not None and r.entry])
    return found


def canonical(state: State) -> State:
    """One state for all that have the same future: numbers of readers, writers and generations are
    names, those of versions an order, and an entry of another generation is none."""
    names = {old: new for new, old in enumerate([NONE, *sorted(generations(state))])}
    ranks = {old: new for new, old in enumerate(sorted(versions(state)))}
    pairs = sorted(zip(state.readers, state.flights, range(len(state.readers)), strict=True))
    place = {old: new for new, (_, _, old) in enumerate(pairs)} | {-1: -1}
    copied = state.copy.holders if state.copy is not None else state.redis.holders
    writers = sorted(zip(state.writers, state.redis.holders, copied, strict=True))

    def renamed(redis: Redis, holders: tuple[bool, ...]) -> Redis:
        entry, generation = redis.entry, redis.generation
        valid = entry is not None and entry[0] == generation
        return Redis(
            redis.incarnation,
            names[generation],
            redis.born,
            (names[generation], ranks[entry[1]]) if entry and valid else None,
            holders,
        )

    return State(
        renamed(state.redis, tuple([holds for _, holds, _ in writers])),
        tuple(
            [
                Reader(r.process, r.step, ranks[r.due], names[r.generation], place[r.flight])
                for r, _, _ in pairs
            ]
        ),
        tuple([Flight(f.step, names[f.generation], ranks[f.version]) for _, f, _ in pairs]),
        tuple([w._replace(version=ranks[w.version]) for w, _, _ in writers]),
        tuple([place[current] for current in state.current]),
        state.copy and renamed(state.copy, tuple([holds for _, _, holds in writers])),
        ranks[state.database],
        ranks[state.due],
        *state[8:],
    )


def explore(protocol: Protocol, world: World) -> int:
    """The number of states. Raises Stale when a read is."""
    return walk(beginning(world), lambda state: map(canonical, successors(state, protocol)))


S = TypeVar("S", bound=Hashable)


def walk(first: S, following: Callable[[S], Iterable[S]]) -> int:
    """Visits every state that can be reached, breadth first, and counts them."""
    seen, frontier = {first}, deque([first])
    while frontier:
        for state in following(frontier.popleft()):
            if state not in seen:
                seen.add(state)
                frontier.append(state)
    return len(seen)
