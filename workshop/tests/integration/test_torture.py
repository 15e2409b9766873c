"""P1 over killed writers: the short form of `make torture`, and what its checker finds."""

from collections.abc import Sequence

import pytest

from app.settings import Settings
from tests.torture.checker import check
from tests.torture.history import LATE_COMMIT, Event, Verdict
from tests.torture.processes import Conditions
from tests.torture.run import Plan, Run

HOLD_SECONDS = 1.0
WRITER, READER = 1, 2


async def test_no_read_is_older_than_a_write_when_writers_are_killed(settings: Settings) -> None:
    plan = Plan(kills=10, kills_in_a_write=2)
    url, hold_seconds = settings.database_url, 0.5
    conditions = Conditions(url, settings.cache_url, url, hold_seconds)
    verdict = check(await Run(conditions, plan).go(), hold_seconds=hold_seconds)
    assert not verdict.violations, "\n".join(verdict.violations[:5])
    assert verdict.counts["kills"] >= plan.kills
    assert verdict.counts["kills in a write"] >= plan.kills_in_a_write
    assert verdict.counts["reads"] > 0


def happened(what: str, number: int, at: float, ended: float | None = None) -> Event:
    pid = READER if what in ("hit", "miss") else WRITER
    return Event(pid, what, "AU", number, at, at if ended is None else ended)


def fault(kind: str, at: float, ended: float) -> Event:
    return Event(0, "fault", kind, 0, at, ended)


def judge(*history: Event) -> Verdict:
    return check(history, hold_seconds=HOLD_SECONDS)


def written(number: int, at: float) -> list[Event]:
    steps = ("intent", "held", "released", "acked")
    return [happened(what, number, at + 0.01 * place) for place, what in enumerate(steps)]


def killed_in_a_hold(number: int, at: float, *, hold: str = "held") -> list[Event]:
    """A writer that was killed before its release; its COMMIT was seen at 1.05."""
    return [
        happened("intent", number, at),
        happened(hold, number, at + 0.01),
        happened("killed", 0, at + 0.04),
        happened("seen", number, 1.05),
    ]


def in_doubt(number: int, at: float, *, hold: str = "held") -> list[Event]:
    """A write that was answered with 503, and committed at 1.05."""
    return [
        happened("intent", number, at),
        happened(hold, number, at + 0.01),
        happened("doubted", number, at + 0.02),
        happened("seen", number, 1.05),
        Event(0, "fault", LATE_COMMIT, 0, at, 1.05),
    ]


KILLED = [*written(1, 0.0), *killed_in_a_hold(2, 1.0)]
# A write that was acknowledged although Redis did not take its release.
PENDING = [*written(1, 0.0), happened("owed", 2, 1.0), happened("acked", 2, 1.1)]
STALE = happened("hit", 1, 1.2, 1.21)


def test_reads_that_are_up_to_date_are_right() -> None:
    verdict = judge(
        *written(1, 0.0), happened("miss", 1, 0.5), *written(2, 1.0), STALE._replace(number=2)
    )
    assert (verdict.violations, verdict.counts["reads"], verdict.counts["hits"]) == ([], 2, 1)


@pytest.mark.parametrize("what", ["hit", "miss"])
def test_a_read_that_began_after_an_acknowledgement_and_is_older_is_found(what: str) -> None:
    verdict = judge(*written(1, 0.0), *written(2, 1.0), happened(what, 1, 1.2))
    assert len(verdict.violations) == 1
    assert "v2 was due" in verdict.violations[0]


def test_a_read_that_began_before_the_acknowledgement_may_be_older() -> None:
    assert not judge(*written(1, 0.0), *written(2, 1.0), happened("hit", 1, 1.02, 5.0)).violations


def test_a_read_may_be_newer_than_what_was_acknowledged() -> None:
    newer = happened("miss", 2, 1.0)
    verdict = judge(*written(1, 0.0), happened("intent", 2, 0.9), newer, happened("hit", 1, 1.1))
    assert verdict.violations == []
    assert verdict.counts["reads after newer"] == 1


def test_another_key_is_another_register() -> None:
    assert not judge(*written(1, 0.0), *written(2, 1.0), STALE._replace(key="NZ")).violations


