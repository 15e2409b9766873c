"""Dependencies that are learned, as a state machine: a route that reads tables and calls functions.

`model` has one key with one tag, and all that can befall Redis. Here each table has a tag, no route
has declared one, and clients read for ever, in processes that learn each on its own. What decides
about storing and sharing is the code's own: `may_join`, `depends_on_more`, `Learned.judge` and
`Reads.depend_on` are called, and a weakened `Protocol` replaces one of them.

Where a step only delays, it is merged with the next: a flight reads its generations when it is
started, and may be joined by all until its first query.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple, TypeAlias

from app.cache import flights
from app.cache.backends.base import Generations
from app.cache.policy import Policy, table_tag
from app.cache.reads import Coverage, Learned, NothingCovered, Reads
from tests.unit.cache.model import Joining, Stale, put, walk

TABLES = ("authors", "books")

ByTable: TypeAlias = tuple[int, ...]
Tables: TypeAlias = tuple[str, ...]  # sorted
Judging: TypeAlias = Callable[
    [Learned, Coverage, Reads, Generations | None], tuple[Generations | None, str]
]
Handing: TypeAlias = Callable[[Reads, str, Generations | None], None]

NOTHING: ByTable = (0,) * len(TABLES)
# Of generations by table 0 is one that is missing, or that nothing depends on.
UNFENCED: ByTable = (-1,) * len(TABLES)  # what the code calls None
NOT_READ: ByTable = (9,) * len(TABLES)  # newer than every version


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules of the code, and what the model does around them."""

    may_join: Joining = flights.may_join
    depends_on_more: Callable[[Generations | None, Generations | None], bool] = (
        flights.depends_on_more
    )
    judge: Judging = Learned.judge
    depend_on: Handing = Reads.depend_on
    fences_before_the_query: bool = True
    """Otherwise the generations are read when the computation is over."""
    hands_on_what_it_read: bool = True
    """Otherwise a function hands on the generations of now, not those of its entry."""
    entries_name_their_tags: bool = True
    """Otherwise an entry is judged by the tags that the reading process has learned."""


@dataclass(frozen=True, slots=True)
class World:
    programs: Mapping[str, tuple[str, ...]]
    """By key: the tables that its computation reads and the functions that it calls, in order."""
    readers: tuple[tuple[int, str], ...]
    """The process of each client, and the key it asks for."""
    writers: tuple[str, ...] = TABLES
    """The table that each changes once."""
    crashes: int = 1
    """So many of them may be killed."""


class Reader(NamedTuple):
    """A client, or a computation that calls a function.

    idle → answered (a miss) → waiting for a flight that had not begun → idle
                             → waiting late, for one that had → idle, or
                                    again → answered again → waiting → idle
    """

    step: str = "idle"
    due: ByTable = NOTHING
    tags: Tables = ()
    seen: ByTable = NOTHING
    flight: int = -1


class Flight(NamedTuple):
    """The flight that the reader of this number has started: none → running → landed → none."""

    step: str = "none"
    tags: Tables = ()
    fenced: ByTable = NOTHING
    begun: bool = False
    at: int = 0
    """How many steps of its program are done."""
    versions: ByTable = NOT_READ
    """The oldest that went into it."""
    handed_on: ByTable = NOTHING
    functions_fenced: bool = True
    result: ByTable = NOTHING
    is_entry: bool = False
    """It has found what another process stored meanwhile."""


class Writer(NamedTuple):
    """idle → held → committed → done. Killed on the way its hold stays, and expires."""

    table: int
    step: str = "idle"
    version: int = 0


class Entry(NamedTuple):
    generations: ByTable
    versions: ByTable


class State(NamedTuple):
    readers: tuple[Reader, ...]
    flights: tuple[Flight, ...]
    writers: tuple[Writer, ...]
    current: tuple[int, ...]  # the flight that may be joined, by process and key
    learned: tuple[Tables, ...]  # by process and key
    entries: tuple[Entry | None, ...]  # by key
    generations: ByTable
    endings: ByTable  # how many generations of each tag have been ended: the next is named by that
    database: ByTable
    due: ByTable
    crashes: int


