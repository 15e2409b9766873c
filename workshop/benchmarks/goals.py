"""What the figures ought to be: ratios, kept as data in a TOML file (`--goals`).

Each `[[goal]]` has the `name` of a row or a figure, that of another which it is set `against`
(without one the value itself counts), and a bound: `at_least` or `at_most`.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.rounds import Measured


@dataclass(frozen=True, slots=True)
class Goal:
    name: str
    against: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return f"≤ {self.at_most:g}"

    def missed_by(self, value: float) -> float:
        """The part of the bound that is lacking; nothing when the goal is met."""
        if self.at_least is not None:
            return max(0.0, 1 - value / self.at_least)
        assert self.at_most is not None
        return max(0.0, value / self.at_most - 1)


def read_goals(file: Path) -> list[Goal]:
    return [Goal(**goal) for goal in tomllib.loads(file.read_text(encoding="utf-8"))["goal"]]


def reached(goal: Goal, measured: Measured, figures: Sequence[Figure]) -> float | None:
    """The value that a goal is about. None when it was not measured."""
    if ratio := measured.ratio(goal.name, goal.against):
        return ratio.median
    values = {figure.name: figure.value for figure in figures}
    if goal.name not in values or (goal.against and goal.against not in values):
        return None
    return values[goal.name] / (values[goal.against] if goal.against else 1)
