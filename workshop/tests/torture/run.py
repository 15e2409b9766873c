"""One run: starts processes, kills writers at random instants, keeps what all of them report."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from app.settings import Settings
from tests.services import SERVICE, asyncpg_dsn
from tests.torture.checker import NEVER
from tests.torture.faults import AIM_SECONDS, Faults
from tests.torture.history import Event
from tests.torture.processes import KEYS, Conditions, version

READERS = 2
FIRST_WRITE_SURVIVED, DOUBT_SURVIVED = 0.8, 0.7
LIFE_SECONDS = (0.0, 0.2)
# A writer that got no answer to its COMMIT learns in this time what has become of it, or does not.
DOUBT_SECONDS, AFTER_DOUBT_SECONDS = 5.0, (0.0, 3.0)
START_SECONDS, LAST_READS_SECONDS, PROGRESS_SECONDS = 60.0, 0.5, 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    kills: int = 200
    kills_in_a_write: int = 1
    """It goes on until there are so many of these too."""
    seconds: float = NEVER
    seed: int | None = None
    progress: Callable[[str], object] = lambda _: None


class Run:
    def __init__(self, conditions: Conditions, plan: Plan) -> None:
        self.conditions, self.plan = conditions, plan
        self.rng = random.Random(plan.seed)
        self.history: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.began = time.monotonic()
        self._waiting: list[tuple[str, int | None, asyncio.Future[Event]]] = []
        self._last: dict[str, Event] = {}
        self._since: dict[tuple[str, str], Event] = {}
        # Seconds from these to the answer, as they are on this machine at this time.
        self._took = {"intent": 0.01, "held": 0.005}
        self._seeing: set[asyncio.Task[None]] = set()

    @property
    def is_over(self) -> bool:
        enough = (
            self.counts["killed"] >= self.plan.kills
            and self.counts["killed in a write"] >= self.plan.kills_in_a_write
        )
        return enough or time.monotonic() - self.began > self.plan.seconds

    async def go(self, faults: Faults | None = None) -> list[Event]:
        self._nurse = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c"),
            "import sys; from tests.torture import processes; processes.nurse(sys.argv[1])",
            self.conditions.as_json(),
            cwd=SERVICE,
            env=_without_settings(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        listening = asyncio.create_task(self._listen())
        # Not through the proxy: it shall see what writers do not.
        self._truth = await asyncpg.create_pool(
            asyncpg_dsn(self.conditions.database_url), min_size=1, max_size=10 * len(KEYS)
        )
        try:
            for slot in range(READERS):
                await self._start("reader", slot)
            self.began = time.monotonic()
            progress = asyncio.create_task(self._show_progress())
            harming = (faults.keep_harming_redis, faults.keep_delaying_commits) if faults else ()
            await _together(
                *(self._keep_killing(slot) for slot in range(len(KEYS))),
                *(harm(self) for harm in harming),
            )
            await asyncio.sleep(LAST_READS_SECONDS)
            progress.cancel()
        finally:
            assert self._nurse.stdin
            self._nurse.stdin.close()
            await self._nurse.wait()
            await listening
            await asyncio.gather(*self._seeing)
            await self._truth.close()
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
        if event.what == "doubted":
            seeing = asyncio.create_task(self._see(event.key, event.pid))
            self._seeing.add(seeing)
            seeing.add_done_callback(self._seeing.discard)
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

    async def _keep_killing(self, slot: int) -> None:
        key = KEYS[slot]
        while not self.is_over:
            number = self._last[key].number + 1 if key in self._last else 1
            pid = await self._start("writer", slot, number)
            await self._aim(key, pid)
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            reaped = asyncio.create_task(self.next("reaped", pid, START_SECONDS))
            await asyncio.sleep(0)
            self._order("reap", pid)
            await reaped
            self.record(Event(pid, "killed", key, 0, killed, killed))
            if key in self._last and self._last[key].what == "intent":
                self.counts["killed in a write"] += 1
            await self._see(key, pid)

    async def _aim(self, key: str, pid: int) -> None:
        """Waits until a random instant, which is in a write more often than not."""
        if self.rng.random() < FIRST_WRITE_SURVIVED:
            await self._until("acked", pid, AIM_SECONDS)
        await asyncio.sleep(self.rng.uniform(*LIFE_SECONDS))
        if aim := self.rng.choice(("", "intent", "held", "held")):
            await self._until(aim, pid, AIM_SECONDS)
            await asyncio.sleep(self.rng.uniform(0, self._took[aim]))
        last = self._last.get(key)
        late = last is not None and last.what == "intent" and _age(last) > AIM_SECONDS / 2
        if late and self.rng.random() < DOUBT_SURVIVED:
            await self._until("doubted", pid, DOUBT_SECONDS)
            await asyncio.sleep(self.rng.uniform(*AFTER_DOUBT_SECONDS))

    async def _until(self, what: str, pid: int, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await self.next(what, pid, seconds)

    async def _see(self, key: str, pid: int) -> None:
        """What PostgreSQL has, now that the transaction that a writer left behind has ended.

        FOR UPDATE waits for it: a writer that has sent its COMMIT has locked the row long before.
        """
        query = "SELECT official_name FROM countries WHERE alpha_2 = $1 FOR UPDATE"
        number = version(await self._truth.fetchval(query, key))
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


def _age(event: Event) -> float:
    return time.monotonic() - event.at


async def _together(*work: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for each in work:
            tasks.create_task(_awaited(each))


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _without_settings(environment: os._Environ[str]) -> dict[str, str]:
    names = Settings.model_fields.keys()
    return {name: value for name, value in environment.items() if name.lower() not in names}
