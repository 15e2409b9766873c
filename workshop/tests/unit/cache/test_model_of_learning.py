"""P1, P2 and P9, by exhaustion: every interleaving of clients whose computations learn what they
read, of writers of two tables, and of a crash. The rules are the code's own; each that is weakened
is caught.
"""

from collections.abc import Callable

import pytest

from app.cache.backends.base import Generations
from app.cache.reads import Coverage, Learned, Reads
from tests.unit.cache.model import Stale
from tests.unit.cache.model_of_learning import Model, Protocol, World

TWO_TABLES = {"route": ("authors", "books")}
ONE_PROCESS = World(TWO_TABLES, readers=((0, "route"), (0, "route")))
TWO_PROCESSES = World(TWO_TABLES, readers=((0, "route"), (1, "route")))
# A function that others call too, between two calls of it, or a query of its table and a call.
CALLS = World(
    {"route": ("function", "function"), "function": ("books",)},
    readers=((0, "route"), (0, "function")),
    writers=("books",),
)
READS_AND_CALLS = World(
    {"route": ("books", "function"), "function": ("books",)},
    readers=((0, "route"), (0, "function")),
    writers=("books",),
)
OTHER_TABLE = World(
    {"route": ("authors", "function"), "function": ("books",)}, readers=((0, "route"),)
)


@pytest.mark.parametrize(
    ("world", "states"),
    [
        pytest.param(ONE_PROCESS, 75_000, id="one process"),
        pytest.param(TWO_PROCESSES, 100_000, id="two processes"),
        pytest.param(CALLS, 40_000, id="a function called twice"),
        pytest.param(READS_AND_CALLS, 35_000, id="a table, and a function that reads it"),
        pytest.param(OTHER_TABLE, 9_000, id="a table, and a function that reads another"),
    ],
)
def test_no_interleaving_serves_a_stale_value_from_tables_that_are_learned(
    world: World, states: int, record_property: Callable[[str, object], None]
) -> None:
    explored = Model(Protocol(), world).explore()
    record_property("states", explored)
    assert explored > states


def judge_without_learning(
    learned: Learned, coverage: Coverage, reads: Reads, generations: Generations | None
) -> tuple[Generations | None, str]:
    result, why = Learned.judge(learned, coverage, reads, generations)
    return (generations, "") if why == "learning" else (result, why)


def judge_without_comparing(
    learned: Learned, coverage: Coverage, reads: Reads, generations: Generations | None
) -> tuple[Generations | None, str]:
    result, why = Learned.judge(learned, coverage, reads, generations)
    mixed = {**(generations or {}), **reads.generations}
    return (mixed, "") if why == "invalidated" else (result, why)


def depend_on_the_last(reads: Reads, function: str, generations: Generations | None) -> None:
    Reads.depend_on(reads, function, generations)
    reads.generations |= generations or {}


def depend_on_what_is_known(reads: Reads, function: str, generations: Generations | None) -> None:
    Reads.depend_on(reads, function, generations or {})


@pytest.mark.parametrize(
    ("weakened", "world"),
    [
        pytest.param(
            Protocol(fences_before_the_query=False),
            ONE_PROCESS,
            id="generation read after the query",
        ),
        pytest.param(
            Protocol(judge=judge_without_learning),
            ONE_PROCESS,
            id="stored without the generation of a table that was read",
        ),
        pytest.param(
            Protocol(may_join=lambda *_: True), ONE_PROCESS, id="joining any computation in flight"
        ),
        pytest.param(
            Protocol(depends_on_more=lambda *_: False),
            ONE_PROCESS,
            id="joining a result that depends on what was not seen",
        ),
        pytest.param(
            Protocol(entries_name_their_tags=False),
            TWO_PROCESSES,
            id="entry judged by what its reader has learned",
        ),
        pytest.param(
            Protocol(depend_on=depend_on_the_last),
            CALLS,
            id="generation of the first call replaced by that of the second",
        ),
        pytest.param(
            Protocol(hands_on_what_it_read=False),
            CALLS,
            id="generation of the call replaced by that of now",
        ),
        pytest.param(Protocol(depend_on=lambda *_: None), CALLS, id="function hands nothing on"),
        pytest.param(
            Protocol(depend_on=depend_on_what_is_known),
            CALLS,
            id="function that was not stored taken for one that depends on nothing",
        ),
        pytest.param(
            Protocol(judge=judge_without_comparing),
            READS_AND_CALLS,
            id="generation of the query replaced by that of the call",
        ),
    ],
)
def test_a_weakened_rule_is_caught(weakened: Protocol, world: World) -> None:
    with pytest.raises(Stale):
        Model(weakened, world).explore()