class Model:
    def __init__(self, protocol: Protocol, world: World) -> None:
        self.protocol = protocol
        self.keys = [*world.programs]
        self.programs = [*world.programs.values()]
        self.world = world
        # By number of the reader: where what it asks for belongs, and the flight that calls.
        self.key: list[int] = []
        self.slot: list[int] = []
        self.caller: list[int] = []
        # Clients that are alike, each with the calls that are made for it.
        alike: dict[tuple[int, str], list[list[int]]] = {}
        for process, key in world.readers:
            client = self.add_reader(process, key, -1)
            alike.setdefault((process, key), []).append([client])
        for (process, key), groups in alike.items():
            for group in groups:
                for function in sorted({*world.programs[key]} - {*TABLES}):
                    group.append(self.add_reader(process, function, group[0]))
        self.alike = [*alike.values()]
        self.order = [*chain(*chain(*self.alike))]

    def add_reader(self, process: int, key: str, caller: int) -> int:
        self.key.append(self.keys.index(key))
        self.slot.append(process * len(self.keys) + self.key[-1])
        self.caller.append(caller)
        return len(self.key) - 1

    def explore(self) -> int:
        """The number of states. Raises Stale when an answer is."""
        slots, readers = 1 + max(self.slot), len(self.key)
        beginning = State(
            readers=(Reader(),) * readers,
            flights=(Flight(),) * readers,
            writers=tuple([Writer(TABLES.index(table)) for table in self.world.writers]),
            current=(-1,) * slots,
            learned=((),) * slots,
            entries=(None,) * len(self.keys),
            generations=NOTHING,
            endings=NOTHING,
            database=NOTHING,
            due=NOTHING,
            crashes=self.world.crashes,
        )
        return walk(beginning, lambda state: map(self.canonical, self.successors(state)))

    def successors(self, state: State) -> Iterator[State]:
        for number, reader in enumerate(state.readers):
            if reader.step in ("answered", "answered again"):
                yield from self.join_or_start(state, number)
            elif reader.step == "again" or (reader.step == "idle" and self.asks(state, number)):
                yield self.look_up(state, number)
        for number, flight in enumerate(state.flights):
            if flight.step == "running":
                yield from self.compute(state, number)
            elif flight.step == "landed":
                yield self.store(state, number)
        for number in range(len(state.writers)):
            yield from write(state, number)

    def asks(self, state: State, number: int) -> bool:
        """A client does at any time, a computation when it has come to the call."""
        caller = self.caller[number]
        if caller < 0:
            return True
        flight, program = state.flights[caller], self.programs[self.key[caller]]
        comes_to = program[flight.at : flight.at + 1]
        return flight.step == "running" and comes_to == (self.keys[self.key[number]],)

    def look_up(self, state: State, number: int) -> State:
        reader, caller = state.readers[number], self.caller[number]
        again = reader.step == "again"
        if not again:
            due = state.due if caller < 0 else NOTHING
            reader = Reader(due=due, tags=state.learned[self.slot[number]])
        if caller >= 0:
            calling = state.flights[caller]._replace(begun=True)
            state = state._replace(flights=put(state.flights, caller, calling))
        entry = self.valid_entry(state, self.key[number], reader.tags)
        if entry is not None:
            return self.answer(state, number, reader.due, entry)
        reader = reader._replace(
            step="answered again" if again else "answered", seen=current(state, reader.tags)
        )
        return state._replace(readers=put(state.readers, number, reader))

    def valid_entry(self, state: State, key: int, tags: Tables) -> Entry | None:
        entry = state.entries[key]
        if entry is None:
            return None
        for table, made, now in zip(TABLES, entry.generations, state.generations, strict=True):
            judged_by = self.protocol.entries_name_their_tags or table in tags
            if made != now and made and judged_by:
                return None
        return entry

    def join_or_start(self, state: State, number: int) -> Iterator[State]:
        reader, slot = state.readers[number], self.slot[number]
        joined = state.current[slot]
        if joined >= 0 and self.joins(state.flights[joined], reader):
            late = state.flights[joined].begun
            reader = reader._replace(
                step="waiting late" if late else "waiting", seen=NOTHING, flight=joined
            )
            state = state._replace(readers=put(state.readers, number, reader))
            landed = state.flights[joined].step == "landed"
            yield self.deliver(state, number) if landed else state
        elif state.flights[number].step == "none":
            state, fenced = begin(state, reader.tags)
            reader = reader._replace(step="waiting", seen=NOTHING, flight=number)
            yield state._replace(
                readers=put(state.readers, number, reader),
                flights=put(state.flights, number, Flight("running", reader.tags, fenced)),
                current=put(state.current, slot, number),
            )

    def joins(self, flight: Flight, reader: Reader) -> bool:
        if flight.begun and reader.step == "answered again":
            return False
        return self.protocol.may_join(flight.begun, known(flight.fenced), known(reader.seen))

    def compute(self, state: State, number: int) -> Iterator[State]:
        flight, program = state.flights[number], self.programs[self.key[number]]
        entry = self.valid_entry(state, self.key[number], flight.tags)
        if entry is not None and not flight.begun:
            found = flight._replace(
                versions=entry.versions, result=entry.generations, is_entry=True
            )
            yield self.land(state, number, found)
        if flight.at == len(program):
            yield self.judge(state, number)
        elif program[flight.at] in TABLES:
            yield self.query(state, number, TABLES.index(program[flight.at]))

    def query(self, state: State, number: int, table: int) -> State:
        flight, program = state.flights[number], self.programs[self.key[number]]
        version = min(flight.versions[table], state.database[table])
        flight = flight._replace(
            begun=True, at=flight.at + 1, versions=put(flight.versions, table, version)
        )
        state = state._replace(flights=put(state.flights, number, flight))
        if {*program[flight.at :]} <= {*TABLES}:
            # What is read from now on is newer than all that is due to those who wait: one state
            # for all of them.
            for each, reader in enumerate(state.readers):
                if (reader.step, reader.flight) == ("waiting", number):
                    check(reader.due, flight.versions)
                    reader = reader._replace(due=NOTHING, tags=())
                    state = state._replace(readers=put(state.readers, each, reader))
        return state

    def judge(self, state: State, number: int) -> State:
        flight, slot = state.flights[number], self.slot[number]
        tables = frozenset(self.programs[self.key[number]]).intersection(TABLES)
        fenced = flight.fenced
        if not self.protocol.fences_before_the_query:
            state, fenced = begin(state, tuple(sorted({*flight.tags, *tables})))
        result, learned = judged(
            self.protocol.judge,
            state.learned[slot],
            tables,
            (flight.handed_on, flight.functions_fenced),
            fenced,
        )
        state = state._replace(learned=put(state.learned, slot, learned))
        return self.land(state, number, flight._replace(result=result))

    def land(self, state: State, number: int, flight: Flight) -> State:
        """What is not to be stored is over at once; so is here what nobody can join any more."""
        flight = flight._replace(
            step="landed", tags=(), begun=True, at=0, handed_on=NOTHING, functions_fenced=True
        )
        state = state._replace(flights=put(state.flights, number, flight))
        for each, reader in enumerate(state.readers):
            if reader.flight == number:
                state = self.deliver(state, each)
        is_over = flight.result == UNFENCED or flight.is_entry
        is_current = state.current[self.slot[number]] == number
        return self.store(state, number) if is_over or not is_current else state

    def deliver(self, state: State, number: int) -> State:
        reader = state.readers[number]
        flight = state.flights[reader.flight]
        if reader.step == "waiting late" and self.protocol.depends_on_more(
            known(flight.result), known(flight.fenced)
        ):
            reader = reader._replace(step="again", flight=-1)
            return state._replace(readers=put(state.readers, number, reader))
        return self.answer(state, number, reader.due, Entry(flight.result, flight.versions))

    def answer(self, state: State, number: int, due: ByTable, entry: Entry) -> State:
        check(due, entry.versions)
        state = state._replace(readers=put(state.readers, number, Reader()))
        caller = self.caller[number]
        if caller < 0:
            return state
        result, flight = entry.generations, state.flights[caller]
        if not self.protocol.hands_on_what_it_read:
            now = state.generations
            result = tuple([now[table] if made > 0 else made for table, made in enumerate(result)])
        handed_on, functions_fenced = handed(
            self.protocol.depend_on, (flight.handed_on, flight.functions_fenced), result
        )
        flight = flight._replace(
            at=flight.at + 1,
            versions=tuple(map(min, flight.versions, entry.versions)),
            handed_on=handed_on,
            functions_fenced=functions_fenced,
        )
        return state._replace(flights=put(state.flights, caller, flight))

    def store(self, state: State, number: int) -> State:
        flight, slot, key = state.flights[number], self.slot[number], self.key[number]
        if flight.result != UNFENCED and not flight.is_entry:
            entry = Entry(flight.result, flight.versions)
            state = state._replace(entries=put(state.entries, key, entry))
        if state.current[slot] == number:
            state = state._replace(current=put(state.current, slot, -1))
        return state._replace(flights=put(state.flights, number, Flight()))

    def canonical(self, state: State) -> State:
        """One state for all that have the same future: the numbers of clients are names, and an
        entry of a generation that has ended is none."""
        if self.protocol.entries_name_their_tags:
            entries = [self.valid_entry(state, key, TABLES) for key in range(len(self.keys))]
            state = state._replace(entries=tuple(entries))
        if len(self.alike) == len(self.world.readers):
            return state

        def content(group: list[int]) -> list[tuple[Reader, Flight]]:
            return [(state.readers[number], state.flights[number]) for number in group]

        order = [*chain(*chain(*[sorted(alike, key=content) for alike in self.alike]))]
        if order == self.order:
            return state
        new = {-1: -1} | dict(zip(order, self.order, strict=True))
        old = dict(zip(self.order, order, strict=True))
        readers = [state.readers[old[number]] for number in range(len(order))]
        return state._replace(
            readers=tuple([each._replace(flight=new[each.flight]) for each in readers]),
            flights=tuple([state.flights[old[number]] for number in range(len(order))]),
            current=tuple([new[number] for number in state.current]),
        )


