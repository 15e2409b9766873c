"""Promise P1 under torture: writers killed at random instants while others read, in real processes.

    python -m tests.torture [--kills 200] [--seconds N] [--faults] [--hold 0.5] [--seed N]

Each writer is the whole service in a process of its own and counts one country up: v1, v2, … It
says so before and after each write, until SIGKILL meets it; its successor goes on with a higher
number. Readers in other processes say what they were answered. `check` then judges the recorded
history alone: every read returns a version at least as new as the last one that was acknowledged,
or seen in PostgreSQL after its writer was killed, before the read began. With --faults Redis is
also restarted, flushed and cut off; then reads may be stale in the windows of docs/consistency.md,
and are counted there, only if a process has reported that Redis did not take its hold or its
release, or if Redis lost a hold.

All processes are forked from one that has imported everything, because killing is only frequent
when starting is cheap, and all write their events to one pipe.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn
from unittest.mock import patch

import asyncpg
import redis.asyncio
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache import redis as redis_backend
from app.cache.backend import Backend, CacheUnavailable
from app.main import create_app
from app.settings import Settings
from tests.clients import AUTHORIZED, cache_status, make_settings, serving
from tests.faults import Fault, FaultProxy, fault_proxy
from tests.services import (
    SERVICE,
    Kind,
    Services,
    StoppableRedis,
    asyncpg_dsn,
    choose_kind,
    database,
    describe,
    running_services,
    stoppable_redis,
)

# One country per writer, all on one small page.
KEYS = ("AU", "NF", "NZ")
PAGE = "/countries?subregion=Australia%20and%20New%20Zealand&limit=50&sort=alpha_2"

READERS, TASKS_PER_READER = 2, 5
READ_PAUSE_SECONDS = 0.01
# A new writer waits, so that readers meet what the killed one has left behind.
FIRST_PAUSE_SECONDS, WRITE_PAUSE_SECONDS = (0.05, 0.2), (0.0, 0.04)
FIRST_WRITE_SURVIVED = 0.8
LIFE_SECONDS = (0.0, 0.2)
AIM_SECONDS = 1.0
# The holder of a killed writer keeps its tags uncached for the length of a hold. With the 30
# seconds of production nearly every read of a run would go to the database and prove nothing.
HOLD_SECONDS = 0.5
# The clock of Redis counts holds in whole milliseconds.
CLOCK_SECONDS = 0.01
# "Within about a second after Redis answers again", with room for a busy machine.
LANDING_SECONDS = 3.0
CALM_SECONDS, FAULT_SECONDS = (0.2, 2.5), (0.05, 0.8)
START_SECONDS, LAST_READS_SECONDS, PROGRESS_SECONDS = 60.0, 0.5, 5.0

# So many violations are shown with what happened before them.
EXCERPTS = 5

NEVER = float("inf")


# The history, and what it is checked for.


class Event(NamedTuple):
    """What happened to which version of which key, by the clock that all processes share.

    ready                       a process is up
    hit, miss                   a read, from `at` to `ended`
    intent, acked               around a write; acked when its response begins
    held, unheld                Redis took the hold, or could not be told
    released, owed              Redis took the release (maybe later), or could not be told
    killed, seen                a writer; and the version that PostgreSQL had after that
    fault                       from `at` to `ended`; its kind is the key
    failed                      an answer that was no success, or a process that broke down
    """

    pid: int
    what: str
    key: str
    number: int
    at: float
    ended: float

    def __str__(self) -> str:
        return f"{self.at:.4f}-{self.ended:.4f} {self.pid} {self.what} {self.key} v{self.number}"


@dataclass(slots=True)
class Verdict:
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    documented: Counter[str] = field(default_factory=Counter)
    """Stale reads in a window that the documentation states, by window."""
    violations: list[str] = field(default_factory=list)
    slowest_landing: float = 0.0
    """Seconds from Redis answering again to the last invalidation that it was owed."""

    def table(self) -> str:
        count = self.counts
        rows = [
            ("reads", f"{count['reads']} ({count['hits']} hits)"),
            ("writes acknowledged", f"{count['acked']} of {count['intent']} begun"),
            (
                "kills",
                f"{count['kills']}: {count['kills in a write']} in a write,"
                f" {count['kills in a hold']} between hold and release,"
                f" {count['kills after COMMIT']} after COMMIT and before the answer",
            ),
            ("faults", _listed(self.faults)),
            (
                "Redis not told",
                f"{count['unheld']} holds, {count['owed']} releases, the slowest of them"
                f" {self.slowest_landing:.2f} s after Redis answered again",
            ),
            ("stale, documented", _listed(self.documented)),
            ("reads after newer", f"{count['reads after newer']} (not promised, a figure)"),
            ("violations", str(len(self.violations))),
        ]
        return "\n".join(f"{name:<21}{value}" for name, value in rows)


class _Write(NamedTuple):
    """From `due` on reads should see the version, from `strict` on they have to."""

    number: int
    due: float
    strict: float
    window: str


def check(history: Sequence[Event], *, hold_seconds: float) -> Verdict:
    """Judges a history by the promise alone: it knows nothing of how the run went."""
    verdict = Verdict(violations=[str(each) for each in history if each.what == "failed"])
    faults = sorted((each for each in history if each.what == "fault"), key=lambda each: each.at)
    verdict.faults.update(each.key for each in faults)
    steps: dict[tuple[str, int], dict[str, Event]] = {}
    for each in history:
        if each.what in ("intent", "held", "unheld", "released", "owed", "acked", "seen"):
            steps.setdefault((each.key, each.number), {}).setdefault(each.what, each)
    killed = {each.pid: each.at for each in history if each.what == "killed"}
    _count(verdict, history, steps, killed)
    for key in {each.key for each in history if each.what == "intent"}:
        writes = [
            _judge_write(number, step, killed, faults, hold_seconds)
            for (its, number), step in steps.items()
            if its == key and not step.keys().isdisjoint(("acked", "seen"))
        ]
        reads = [each for each in history if each.key == key and each.what in ("hit", "miss")]
        _judge_reads(verdict, history, reads, writes)
    landings = [_landing(step, faults) for step in steps.values() if "owed" in step]
    verdict.slowest_landing = max(landings, default=0.0)
    return verdict


def _judge_write(
    number: int,
    step: dict[str, Event],
    killed: dict[int, float],
    faults: Sequence[Event],
    hold_seconds: float,
) -> _Write:
    if "acked" in step:
        due, released = step["acked"].at, step.get("released")
        if "owed" not in step:
            return _Write(number, due, due, "")
        if released is not None:
            strict = min(released.at, _answers_again(faults, due) + LANDING_SECONDS)
            return _Write(number, due, strict, "invalidation pending")
        if step["owed"].pid in killed:
            return _Write(number, due, NEVER, "writer killed while its invalidation was pending")
        strict = _answers_again(faults, due) + LANDING_SECONDS
        return _Write(number, due, strict, "invalidation pending")
    due = step["seen"].at
    began = step["intent"].at if "intent" in step else due
    if "released" in step:
        return _Write(number, due, due, "")
    if "unheld" in step:
        return _Write(number, due, NEVER, "killed writer whose hold Redis did not take")
    if any(
        each.key in ("flush", "restart") and each.at <= due and each.ended >= began
        for each in faults
    ):
        return _Write(number, due, NEVER, "killed writer whose hold was flushed")
    if due - began > hold_seconds - CLOCK_SECONDS:
        return _Write(number, due, NEVER, "killed writer whose hold ran out before COMMIT")
    return _Write(number, due, due, "")


def _judge_reads(
    verdict: Verdict, history: Sequence[Event], reads: Sequence[Event], writes: Sequence[_Write]
) -> None:
    wanted = _Newest((write.due, write.number) for write in writes)
    owed = _Newest((write.strict, write.number) for write in writes)
    answered = _Newest((read.ended, read.number) for read in reads)
    windows = {write.number: write.window for write in writes}
    for read in reads:
        verdict.counts["reads after newer"] += read.number < answered.before(read.at)
        if read.number < (newest := owed.before(read.at)):
            violation = f"{read}, but v{newest} was due"
            if len(verdict.violations) < EXCERPTS:
                violation += f":\n{_excerpt(history, read, newest)}"
            verdict.violations.append(violation)
        elif read.number < (newest := wanted.before(read.at)):
            verdict.documented[windows[newest]] += 1


class _Newest:
    """The highest number before a time."""

    def __init__(self, numbers: Iterable[tuple[float, int]]) -> None:
        pairs = sorted(numbers)
        self._times = [at for at, _ in pairs]
        self._newest = list(itertools.accumulate((number for _, number in pairs), max))

    def before(self, at: float) -> int:
        position = bisect_left(self._times, at)
        return self._newest[position - 1] if position else 0


def _answers_again(faults: Sequence[Event], at: float) -> float:
    """When Redis has answered for long enough that what it was owed at `at` should land."""
    for fault in faults:
        if fault.ended > at and fault.at < at + LANDING_SECONDS:
            at = fault.ended
    return at


def _landing(step: dict[str, Event], faults: Sequence[Event]) -> float:
    if "released" not in step:
        return 0.0
    landed = step["released"].at
    over = [fault.ended for fault in faults if fault.ended <= landed]
    return landed - max([step["owed"].at, *over])


def _count(
    verdict: Verdict,
    history: Sequence[Event],
    steps: dict[tuple[str, int], dict[str, Event]],
    killed: dict[int, float],
) -> None:
    counts = verdict.counts
    counts.update(each.what for each in history if each.what in ("intent", "acked"))
    counts.update(each.what for each in history if each.what in ("unheld", "owed"))
    counts["hits"] = sum(each.what == "hit" for each in history)
    counts["reads"] = counts["hits"] + sum(each.what == "miss" for each in history)
    counts["kills"] = len(killed)
    for step in steps.values():
        if "intent" in step and "acked" not in step and step["intent"].pid in killed:
            counts["kills in a write"] += 1
            counts["kills in a hold"] += "held" in step and "released" not in step
            counts["kills after COMMIT"] += "seen" in step


def _excerpt(history: Sequence[Event], read: Event, newest: int) -> str:
    """What happened to the key since the version that the read returned was written."""
    since = min(
        (
            each.at
            for each in history
            if each.key == read.key and each.number in (newest, read.number)
        ),
        default=read.at,
    )
    near = [
        each
        for each in history
        if since <= each.at <= read.ended
        and (each.key == read.key or each.what == "fault")
        and each.what not in ("hit", "miss")
    ]
    return "\n".join(f"    {each}" for each in sorted(near, key=lambda each: each.at)[-30:])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "none"


# The processes.


def nurse(database_url: str, cache_url: str, hold_seconds: str) -> None:
    """Forks what stdin asks for, until stdin ends: neither a loop nor a thread is there yet.

    `fork <json>` starts a process; `reap <pid>` waits for one, whose number is not given to
    another process before that.
    """
    children: set[int] = set()
    try:
        with patch.object(redis_backend, "HOLD_SECONDS", float(hold_seconds)):
            settings = make_settings(database_url=database_url, cache_url=cache_url)
            settings = settings.model_copy(update={"log_level": "ERROR"})
            asyncio.run(_warm_up(settings))
            for line in sys.stdin:
                order, argument = line.split(maxsplit=1)
                if order == "reap":
                    os.waitpid(int(argument), 0)
                    children.discard(int(argument))
                    report("reaped", number=int(argument))
                elif pid := os.fork():
                    children.add(pid)
                else:
                    _live(settings, **json.loads(argument))
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


async def _warm_up(settings: Settings) -> None:
    """What a first request imports and prepares, every child has from birth."""
    async with serving(settings) as client:
        await client.get(PAGE)
        await client.patch("/countries/AT", json={"official_name": "v0"}, headers=AUTHORIZED)


def _live(settings: Settings, role: str, slot: int, number: int) -> NoReturn:
    """A child, until it is killed."""
    try:
        app = create_app(settings)
        asyncio.run(_write(app, slot, number) if role == "writer" else _read(app, slot))
    except BrokenPipeError:
        pass  # the run has ended
    except BaseException as error:
        report("failed", repr(error).replace(" ", "_"))
    os._exit(1)


def report(what: str, key: str = "-", number: int = 0, at: float | None = None) -> None:
    _send([_line(what, key, number, at)])


def _line(what: str, key: str, number: int, at: float | None = None) -> str:
    now = time.monotonic()
    return f"{os.getpid()} {what} {key} {number} {now if at is None else at!r} {now!r}\n"


def _send(lines: Sequence[str]) -> None:
    # One write, shorter than PIPE_BUF: the lines of several processes do not mix.
    os.write(1, "".join(lines).encode())


async def _write(app: FastAPI, slot: int, number: int) -> None:
    key, rng = KEYS[slot], random.Random()
    current = itertools.count(number)
    app.add_middleware(_Acknowledging, key=key)
    async with serving(app=app) as client:
        witness = _Witness(client.state["cache"].backend, key)
        backend = patch.multiple(
            client.state["cache"].backend, hold=witness.hold, release=witness.release
        )
        with backend:
            report("ready", number=slot)
            await asyncio.sleep(rng.uniform(*FIRST_PAUSE_SECONDS))
            for witness.number in current:
                headers = AUTHORIZED | {"X-Number": str(witness.number)}
                change = {"official_name": f"v{witness.number}"}
                report("intent", key, witness.number)
                answer = await client.patch(f"/countries/{key}", json=change, headers=headers)
                if not answer.is_success:
                    report("failed", f"PATCH_{answer.status_code}", witness.number)
                await asyncio.sleep(rng.uniform(*WRITE_PAUSE_SECONDS))


class _Acknowledging:
    """Reports a write when its response begins: the promise counts from there."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def reporting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                report("acked", self.key, int(dict(scope["headers"])[b"x-number"]))
            await send(message)

        await self.app(scope, receive, reporting)


