"""Measuring: every row once to warm up and to be proved, then all rows in turn, round after round.

What is compared is measured in the same round, so that a machine that is slower for a while is
slower for both sides of a ratio.
"""

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from statistics import median

from benchmarks.client import LoadError
from benchmarks.load import Generator, Load, Result
from benchmarks.rows import SAMPLES, SERVICE, Proof, Row
from benchmarks.targets import Answer, Running, Servers, Target, ask
from benchmarks.traffic import PAGES_PER_RUN, Request

WARM_UP_SECONDS = 1
PROOF_ATTEMPTS = 10
PROOF_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of a row to another one, round by round."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, ours: Sequence[Result], theirs: Sequence[Result]) -> "Ratio":
        pairs = zip(ours, theirs, strict=True)
        ratios = [one.per_second / other.per_second for one, other in pairs]
        return cls(median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of each row, one for each round."""

    rows: Mapping[str, Sequence[Result]]

    def per_second(self, row: str) -> float:
        return median(result.per_second for result in self.rows[row])

    def p50_ms(self, row: str) -> float:
        return median(result.p50_ms for result in self.rows[row])

    def p99_ms(self, row: str) -> float:
        return median(result.p99_ms for result in self.rows[row])

    def computed(self, row: str) -> float:
        """The part of the requests that a cache did not answer."""
        results = self.rows[row]
        return sum(each.computed for each in results) / sum(each.completed for each in results)

    def ratio(self, row: str, against: str) -> Ratio | None:
        """None when one of them was not measured."""
        ours, theirs = self.rows.get(row), self.rows.get(against)
        return Ratio.of(ours, theirs) if ours and theirs else None


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int
    seconds: int
    say: Callable[[str], None]


def measure(servers: Servers, generator: Generator, rows: Sequence[Row], plan: Plan) -> Measured:
    """Raises LoadError for a row that is not what it claims, or in which a request failed."""
    with ExitStack() as stack:
        running = _start(servers, rows, stack)
        bench = _Bench(running, generator, _samples(servers))
        for row in rows:
            plan.say(f"warm-up: {row.name}")
            bench.load(row, WARM_UP_SECONDS)
            bench.prove(row)
        results: dict[str, list[Result]] = {row.name: [] for row in rows}
        for number in range(1, plan.rounds + 1):
            for row in rows:
                plan.say(f"round {number} of {plan.rounds}: {row.name}")
                results[row.name].append(bench.run(row, plan.seconds))
        for row in rows:
            bench.prove(row)
    return Measured(results)


def _start(servers: Servers, rows: Sequence[Row], stack: ExitStack) -> dict[Target, Running]:
    """Every target, the service first: what it answers is what the bare application sends."""
    targets = dict.fromkeys([SERVICE, *(row.target for row in rows)])
    running = {}
    for number, target in enumerate(targets):
        running[target] = stack.enter_context(servers.serving(target, number))
        if target is SERVICE:
            for name, traffic in SAMPLES.items():
                answer = ask(running[target].port, traffic(0)[0])
                (servers.bodies / name).write_bytes(answer.body)
    return running


def _samples(servers: Servers) -> dict[str, object]:
    return {name: json.loads((servers.bodies / name).read_bytes()) for name in ("20", "249")}


@dataclass(frozen=True, slots=True)
class _Bench:
    running: Mapping[Target, Running]
    generator: Generator
    samples: Mapping[str, object]
    runs: Counter[str] = field(default_factory=Counter)
    """How many there were of each row."""

    def run(self, row: Row, seconds: int) -> Result:
        before = self._computed(row)
        result = self.load(row, seconds)
        computed = self._computed(row) - before
        if computed > result.completed / 2:
            raise LoadError(f"{row.name}: it computes, instead of answering from its cache")
        return replace(result, computed=computed)

    def load(self, row: Row, seconds: int) -> Result:
        port, requests = self.running[row.target].port, self._requests(row)
        try:
            result = self.generator.run(Load(port, requests, row.connections, seconds))
        except LoadError as error:
            raise LoadError(f"{row.name}: {error}") from error
        if row.never_repeats and result.completed > PAGES_PER_RUN:
            raise LoadError(f"{row.name}: there are not enough pages for {seconds} s, take fewer")
        return result

    def prove(self, row: Row) -> None:
        """Patiently: on a busy machine a single request may give up on Redis, as it should."""
        for request in islice(cycle(self._requests(row)), PROOF_ATTEMPTS):
            problem = self._problem(row.proof, ask(self.running[row.target].port, request))
            if not problem:
                return
            time.sleep(PROOF_PAUSE_SECONDS)
        raise LoadError(f"{row.name} is not what is measured: {problem}")

    def _problem(self, proof: Proof, answer: Answer) -> str:
        status = answer.headers.get("cache-status", "")
        encoding = answer.headers.get("content-encoding", "")
        if answer.status != proof.status:
            return f"status {answer.status} {answer.body[:200]!r}"
        if proof.cache_status not in status or (status and not proof.cache_status):
            return f"Cache-Status is {status!r}"
        if proof.encoding != encoding:
            return f"Content-Encoding is {encoding!r}"
        if proof.body and json.loads(_decoded(answer)) != self.samples[proof.body]:
            return f"the body is another one: {answer.body[:200]!r}"
        return ""

    def _requests(self, row: Row) -> Sequence[Request]:
        requests = row.traffic(self.runs[row.name])
        self.runs[row.name] += 1
        if not row.conditional:
            return requests
        port = self.running[row.target].port
        return [
            replace(
                each, headers=(*each.headers, ("If-None-Match", ask(port, each).headers["etag"]))
            )
            for each in requests
        ]

    def _computed(self, row: Row) -> int:
        if not row.proof.counter:
            return 0
        return int(ask(self.running[row.target].port, Request(row.proof.counter)).body)


def _decoded(answer: Answer) -> bytes:
    compressed = answer.headers.get("content-encoding") == "gzip"
    return gzip.decompress(answer.body) if compressed else answer.body