def check(due: ByTable, versions: ByTable) -> None:
    if any(map(int.__lt__, versions, due)):
        raise Stale


def current(state: State, tags: Tables) -> ByTable:
    """The generations of these tags, if there are all."""
    found = [
        generation if table in tags else 0
        for table, generation in zip(TABLES, state.generations, strict=True)
    ]
    return tuple(found) if sum(map(bool, found)) == len(tags) else UNFENCED


def begin(state: State, tags: Tables) -> tuple[State, ByTable]:
    """The same, and makes those that are missing, unless a writer holds the tag."""
    held = {writer.table for writer in state.writers if writer.step not in ("idle", "done")}
    for table, name in enumerate(TABLES):
        if name in tags and not state.generations[table] and table not in held:
            new = 1 + state.endings[table]
            state = state._replace(generations=put(state.generations, table, new))
    return state, current(state, tags)


def write(state: State, number: int) -> Iterator[State]:
    writer, table = state.writers[number], state.writers[number].table
    if writer.step == "idle":
        yield become(end(state, table), number, writer._replace(step="held"))
    elif writer.step == "held":
        version = state.database[table] + 1
        committed = writer._replace(step="committed", version=version)
        yield become(
            state._replace(database=put(state.database, table, version)), number, committed
        )
    elif writer.step == "committed":
        due = max(state.due[table], writer.version)
        state = state._replace(due=put(state.due, table, due))
        yield become(end(state, table), number, Writer(table, "done"))
    elif writer.step == "killed":
        yield become(state, number, Writer(table, "done"))
    if writer.step in ("held", "committed") and state.crashes:
        dead = become(state, number, Writer(table, "killed"))
        yield dead._replace(crashes=state.crashes - 1)