class _Witness:
    """Says what Redis answered to holds and releases: only a failure opens a window."""

    def __init__(self, backend: Backend, key: str) -> None:
        self._hold, self._release = backend.hold, backend.release
        self._key, self.number = key, 0
        self._numbers: dict[str, int] = {}

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        self._numbers[writer] = self.number
        try:
            await self._hold(tags, writer)
        except (CacheUnavailable, asyncio.CancelledError):
            report("unheld", self._key, self.number)
            raise
        report("held", self._key, self.number)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        number = self._numbers.get(writer, self.number)  # `invalidate` releases without a hold
        try:
            await self._release(tags, writer, changed=changed)
        except (CacheUnavailable, asyncio.CancelledError):
            report("owed", self._key, number)
            raise
        report("released", self._key, number)


async def _read(app: FastAPI, slot: int) -> None:
    async with serving(app=app) as client:

        async def keep_reading(rng: random.Random) -> None:
            while True:
                key = rng.choice((*KEYS, ""))
                began = time.monotonic()
                answer = await client.get(f"/countries/{key}" if key else PAGE)
                what = "hit" if cache_status(answer) == "hit" else "miss"
                if answer.status_code != 200:
                    what = f"GET_{answer.status_code}"
                    report("failed", what)
                countries = [answer.json()] if key else answer.json()["items"]
                seen = {each["alpha_2"]: _version(each["official_name"]) for each in countries}
                _send([_line(what, each, seen[each], began) for each in KEYS if each in seen])
                await asyncio.sleep(rng.uniform(0, READ_PAUSE_SECONDS))

        report("ready", number=slot)
        # Several requests at a time, so that they share flights.
        await asyncio.gather(*(keep_reading(random.Random()) for _ in range(TASKS_PER_READER)))