def test_what_a_killed_writer_committed_is_due_once_it_was_seen() -> None:
    verdict = judge(*KILLED, STALE)
    assert len(verdict.violations) == 1
    assert verdict.counts["kills in a hold"] == verdict.counts["kills after COMMIT"] == 1
    assert not judge(*KILLED, happened("hit", 1, 1.04)).violations


def test_what_a_killed_writer_did_not_commit_is_not_due() -> None:
    rolled_back = [*KILLED[:-1], happened("seen", 1, 1.05)]
    assert not judge(*rolled_back, STALE).violations


def test_an_answer_that_is_no_success_is_a_violation() -> None:
    assert len(judge(happened("failed", 0, 1.0)).violations) == 1


@pytest.mark.parametrize(
    ("window", "history"),
    [
        ("killed writer whose hold was flushed", [*KILLED, fault("flush", 1.015, 1.016)]),
        (
            "killed writer whose hold Redis did not take",
            [*written(1, 0.0), *killed_in_a_hold(2, 1.0, hold="unheld")],
        ),
        (
            "killed writer whose hold ran out before COMMIT",
            [*written(1, -1.0), *killed_in_a_hold(2, 1.0 - HOLD_SECONDS)],
        ),
        (
            "COMMIT in doubt whose hold Redis did not take",
            [*written(1, -1.0), *in_doubt(2, 0.5, hold="unheld")],
        ),
        (
            "COMMIT in doubt whose hold was flushed",
            [*written(1, -1.0), *in_doubt(2, 0.5), fault("failover", 0.6, 0.7)],
        ),
        (
            "COMMIT in doubt whose hold ran out before COMMIT",
            [*written(1, -2.0), *in_doubt(2, -0.5), fault("readonly", 0.0, 0.7)],
        ),
        ("invalidation pending", PENDING),
        (
            "writer killed while its invalidation was pending",
            [*PENDING, happened("killed", 0, 1.15)],
        ),
    ],
)
def test_a_stale_read_in_a_documented_window_is_counted_there(
    window: str, history: Sequence[Event]
) -> None:
    verdict = judge(*history, STALE)
    assert verdict.violations == []
    assert verdict.documented == {window: 1}


def test_a_process_sees_at_once_what_it_acknowledged_itself_even_if_redis_was_not_told() -> None:
    verdict = judge(*PENDING, STALE._replace(pid=WRITER))
    assert (len(verdict.violations), verdict.counts["own"]) == (1, 1)


def test_a_commit_in_doubt_is_due_once_it_was_seen() -> None:
    history = [*written(1, -1.0), *in_doubt(2, -0.5)]
    assert len(judge(*history, STALE).violations) == 1
    assert not judge(*history, happened("hit", 1, 1.04)).violations
    assert judge(*history).counts["late"] == 1


def test_the_window_of_a_commit_in_doubt_ends_with_its_release() -> None:
    history = [*written(1, -1.0), *in_doubt(2, 0.5, hold="unheld"), happened("released", 2, 1.15)]
    assert len(judge(*history, STALE).violations) == 1
    assert not judge(*history, happened("hit", 1, 1.1)).violations


def test_without_a_late_commit_503_is_a_violation() -> None:
    assert len(judge(*in_doubt(2, 0.5)[:-1]).violations) == 1
    assert not judge(*in_doubt(2, 0.5)).violations


def test_a_fault_at_another_time_excuses_nothing() -> None:
    assert len(judge(*KILLED, fault("flush", 0.5, 0.6), STALE).violations) == 1
    assert len(judge(*KILLED, fault("cut", 1.0, 1.02), STALE).violations) == 1


def test_the_window_of_a_pending_invalidation_ends_when_it_lands() -> None:
    assert len(judge(*PENDING, happened("released", 2, 1.15), STALE).violations) == 1


def test_the_window_of_a_pending_invalidation_ends_soon_after_redis_answers_again() -> None:
    silent = [*PENDING, fault("silence", 0.9, 9.0)]
    assert not judge(*silent, happened("hit", 1, 9.5)).violations
    assert len(judge(*silent, happened("hit", 1, 20.0)).violations) == 1
