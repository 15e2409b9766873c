"""P1 and P2, by exhaustion: every interleaving of readers that share flights, writers, crashes, an
eviction, holds that expire, a snapshot that comes back, a COMMIT in doubt, writes that Redis
refuses.

The real protocol never fails; each weakened one does, which shows that the checker can see.
"""

from collections.abc import Callable

import pytest

from app.cache.backends.base import Generations
from app.cache.flights import may_join
from tests.unit.cache.model import Protocol, Stale, World, explore

CRASHES = World(readers=(0, 0, 0), writers=(0, 0), evictions=1)
SNAPSHOT = World(readers=(0, 0), writers=(0, 0), restores=1)
FAILOVER_AND_BACK = World(readers=(0, 0), writers=(0,), restores=2)
DOUBT = World(readers=(0, 0), writers=(0, 0), doubts=1)
REFUSALS = World(readers=(0, 0, 1), writers=(0,), refusals=1)


@pytest.mark.parametrize(
    ("world", "states"),
    [
        pytest.param(CRASHES, 90_000, id="crashes and an eviction"),
        pytest.param(SNAPSHOT, 60_000, id="a snapshot comes back"),
        pytest.param(FAILOVER_AND_BACK, 10_000, id="failover and back"),
        pytest.param(DOUBT, 20_000, id="COMMIT in doubt"),
        pytest.param(REFUSALS, 50_000, id="writes are refused"),
    ],
)
def test_no_interleaving_of_the_protocol_serves_a_stale_value(
    world: World, states: int, record_property: Callable[[str, object], None]
) -> None:
    explored = explore(Protocol(), world)
    record_property("states", explored)
    assert explored > states


def may_join_without_generations(
    begun: bool, fenced: Generations | None, seen: Generations | None
) -> bool:
    return may_join(begun, fenced, seen) or (fenced is None and seen is None)


@pytest.mark.parametrize(
    ("weakened", "world"),
    [
        pytest.param(
            Protocol(holds=False, deletes_before_commit=False),
            CRASHES,
            id="bump after commit only",
        ),
        pytest.param(Protocol(holds=False), CRASHES, id="no hold"),
        pytest.param(Protocol(holder_per_writer=False), CRASHES, id="single hold value"),
        pytest.param(
            Protocol(missing_matches=True), CRASHES, id="missing generation treated as a match"
        ),
        pytest.param(
            Protocol(may_join=lambda *_: True), CRASHES, id="joining any computation in flight"
        ),
        pytest.param(
            Protocol(may_join=may_join_without_generations),
            CRASHES,
            id="joining when neither side has a generation",
        ),
        pytest.param(
            Protocol(fences_incarnations=False), SNAPSHOT, id="generation without incarnation"
        ),
        pytest.param(
            Protocol(incarnation_returns=True),
            FAILOVER_AND_BACK,
            id="incarnation that returns with its server",
        ),
        pytest.param(
            Protocol(holds_in_doubt=False), DOUBT, id="hold released while COMMIT is in doubt"
        ),
        pytest.param(Protocol(renews_holds=False), DOUBT, id="hold expires before its COMMIT"),
        pytest.param(
            Protocol(owed_is_invalid=False), REFUSALS, id="what is owed is valid in its own process"
        ),
        pytest.param(
            Protocol(owed_shares_nothing=False), REFUSALS, id="what is owed joins a flight"
        ),
    ],
)
def test_a_weakened_protocol_is_caught(weakened: Protocol, world: World) -> None:
    with pytest.raises(Stale):
        explore(weakened, world)


def test_a_hold_that_expired_before_its_commit_leaves_a_window_until_its_release_only() -> None:
    """Until then an old entry may be served, and for ever when the writer is killed before that."""
    explore(
        Protocol(renews_holds=False, excuses_expired_holds=True),
        World(readers=(0, 0), writers=(0,), doubts=1),
    )
