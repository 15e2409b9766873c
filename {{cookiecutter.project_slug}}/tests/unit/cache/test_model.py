"""P1 and P2, by exhaustion: every interleaving of three readers that share flights, two writers,
crashes, an eviction, and holds that expire.

The model has one key with one tag. A read must return at least the version that was *due* when it
began: acknowledged to its writer, or committed by a writer that was then killed. Steps that only
delay are merged where that makes the check stricter: a reader begins when its lookup is executed, a
flight may be joined until its query is executed, a write is due from its release on. The real
protocol never fails; each weakened one does, which shows that the checker can see.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import pytest

T = TypeVar("T")
NONE = 0  # no generation


@dataclass(frozen=True, slots=True)
class Protocol:
    """The real protocol, and what can be left out of it."""

    holds: bool = True
    deletes_before_commit: bool = True
    holder_per_writer: bool = True
    missing_matches: bool = False
    joins_any_flight: bool = False
    joins_without_generations: bool = False


class Reader(NamedTuple):
    """idle → answered (a miss, with the generation it saw) → waiting for a flight → done."""

    step: str = "idle"
    due: int = 0
    generation: int = NONE
    flight: int = -1


class Flight(NamedTuple):
    """The flight that the reader of this number starts: none → new → fenced → queried → landed."""

    step: str = "none"
    generation: int = NONE
    version: int = 0


class Writer(NamedTuple):
    """idle → held → committed → released; or killed on the way, and its hold expires later."""

    step: str = "idle"
    version: int = 0
    holds: bool = False


class State(NamedTuple):
    database: int = 0
    due: int = 0
    generation: int = NONE
    entry: tuple[int, int] | None = None  # generation, version
    current: int = -1  # the flight that may be joined
    evictions: int = 1
    readers: tuple[Reader, ...] = (Reader(),) * 3
    flights: tuple[Flight, ...] = (Flight(),) * 3
    writers: tuple[Writer, ...] = (Writer(),) * 2


class Stale(Exception):
    """A read returned what was overwritten before it began."""


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
            yield fence(state, index)
        elif flight.step == "fenced":
            queried = flight._replace(step="queried", version=state.database)
            yield state._replace(flights=put(state.flights, index, queried))
        elif flight.step == "queried":
            yield land_and_store(state, protocol, index)
    for index in range(len(state.writers)):
        yield from write(state, protocol, index)
    if state.evictions and state.generation:
        yield state._replace(generation=NONE, evictions=state.evictions - 1)


def look_up(state: State, protocol: Protocol, index: int) -> State:
    if state.entry is not None:
        generation, version = state.entry
        missing = state.generation == NONE
        if protocol.missing_matches if missing else generation == state.generation:
            answer(state.due, version)
            return state._replace(readers=put(state.readers, index, Reader("done")))
    reader = Reader("answered", state.due, state.generation)
    return state._replace(readers=put(state.readers, index, reader))


def join_or_start(state: State, protocol: Protocol, index: int) -> State:
    reader, current = state.readers[index], state.current
    if current < 0 or not may_join(state.flights[current], reader.generation, protocol):
        flights = put(state.flights, index, Flight("new"))
        state, current = state._replace(flights=flights, current=index), index
    waiting = Reader("waiting", reader.due, NONE, current)
    return state._replace(readers=put(state.readers, index, waiting))


def may_join(flight: Flight, generation: int, protocol: Protocol) -> bool:
    if protocol.joins_any_flight or flight.step in ("new", "fenced"):
        return True
    if generation == NONE:
        return protocol.joins_without_generations and flight.generation == NONE
    return generation == flight.generation


def fence(state: State, index: int) -> State:
    """Reads the generation; makes one unless a writer holds the tag."""
    if state.generation == NONE and not any(writer.holds for writer in state.writers):
        state = state._replace(generation=max(generations(state), default=NONE) + 1)
    fenced = Flight("fenced", state.generation)
    return state._replace(flights=put(state.flights, index, fenced))


def land_and_store(state: State, protocol: Protocol, index: int) -> State:
    flight, readers = state.flights[index], []
    for reader in state.readers:
        if reader.step == "waiting" and reader.flight == index:
            answer(reader.due, flight.version)
            reader = Reader("done")
        readers.append(reader)
    storable = flight.generation != NONE or protocol.missing_matches
    return state._replace(
        readers=tuple(readers),
        flights=put(state.flights, index, Flight("landed")),
        current=-1 if state.current == index else state.current,
        entry=(flight.generation, flight.version) if storable else state.entry,
    )


def write(state: State, protocol: Protocol, index: int) -> Iterator[State]:
    writer = state.writers[index]

    def become(now: Writer, **changes: int) -> State:
        return state._replace(writers=put(state.writers, index, now), **changes)  # type: ignore[arg-type]

    if writer.step == "idle":
        held = Writer("held", holds=protocol.holds)
        yield become(held, generation=NONE if protocol.deletes_before_commit else state.generation)
    elif writer.step == "held":
        version = state.database + 1
        yield become(Writer("committed", version, writer.holds), database=version)
        yield become(Writer("killed", holds=writer.holds))
    elif writer.step == "committed":
        due = max(state.due, writer.version)
        released = become(Writer("released"), due=due, generation=NONE)
        if not protocol.holder_per_writer:  # one value for all: whoever releases, releases it
            others = tuple(other._replace(holds=False) for other in released.writers)
            released = released._replace(writers=others)
        yield released
        yield become(Writer("killed", holds=writer.holds), due=due)
    elif writer.step == "killed" and writer.holds:
        yield become(Writer("killed"))  # its deadline has passed


def generations(state: State) -> set[int]:
    """Those that something still refers to."""
    found = {state.generation, state.entry[0] if state.entry else NONE}
    found |= {reader.generation for reader in state.readers}
    found |= {flight.generation for flight in state.flights}
    return found - {NONE}


def canonical(state: State) -> State:
    """One state for all that differ in the numbers of readers, writers and generations only."""
    names = {old: new for new, old in enumerate([NONE, *sorted(generations(state))])}
    pairs = list(zip(state.readers, state.flights, strict=True))
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    return state._replace(
        generation=names[state.generation],
        entry=state.entry and (names[state.entry[0]], state.entry[1]),
        current=place[state.current],
        readers=tuple(
            Reader(r.step, r.due, names[r.generation], place[r.flight])
            for r in (state.readers[old] for old in order)
        ),
        flights=tuple(
            Flight(f.step, names[f.generation], f.version)
            for f in (state.flights[old] for old in order)
        ),
        writers=tuple(sorted(state.writers)),
    )


def explore(protocol: Protocol) -> int:
    """The number of states, breadth first. Raises Stale when a read is."""
    seen, frontier = {State()}, deque([State()])
    while frontier:
        for following in successors(frontier.popleft(), protocol):
            state = canonical(following)
            if state not in seen:
                seen.add(state)
                frontier.append(state)
    return len(seen)


def test_no_interleaving_of_the_protocol_serves_a_stale_value() -> None:
    assert explore(Protocol()) > 10_000


@pytest.mark.parametrize(
    "weakened",
    [
        pytest.param(
            Protocol(holds=False, deletes_before_commit=False), id="bump after commit only"
        ),
        pytest.param(Protocol(holds=False), id="no hold"),
        pytest.param(Protocol(holder_per_writer=False), id="single hold value"),
        pytest.param(Protocol(missing_matches=True), id="missing generation treated as a match"),
        pytest.param(Protocol(joins_any_flight=True), id="joining any computation in flight"),
        pytest.param(
            Protocol(joins_without_generations=True),
            id="joining when neither side has a generation",
        ),
    ],
)
def test_a_weakened_protocol_is_caught(weakened: Protocol) -> None:
    with pytest.raises(Stale):
        explore(weakened)