def _version(official_name: str | None) -> int:
    text = (official_name or "").removeprefix("v")
    return int(text) if text.isdecimal() else 0


# The run.


@dataclass(frozen=True, slots=True)
class Plan:
    kills: int = 200
    kills_in_a_write: int = 1
    """It goes on until there are so many of these too."""
    seconds: float = NEVER
    hold_seconds: float = HOLD_SECONDS
    seed: int | None = None
    progress: Callable[[str], object] = lambda _: None


class Run:
    """Starts processes, kills writers, and keeps what all of them report."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self.settings, self.plan = settings, plan
        self.rng = random.Random(plan.seed)
        self.history: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.began = time.monotonic()
        self._waiting: list[tuple[str, int | None, asyncio.Future[Event]]] = []
        self._last: dict[str, Event] = {}
        self._since: dict[tuple[str, str], Event] = {}
        # Seconds from these to the answer, as they are on this machine at this time.
        self._took = {"intent": 0.01, "held": 0.005}

    @property
    def is_over(self) -> bool:
        enough = (
            self.counts["killed"] >= self.plan.kills
            and self.counts["killed in a write"] >= self.plan.kills_in_a_write
        )
        return enough or time.monotonic() - self.began > self.plan.seconds

    async def go(self, faults: "Faults | None" = None) -> list[Event]:
        self._nurse = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-c",
                "import sys; from tests import torture; torture.nurse(*sys.argv[1:])",
            ),
            *(self.settings.database_url, self.settings.cache_url, str(self.plan.hold_seconds)),
            cwd=SERVICE,
            env=_without_settings(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        listening = asyncio.create_task(self._listen())
        dsn = asyncpg_dsn(self.settings.database_url)
        truth = await asyncpg.create_pool(dsn, min_size=1, max_size=len(KEYS))
        try:
            for slot in range(READERS):
                await self._start("reader", slot)
            self.began = time.monotonic()
            progress = asyncio.create_task(self._show_progress())
            await _together(
                *(self._keep_killing(slot, truth) for slot in range(len(KEYS))),
                *([faults.keep_harming(self)] if faults else []),
            )
            await asyncio.sleep(LAST_READS_SECONDS)
            progress.cancel()
        finally:
            assert self._nurse.stdin
            self._nurse.stdin.close()
            await self._nurse.wait()
            await listening
            await truth.close()
        return self.history

    async def _listen(self) -> None:
        assert self._nurse.stdout
        async for line in self._nurse.stdout:
            pid, what, key, number, at, ended = line.decode().split()
            self.record(Event(int(pid), what, key, int(number), float(at), float(ended)))
        for _, _, future in self._waiting:
            future.cancel()

    def record(self, event: Event) -> None:
        self.history.append(event)
        self.counts[event.what] += 1
        if event.what in ("intent", "held"):
            self._since[event.what, event.key] = event
        if event.what in ("intent", "acked"):
            self._last[event.key] = event
        if event.what == "acked":
            for what in self._took:
                since = self._since.get((what, event.key))
                if since and since.number == event.number:
                    self._took[what] += 0.2 * (event.at - since.at - self._took[what])
        for waiting in tuple(self._waiting):
            what, number, future = waiting
            if what == event.what and number in (None, event.number, event.pid):
                self._waiting.remove(waiting)
                if not future.done():  # who waited may have left
                    future.set_result(event)

    async def next(self, what: str, number: int | None, seconds: float) -> Event:
        """The next event of a process, or about a number. Raises TimeoutError."""
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, number, future))
        async with asyncio.timeout(seconds):
            return await future

    async def _start(self, role: str, slot: int, number: int = 0) -> int:
        # The slot of a process that gets ready tells which one it is.
        slot_of_all = slot if role == "writer" else len(KEYS) + slot
        ready = asyncio.create_task(self.next("ready", slot_of_all, START_SECONDS))
        await asyncio.sleep(0)
        self._order("fork", json.dumps({"role": role, "slot": slot_of_all, "number": number}))
        return (await ready).pid

    def _order(self, order: str, argument: object) -> None:
        assert self._nurse.stdin
        self._nurse.stdin.write(f"{order} {argument}\n".encode())

    async def _keep_killing(self, slot: int, truth: asyncpg.Pool) -> None:
        key = KEYS[slot]
        while not self.is_over:
            number = self._last[key].number + 1 if key in self._last else 1
            pid = await self._start("writer", slot, number)
            await self._aim(pid)
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            reaped = asyncio.create_task(self.next("reaped", pid, START_SECONDS))
            await asyncio.sleep(0)
            self._order("reap", pid)
            await reaped
            self.record(Event(pid, "killed", key, 0, killed, killed))
            if key in self._last and self._last[key].what == "intent":
                self.counts["killed in a write"] += 1
            await self._see(key, pid, truth)

    async def _aim(self, pid: int) -> None:
        """Waits until a random instant, which is in a write more often than not."""
        if self.rng.random() < FIRST_WRITE_SURVIVED:
            with contextlib.suppress(TimeoutError):
                await self.next("acked", pid, AIM_SECONDS)
        await asyncio.sleep(self.rng.uniform(*LIFE_SECONDS))
        aim = self.rng.choice(("", "intent", "held", "held"))
        if aim:
            with contextlib.suppress(TimeoutError):
                await self.next(aim, pid, AIM_SECONDS)
            await asyncio.sleep(self.rng.uniform(0, self._took[aim]))

    async def _see(self, key: str, pid: int, truth: asyncpg.Pool) -> None:
        """What PostgreSQL has, now that the last transaction of the killed writer has ended.

        FOR UPDATE waits for it: a writer that has sent its COMMIT has locked the row long before.
        """
        query = "SELECT official_name FROM countries WHERE alpha_2 = $1 FOR UPDATE"
        number = _version(await truth.fetchval(query, key))
        now = time.monotonic()
        if number:
            self.record(Event(pid, "seen", key, number, now, now))

    async def _show_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            count = self.counts
            self.plan.progress(
                f"{time.monotonic() - self.began:4.0f} s: {count['killed']} kills"
                f" ({count['killed in a write']} in a write),"
                f" {count['hit'] + count['miss']} reads, {count['acked']} writes,"
                f" {count['fault']} faults"
            )


async def _together(*work: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for each in work:
            tasks.create_task(_awaited(each))


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _without_settings(environment: os._Environ[str]) -> dict[str, str]:
    names = Settings.model_fields.keys()
    return {name: value for name, value in environment.items() if name.lower() not in names}


class Faults:
    """What happens to Redis, and to the way there, while a run lasts."""

    KINDS = ("flush", "flush", "cut", "reset", "reset", "silence", "refuse", "delay", "restart")

    def __init__(self, server: StoppableRedis, become: Callable[[Fault], Awaitable[None]]) -> None:
        self._server, self._become = server, become

    async def keep_harming(self, run: Run) -> None:
        while not run.is_over:
            await asyncio.sleep(run.rng.uniform(*CALM_SECONDS))
            kind = run.rng.choice(self.KINDS)
            # Between hold and COMMIT, or just before the hold, it matters most.
            with contextlib.suppress(TimeoutError):
                await run.next(run.rng.choice(("held", "intent")), None, AIM_SECONDS)
            began = time.monotonic()
            await self._harm(kind, run.rng.uniform(*FAULT_SECONDS))
            run.record(Event(0, "fault", kind, 0, began, time.monotonic()))

    async def _harm(self, kind: str, seconds: float) -> None:
        match kind:
            case "flush":
                async with redis.asyncio.Redis.from_url(self._server.url) as client:
                    await client.flushall()
            case "restart":
                await asyncio.to_thread(self._server.stop)
                await asyncio.sleep(seconds)
                await asyncio.to_thread(self._server.start)
            case "cut" | "reset":
                await self._become(kind)
                await self._become("none")
            case "silence" | "refuse" | "delay":
                await self._become(kind)
                await asyncio.sleep(seconds)
                await self._become("none")


@contextlib.asynccontextmanager
async def faults_before(server: StoppableRedis) -> AsyncIterator[tuple[Faults, str]]:
    """The faults, and the URL that leads to `server` through them.

    The proxy has a thread of its own, so that it is not late when the run is busy.
    """
    ready: asyncio.Future[tuple[FaultProxy, str, asyncio.AbstractEventLoop]]
    here = asyncio.get_running_loop()
    ready = here.create_future()
    over = asyncio.Event()

    async def host() -> None:
        async with fault_proxy(server.url) as (proxy, url):
            there = asyncio.get_running_loop()
            here.call_soon_threadsafe(ready.set_result, (proxy, url, there))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(host()))
    thread.start()
    proxy, url, there = await ready

    async def become(fault: Fault) -> None:
        changed = asyncio.run_coroutine_threadsafe(proxy.become(fault), there)
        await asyncio.wrap_future(changed)

    try:
        yield Faults(server, become), url
    finally:
        there.call_soon_threadsafe(over.set)
        await asyncio.to_thread(thread.join)


# The long form.


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=NEVER, help="end after so long anyway")
    parser.add_argument("--faults", action="store_true", help="harm Redis too")
    parser.add_argument("--hold", type=float, default=HOLD_SECONDS, help="seconds (production: 30)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    plan = Plan(options.kills, 1, options.seconds, options.hold, options.seed, _say)
    kind = choose_kind()
    if options.faults and kind == "external":
        parser.error("--faults stops Redis, and that of TEST_SERVICES=external is not ours to stop")
    logging.getLogger().setLevel(logging.WARNING)  # importing the application turned its log on
    with running_services(kind) as services:
        verdict = asyncio.run(_torture(services, plan, kind if options.faults else None))
    for violation in verdict.violations[:EXCERPTS]:
        _say(f"violation: {violation}")
    _say(f"seed {plan.seed}, holds of {plan.hold_seconds:g} s\n{verdict.table()}")
    return 1 if verdict.violations else 0


async def _torture(services: Services, plan: Plan, faults: Kind | None) -> Verdict:
    _say(f"{await describe(services)}{', with faults' if faults else ''}")
    async with database(services, "template1") as url:
        config = Config(SERVICE / "alembic.ini")
        config.attributes["database_url"] = url
        await asyncio.to_thread(command.upgrade, config, "head")
        if faults is None:
            async with redis.asyncio.Redis.from_url(services.cache_url) as client:
                await client.flushdb()
            settings = make_settings(database_url=url, cache_url=services.cache_url)
            history = await Run(settings, plan).go()
        else:
            with stoppable_redis(faults) as server:
                async with faults_before(server) as (harm, cache_url):
                    settings = make_settings(database_url=url, cache_url=cache_url)
                    history = await Run(settings, plan).go(harm)
    return check(history, hold_seconds=plan.hold_seconds)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
