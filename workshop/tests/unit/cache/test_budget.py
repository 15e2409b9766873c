"""P4: what is taken from the budget of a request, and what is not."""

import time

import pytest

from app.cache.backends.base import REQUEST_BUDGET_SECONDS
from app.cache.budget import RENEWAL_SECONDS, SWIFT_SECONDS, Budget


async def one() -> int:
    return 1


def ago(seconds: float) -> float:
    return time.monotonic() - seconds


def test_swift_answers_cost_nothing_however_many() -> None:
    budget = Budget()
    for _ in range(1000):
        budget.spend(ago(SWIFT_SECONDS / 2))
    assert budget.is_whole


async def test_slow_answers_add_up_and_then_nothing_is_asked() -> None:
    budget, asked = Budget(), list[int]()

    async def ask() -> None:
        asked.append(1)

    budget.spend(ago(REQUEST_BUDGET_SECONDS / 2))
    await budget.within(ask)
    budget.spend(ago(REQUEST_BUDGET_SECONDS / 2))
    with pytest.raises(TimeoutError):
        await budget.within(ask)
    assert asked == [1]


async def test_a_request_that_lasts_gets_a_new_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget()
    budget.spend(ago(REQUEST_BUDGET_SECONDS))
    later = time.monotonic() + RENEWAL_SECONDS
    monkeypatch.setattr("app.cache.budget.time.monotonic", lambda: later + 1)
    assert await budget.within(one) == 1
    assert budget.is_whole