def end(state: State, table: int) -> State:
    return state._replace(
        generations=put(state.generations, table, 0),
        endings=put(state.endings, table, state.endings[table] + 1),
    )


def become(state: State, number: int, writer: Writer) -> State:
    return state._replace(writers=put(state.writers, number, writer))


@cache
def known(fenced: ByTable) -> Generations | None:
    """As the code has it."""
    if fenced == UNFENCED:
        return None
    named = zip(TABLES, fenced, strict=True)
    return {table_tag(table): bytes([generation]) for table, generation in named if generation}


def by_table(generations: Generations | None) -> ByTable:
    if generations is None:
        return UNFENCED
    return tuple([generations.get(table_tag(table), bytes(1))[0] for table in TABLES])


@cache
def handed(rule: Handing, before: tuple[ByTable, bool], result: ByTable) -> tuple[ByTable, bool]:
    """What a computation has been handed by functions, with one more."""
    reads = reads_of(frozenset(), before)
    rule(reads, "function", known(result))
    return by_table(reads.generations), reads.functions_fenced


@cache
def judged(
    rule: Judging,
    tables: Tables,
    read: frozenset[str],
    handed_on: tuple[ByTable, bool],
    fenced: ByTable,
) -> tuple[ByTable, Tables]:
    """The generations that the entry depends on, and the tables that are known now."""
    learned = Learned("route", Policy(60))
    learned.tags = tuple(map(table_tag, tables))
    result, _ = rule(learned, NothingCovered(), reads_of(read, handed_on), known(fenced))
    return by_table(result), tuple([t for t in TABLES if table_tag(t) in learned.tags])


def reads_of(tables: frozenset[str], handed_on: tuple[ByTable, bool]) -> Reads:
    generations, functions_fenced = handed_on
    return Reads({*tables}, None, {**(known(generations) or {})}, functions_fenced=functions_fenced)
