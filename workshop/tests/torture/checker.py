"""The history of a run, and what it is checked for: it knows the promise and nothing of the run.

Every read returns a version at least as new as the last one that was due before the read began. A
version is due when it was acknowledged, or seen in PostgreSQL after its writer was killed or got no
answer to its COMMIT. Windows of docs/consistency.md make it due later, for other processes than
the writer's; stale reads in them are counted by window.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.torture.history import LATE_COMMIT, Event, Verdict, excerpt

# The clock of Redis counts holds in whole milliseconds.
CLOCK_SECONDS = 0.01
# "Within about a second after Redis answers again", with room for a busy machine.
LANDING_SECONDS = 3.0
# A hold is renewed when a third of it is over; when its writer is killed, so much of it is left.
LEFT_OF_A_HOLD = 1 / 3
NEVER = float("inf")

# So many violations are shown with what happened before them.
EXCERPTS = 5

# What makes Redis forget a hold that it has taken.
FORGETTING = ("flush", "restart", "snapshot", "failover")


Steps = dict[str, Event]


class _Write(NamedTuple):
    """From `due` on reads should see the version, from `strict` on they have to: those of its own
    process as soon as it was acknowledged."""

    number: int
    pid: int
    acked: bool
    due: float
    strict: float
    window: str = ""


def check(history: Sequence[Event], *, hold_seconds: float) -> Verdict:
    """Judges a history by the promise alone."""
    return _Checker(history, hold_seconds).verdict


class _Checker:
    def __init__(self, history: Sequence[Event], hold_seconds: float) -> None:
        self._history, self._hold_seconds = history, hold_seconds
        self.verdict = Verdict()
        faults = sorted([each for each in history if each.what == "fault"], key=lambda it: it.at)
        self.verdict.faults.update(each.key for each in faults)
        self._faults = [each for each in faults if each.key != LATE_COMMIT]
        self._late_commits = [each for each in faults if each.key == LATE_COMMIT]
        self._killed = {each.pid: each.at for each in history if each.what == "killed"}
        self._steps = _steps(history)
        self._count()
        self.verdict.violations += [str(each) for each in history if self._is_failure(each)]
        for key in {each.key for each in history if each.what == "intent"}:
            reads = [each for each in history if each.key == key and each.what in ("hit", "miss")]
            self._judge_reads(reads, [*self._writes(key)])
        landings = [self._landing(step) for step in self._steps.values() if "owed" in step]
        self.verdict.slowest_landing = max(landings, default=0.0)

    def _is_failure(self, event: Event) -> bool:
        if event.what != "doubted":
            return event.what == "failed"
        intent = self._steps[event.key, event.number].get("intent", event)
        return not _overlap(self._late_commits, intent.at, event.at)

    def _writes(self, key: str) -> Iterable[_Write]:
        for (its, number), step in self._steps.items():
            if its != key:
                continue
            if "acked" in step:
                yield self._acknowledged(number, step)
            elif "seen" in step:
                yield self._seen(number, step)

    def _acknowledged(self, number: int, step: Steps) -> _Write:
        pid, due = step["acked"].pid, step["acked"].at
        if "owed" not in step:
            return _Write(number, pid, True, due, due)
        landing = self._answers_again(due) + LANDING_SECONDS
        if "released" in step:
            landing = min(step["released"].at, landing)
        elif pid in self._killed:
            window = "writer killed while its invalidation was pending"
            return _Write(number, pid, True, due, NEVER, window)
        return _Write(number, pid, True, due, landing, "invalidation pending")

    def _seen(self, number: int, step: Steps) -> _Write:
        """Committed, and not acknowledged: its writer was killed, or got no answer to COMMIT."""
        pid, due = step.get("intent", step["seen"]).pid, step["seen"].at
        released = step.get("released")
        reason = self._why_not_held(step, due)
        if not reason or (released is not None and released.at <= due):
            return _Write(number, pid, False, due, due)
        if pid in self._killed and released is None:
            return _Write(number, pid, False, due, NEVER, f"killed writer whose {reason}")
        strict = self._answers_again(due) + LANDING_SECONDS if released is None else released.at
        return _Write(number, pid, False, due, strict, f"COMMIT in doubt whose {reason}")

    def _why_not_held(self, step: Steps, due: float) -> str:
        began = step["intent"].at if "intent" in step else due
        if "unheld" in step:
            return "hold Redis did not take"
        harmed = _overlap(self._faults, began, due)
        if any(each.key in FORGETTING for each in harmed):
            return "hold was flushed"
        unrenewed = harmed and due - began > self._hold_seconds - CLOCK_SECONDS
        killed = self._killed.get(step["seen"].pid, NEVER)
        if unrenewed or due - killed > self._hold_seconds * LEFT_OF_A_HOLD - CLOCK_SECONDS:
            return "hold ran out before COMMIT"
        return ""

    def _judge_reads(self, reads: Sequence[Event], writes: Sequence[_Write]) -> None:
        verdict = self.verdict
        wanted = _Newest((write.due, write.number) for write in writes)
        owed = _Newest((write.strict, write.number) for write in writes)
        answered = _Newest((read.ended, read.number) for read in reads)
        windows = {write.number: write.window for write in writes}
        own = {
            pid: _Newest((w.due, w.number) for w in writes if w.acked and w.pid == pid)
            for pid in {write.pid for write in writes}
        }
        for read in reads:
            newest = owed.before(read.at)
            if read.pid in own:
                verdict.counts["own"] += 1
                newest = max(newest, own[read.pid].before(read.at))
            verdict.counts["reads after newer"] += read.number < answered.before(read.at)
            if read.number < newest:
                self._violated(read, newest)
            elif read.number < (newest := wanted.before(read.at)):
                verdict.documented[windows[newest]] += 1

    def _violated(self, read: Event, newest: int) -> None:
        violation = f"{read}, but v{newest} was due"
        if len(self.verdict.violations) < EXCERPTS:
            violation += f":\n{excerpt(self._history, read, newest)}"
        self.verdict.violations.append(violation)

    def _answers_again(self, at: float) -> float:
        """When Redis has answered for long enough that what it was owed at `at` should land."""
        for fault in self._faults:
            if fault.ended > at and fault.at < at + LANDING_SECONDS:
                at = fault.ended
        return at

    def _landing(self, step: Steps) -> float:
        if "released" not in step:
            return 0.0
        landed = step["released"].at
        over = [fault.ended for fault in self._faults if fault.ended <= landed]
        return landed - max([step["owed"].at, *over])

    def _count(self) -> None:
        counts, history = self.verdict.counts, self._history
        counts.update(
            each.what
            for each in history
            if each.what in ("intent", "acked", "doubted", "unheld", "owed")
        )
        counts["hits"] = sum(each.what == "hit" for each in history)
        counts["reads"] = counts["hits"] + sum(each.what == "miss" for each in history)
        counts["kills"] = len(self._killed)
        for step in self._steps.values():
            counts["late"] += "doubted" in step and "seen" in step
            answered = "acked" in step or "doubted" in step
            if "intent" in step and not answered and step["intent"].pid in self._killed:
                counts["kills in a write"] += 1
                counts["kills in a hold"] += "held" in step and "released" not in step
                counts["kills after COMMIT"] += "seen" in step


class _Newest:
    """The highest number before a time."""

    def __init__(self, numbers: Iterable[tuple[float, int]]) -> None:
        pairs = sorted(numbers)
        self._times = [at for at, _ in pairs]
        self._newest = list(itertools.accumulate((number for _, number in pairs), max))

    def before(self, at: float) -> int:
        position = bisect_left(self._times, at)
        return self._newest[position - 1] if position else 0


def _steps(history: Sequence[Event]) -> dict[tuple[str, int], Steps]:
    """What happened first, of each kind, to each version of each key."""
    kinds = ("intent", "held", "unheld", "released", "owed", "acked", "doubted", "seen")
    steps: dict[tuple[str, int], Steps] = {}
    for each in history:
        if each.what in kinds:
            steps.setdefault((each.key, each.number), {}).setdefault(each.what, each)
    return steps


def _overlap(faults: Sequence[Event], began: float, ended: float) -> list[Event]:
    return [each for each in faults if each.at <= ended and each.ended >= began]
