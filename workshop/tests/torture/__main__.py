"""Promise P1 under torture: writers killed at random instants while others read, in real processes.

    python -m tests.torture [--kills 200] [--faults [KIND …]] [--without NAME …] [--seed N]

Each writer is the whole service in a process of its own and counts one country up: v1, v2, … It
says so before and after each write, until SIGKILL meets it; its successor goes on with a higher
number. It writes rows, rows around a failed flush in a SAVEPOINT, statements on the table, and
text. Readers in other processes, and the writer itself, ask routes with tags and one without, and
say what they were answered. `checker` then judges the recorded history alone.

With --faults Redis is also flushed, cut off, restarted from an older snapshot, replaced by a
replica that missed writes, and refuses writes; and COMMITs are held up longer than the writer waits
for them. Then reads may be stale in the windows of docs/consistency.md, and are counted there, only
if a process has reported that Redis did not take its hold or its release, or if Redis lost a hold.

With --without a mechanism of the cache is switched off, which has to end with violations.
"""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Sequence

import redis.asyncio
from alembic import command
from alembic.config import Config

from tests.services import (
    SERVICE,
    Services,
    choose_kind,
    database,
    describe,
    running_services,
)
from tests.torture.checker import EXCERPTS, NEVER, check
from tests.torture.faults import KINDS, faults_before
from tests.torture.history import Verdict
from tests.torture.mechanisms import MECHANISMS
from tests.torture.processes import Conditions
from tests.torture.run import Plan, Run

# The holder of a killed writer keeps its tags uncached for the length of a hold. With the 30
# seconds of production nearly every read of a run would go to the database and prove nothing.
HOLD_SECONDS = 0.5
# A writer waits so long for PostgreSQL, so that it is soon in doubt. Production: 10 seconds.
DATABASE_SECONDS = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=NEVER, help="end after so long anyway")
    parser.add_argument(
        "--faults",
        nargs="*",
        choices=KINDS,
        metavar="KIND",
        help="harm Redis and COMMITs too: in every way, or in these",
    )
    parser.add_argument("--hold", type=float, default=HOLD_SECONDS, help="seconds (production: 30)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--without", choices=MECHANISMS, nargs="+", default=(), metavar="NAME")
    options = parser.parse_args()
    plan = Plan(options.kills, 1, options.seconds, options.seed, _say)
    kind = choose_kind()
    if options.faults is not None and kind == "external":
        parser.error("--faults stops Redis, and that of TEST_SERVICES=external is not ours to stop")
    logging.getLogger().setLevel(logging.WARNING)  # importing the application turned its log on
    with running_services(kind) as services:
        verdict = asyncio.run(
            _torture(services, plan, options.hold, options.without, options.faults)
        )
    for violation in verdict.violations[:EXCERPTS]:
        _say(f"violation: {violation}")
    _say(f"seed {plan.seed}, holds of {options.hold:g} s\n{verdict.table()}")
    return 1 if verdict.violations else 0


async def _torture(
    services: Services,
    plan: Plan,
    hold: float,
    without: Sequence[str],
    kinds: Sequence[str] | None,
) -> Verdict:
    _say(
        await describe(services)
        + (", with faults" if kinds is not None else "")
        + (f", without {', '.join(without)}" if without else "")
    )
    async with database(services, "template1") as url:
        config = Config(SERVICE / "alembic.ini")
        config.attributes["database_url"] = url
        await asyncio.to_thread(command.upgrade, config, "head")
        if kinds is None:
            async with redis.asyncio.Redis.from_url(services.cache_url) as client:
                await client.flushdb()
            conditions = Conditions(url, services.cache_url, url, hold, without=tuple(without))
            history = await Run(conditions, plan).go()
        else:
            harmed = faults_before(services.kind, url, kinds or KINDS)
            async with harmed as (harm, late_url, cache_url):
                conditions = Conditions(
                    url, cache_url, late_url, hold, DATABASE_SECONDS, tuple(without)
                )
                history = await Run(conditions, plan).go(harm)
    return check(history, hold_seconds=hold)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
