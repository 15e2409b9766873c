"""Readers and writers: each is the whole service in a process of its own, and says what it does.

All are forked from one that has imported everything, because killing is only frequent when starting
is cheap, and all write their events to one pipe.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, NoReturn
from unittest.mock import patch

from fastapi import FastAPI
from sqlalchemy import Table, event, select, text
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.util import await_only

from app.cache import cache, invalidate
from app.countries import repository
from app.countries.models import Country
from app.countries.schemas import Alpha2, CountryUpdate
from app.database import ReadSessionDep, WriteSessionDep
from app.main import create_app
from app.settings import Settings
from tests.clients import AUTHORIZED, Client, cache_status, make_settings, serving
from tests.torture.mechanisms import switched_off
from tests.torture.witness import Acknowledging, Witness, line, report, send

# One country per writer, all on one small page.
KEYS = ("AU", "NF", "NZ")
PAGE = "/countries?subregion=Australia%20and%20New%20Zealand&limit=50&sort=alpha_2"
# The same country by routes that declare no tag: what they depend on is learned.
UNTAGGED = "/untagged"
READS = ("/countries", UNTAGGED)
# A write that survives a failed flush in a SAVEPOINT, one by a statement on the table, and one by
# text that says what it changes.
SAVEPOINT, STATEMENT, TEXTUAL = "/savepoint", "/statement", "/textual"
WRITES = ("/countries", SAVEPOINT, STATEMENT, TEXTUAL)

TASKS_PER_READER = 5
READ_PAUSE_SECONDS, OWN_READ_PAUSE_SECONDS = 0.01, 0.03
# A new writer waits, so that readers meet what the killed one has left behind.
FIRST_PAUSE_SECONDS, WRITE_PAUSE_SECONDS = (0.05, 0.2), (0.0, 0.04)
SLOW_READS, SLOW_SECONDS = 0.3, (0.0, 0.03)
UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the processes run under."""

    database_url: str
    cache_url: str
    writers_database_url: str
    hold_seconds: float
    writers_database_seconds: float = 10.0
    without: tuple[str, ...] = ()
    """Mechanisms of the cache that are switched off."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def readers(self) -> Settings:
        settings = make_settings(database_url=self.database_url, cache_url=self.cache_url)
        return settings.model_copy(update={"log_level": "CRITICAL"})

    @property
    def writers(self) -> Settings:
        return self.readers.model_copy(
            update={
                "database_url": self.writers_database_url,
                "database_timeout_seconds": self.writers_database_seconds,
            }
        )


def nurse(conditions_as_json: str) -> None:
    """Forks what stdin asks for, until stdin ends: neither a loop nor a thread is there yet.

    `fork <json>` starts a process; `reap <pid>` waits for one, whose number is not given to
    another process before that.
    """
    conditions = Conditions(**json.loads(conditions_as_json))
    children: set[int] = set()
    with ExitStack() as stack:
        for module in [*sys.modules.values()]:
            if module.__name__.startswith("app.cache") and hasattr(module, "HOLD_SECONDS"):
                holds = patch.object(module, "HOLD_SECONDS", conditions.hold_seconds)
                stack.enter_context(holds)
        for name in conditions.without:
            stack.enter_context(switched_off(name))
        try:
            asyncio.run(_warm_up(conditions.readers))
            for line in sys.stdin:
                order, argument = line.split(maxsplit=1)
                if order == "reap":
                    os.waitpid(int(argument), 0)
                    children.discard(int(argument))
                    report("reaped", number=int(argument))
                elif pid := os.fork():
                    children.add(pid)
                else:
                    _live(conditions, **json.loads(argument))
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


async def _warm_up(settings: Settings) -> None:
    """What a first request imports and prepares, every child has from birth."""
    change = {"official_name": "v0"}
    async with serving(app=_application(settings)) as client:
        await client.get(PAGE)
        for path in READS:
            await client.get(f"{path}/AT")
        for path in WRITES:
            await client.patch(f"{path}/AT", json=change, headers=AUTHORIZED)


def _application(settings: Settings) -> FastAPI:
    """The service, and more ways to read and write the name of a country."""
    app = create_app(settings)
    countries = Country.__table__
    assert isinstance(countries, Table)

    @app.get(UNTAGGED + "/{alpha_2}")
    @cache(expire=300, public=True)
    async def read(alpha_2: Alpha2, session: ReadSessionDep) -> dict[str, str | None]:
        name = select(Country.official_name).where(Country.alpha_2 == alpha_2)
        return {"alpha_2": alpha_2, "official_name": await session.scalar(name)}

    @app.patch(SAVEPOINT + "/{alpha_2}")
    async def update(alpha_2: Alpha2, changes: CountryUpdate, session: WriteSessionDep) -> None:
        country = await repository.lock(session, alpha_2)
        assert country is not None
        await repository.update(session, country, changes)
        try:
            async with session.begin_nested():
                taken = {"alpha_3": country.alpha_3, "numeric": country.numeric}
                session.add(Country(alpha_2="XX", name="Nowhere", **taken))
                await session.flush()
        except IntegrityError:
            return
        raise AssertionError("a duplicate was stored")

    @app.patch(STATEMENT + "/{alpha_2}")
    async def execute(alpha_2: Alpha2, changes: CountryUpdate, session: WriteSessionDep) -> None:
        new = {"official_name": changes.official_name}
        await session.execute(
            sql_update(countries).where(countries.c.alpha_2 == alpha_2).values(new)
        )

    @app.patch(TEXTUAL + "/{alpha_2}")
    async def send(alpha_2: Alpha2, changes: CountryUpdate, session: WriteSessionDep) -> None:
        invalidate(session, f"country:{alpha_2}")
        await session.execute(
            text("UPDATE countries SET official_name = :name WHERE alpha_2 = :alpha_2"),
            {"name": changes.official_name, "alpha_2": alpha_2},
        )

    return app


def _live(conditions: Conditions, role: str, slot: int, number: int) -> NoReturn:
    """A child, until it is killed."""
    try:
        if role == "writer":
            asyncio.run(_write(_application(conditions.writers), slot, number))
        else:
            asyncio.run(_read(_application(conditions.readers), slot))
    except BrokenPipeError:
        pass  # the run has ended
    except BaseException as error:
        report("failed", repr(error).replace(" ", "_"))
    os._exit(1)


async def _write(app: FastAPI, slot: int, number: int) -> None:
    key, rng = KEYS[slot], random.Random()
    app.add_middleware(Acknowledging, key=key)
    async with serving(app=app) as client, asyncio.TaskGroup() as tasks:
        backend = client.state["cache"].backend
        witness = Witness(backend, key)
        with patch.multiple(backend, hold=witness.hold, release=witness.release):
            report("ready", number=slot)
            tasks.create_task(_keep_reading(client, (key,), OWN_READ_PAUSE_SECONDS))
            await asyncio.sleep(rng.uniform(*FIRST_PAUSE_SECONDS))
            for witness.number in itertools.count(number):
                headers = AUTHORIZED | {"X-Number": str(witness.number)}
                change = {"official_name": f"v{witness.number}"}
                path = rng.choice(WRITES)
                report("intent", key, witness.number)
                answer = await client.patch(f"{path}/{key}", json=change, headers=headers)
                if answer.status_code == UNAVAILABLE:
                    report("doubted", key, witness.number)
                elif not answer.is_success:
                    report("failed", f"PATCH_{answer.status_code}", witness.number)
                await asyncio.sleep(rng.uniform(*WRITE_PAUSE_SECONDS))


async def _read(app: FastAPI, slot: int) -> None:
    async with serving(app=app) as client:
        engine = client.state["engine"].sync_engine
        event.listen(engine, "after_cursor_execute", _take_time)
        report("ready", number=slot)
        # Several requests at a time, so that they share flights.
        await asyncio.gather(
            *(
                _keep_reading(client, (*KEYS, ""), READ_PAUSE_SECONDS)
                for _ in range(TASKS_PER_READER)
            )
        )


def _take_time(*_: object) -> None:
    """Between the query and all that is done with its result, writes begin and end."""
    if random.random() < SLOW_READS:
        await_only(asyncio.sleep(random.uniform(*SLOW_SECONDS)))


async def _keep_reading(client: Client, keys: Sequence[str], pause_seconds: float) -> None:
    rng = random.Random()
    while True:
        key = rng.choice(keys)
        began = time.monotonic()
        answer = await client.get(f"{rng.choice(READS)}/{key}" if key else PAGE)
        if answer.status_code == 200:
            what = "hit" if cache_status(answer) == "hit" else "miss"
            countries: list[dict[str, Any]] = [answer.json()] if key else answer.json()["items"]
            seen = {each["alpha_2"]: version(each["official_name"]) for each in countries}
            send([line(what, each, seen[each], began) for each in KEYS if each in seen])
        else:
            report("failed", f"GET_{answer.status_code}")
        await asyncio.sleep(rng.uniform(0, pause_seconds))


def version(official_name: str | None) -> int:
    text = (official_name or "").removeprefix("v")
    return int(text) if text.isdecimal() else 0
