"""The benchmarks of the template, as far as they can be looked at without measuring."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from generated import TEMPLATE
from micro import table

PEERS = sorted((TEMPLATE / "benchmarks/peers").glob("*/app.py"))


def title(app: Path) -> str:
    docstring = ast.get_docstring(ast.parse(app.read_text(encoding="utf-8")))
    assert docstring
    return docstring.splitlines()[0]


@pytest.mark.parametrize("app", PEERS, ids=lambda app: app.parent.name)
def test_every_requirement_of_a_peer_is_pinned(app: Path) -> None:
    lines = app.with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+(\[\w+\])?==[\w.]+", line) for line in lines)


def test_goals_are_about_rows_that_are_measured() -> None:
    goals: list[dict[str, Any]] = tomllib.loads((TEMPLATE / "benchmarks/goals.toml").read_text())["goal"]
    peers = {f"{title(app)}, {size} items" for app in PEERS for size in (20, 249)}
    texts = [(TEMPLATE / "workshop/benchmarks" / name).read_text() for name in ("rows.py", "figures.py")]

    for goal in goals:
        for name in {goal["name"], goal.get("against", goal["name"])} - peers:
            # The number of pages, and which processes, are filled in.
            written = re.sub(r"with [\d,]+ cached", "with {pages:,} cached", name)
            written = re.sub(r"stampede.*", "stampede{name}", written)
            assert any(f'"{written}"' in text for text in texts), name
        assert len(goal.keys() & {"at_least", "at_most"}) == 1


def test_versions_are_compared_pair_by_pair() -> None:
    # The second pair ran on a machine that was half as fast.
    pairs = [({"hit": 10.0}, {"hit": 9.0}), ({"hit": 20.0}, {"hit": 18.0}), ({"hit": 10.0}, {"hit": 8.0})]

    assert table(pairs).splitlines()[2] == "| hit | 10.0 | 9.0 | 0.900 (0.800-0.900) |"
