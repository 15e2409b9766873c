"""What the cached routes and functions of the service depend on, as its tests saw it.

`make dependencies` loads this as a plugin of pytest: the tests that talk to the whole service
(those with `client`) run, and docs/dependencies.md is written.
"""

from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI

from app.cache import Cache, InMemoryBackend
from app.cache.reads import Learned
from app.main import app
from tests.clients import Client

PAGE = Path(__file__).parent.parent / "docs" / "dependencies.md"
HEAD = """\
# What answers depend on

`make dependencies` writes this page while the tests run: each cached route and function, the tables
that its statements read, and what ends its answers. A tag ends them for the rows that models say; a
table that no tag of the route covers ends them with any change.

| cached | reads | ends with |
| --- | --- | --- |
"""

# By name: what it reads, and what ends it.
Rows: TypeAlias = dict[str, list[list[str]]]
rows: Rows = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = [item for item in items if "client" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    client = getattr(item, "funcargs", {}).get("client")
    if isinstance(client, Client):
        add({learned.name: row_of(learned) for learned in client.state["cache"].learned})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of pytest-xdist has ended."""
    add(getattr(node, "workeroutput", {}).get("dependencies", {}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["dependencies"] = rows
    elif exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        PAGE.write_text(page(routes_of(app)), encoding="utf-8")


def routes_of(app: FastAPI) -> set[str]:
    """The cached routes of the service: tests add some of their own."""
    cache = Cache(InMemoryBackend())
    cache.bind(app)
    return {learned.name for learned in cache.learned}


def add(found: Rows) -> None:
    for name, row in found.items():
        known = rows.get(name, [[], []])
        rows[name] = [sorted({*one, *other}) for one, other in zip(known, row, strict=True)]


def page(routes: set[str]) -> str:
    functions = {name for name in rows if name.startswith("app.")}
    lines = ((name, *map(", ".join, rows.get(name, [[], []]))) for name in routes | functions)
    return HEAD + "".join(
        f"| `{name}` | {reads or '–'} | {ends or 'not known: no test asked for it'} |\n"
        for name, reads, ends in sorted(lines)
    )


def row_of(learned: Learned) -> list[list[str]]:
    if learned.seen is None:
        return [[], []]
    ends = [f"tag `{tag.text}`" + " (manual)" * tag.manual for tag in learned.policy.tags]
    ends += [f"any change to `{tag.removeprefix('table:')}`" for tag in learned.tags]
    ends += [f"whatever ends `{name}`" for name in learned.seen.functions]
    ends += [f"(not stored: {learned.unclear})"] if learned.unclear else []
    return [[f"`{table}`" for table in learned.seen.tables], ends or ["its expiry alone"]]
