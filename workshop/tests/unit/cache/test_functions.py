from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from app.cache import Cache, InMemoryBackend, cache
from app.cache.context import active_cache


@pytest.fixture
def opened() -> Iterator[Cache]:
    opened = Cache(InMemoryBackend())
    token = active_cache.set(opened)
    yield opened
    active_cache.reset(token)


class Rates(BaseModel):
    base: str
    rates: dict[str, float]


calls: list[str] = []


@cache(expire=60, tags=["rates", "rates:{base}"])
async def exchange_rates(base: str, digits: int = 2) -> Rates | None:
    calls.append(base)
    return None if base == "ZZZ" else Rates(base=base, rates={"USD": round(1.0812, digits)})


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


async def test_a_hit_returns_the_annotated_type(opened: Cache) -> None:
    first, second = await exchange_rates("EUR"), await exchange_rates("EUR")
    assert first == second == Rates(base="EUR", rates={"USD": 1.08})
    assert isinstance(second, Rates)
    assert calls == ["EUR"]


async def test_what_a_caller_does_to_a_result_is_not_seen_by_the_next(opened: Cache) -> None:
    first = await exchange_rates("EUR")
    assert first is not None
    first.rates["USD"] = 0.0
    assert await exchange_rates("EUR") == Rates(base="EUR", rates={"USD": 1.08})


async def test_arguments_are_bound_before_they_are_compared(opened: Cache) -> None:
    await exchange_rates("EUR")
    await exchange_rates(base="EUR", digits=2)
    await exchange_rates("EUR", 3)
    assert calls == ["EUR", "EUR"]


async def test_none_is_cached(opened: Cache) -> None:
    assert await exchange_rates("ZZZ") is None
    assert await exchange_rates("ZZZ") is None
    assert calls == ["ZZZ"]


async def test_invalidate_drops_the_result_for_these_arguments(opened: Cache) -> None:
    await exchange_rates("EUR")
    await exchange_rates("CHF")
    await exchange_rates.invalidate("EUR")
    await exchange_rates("EUR")
    await exchange_rates("CHF")
    assert calls == ["EUR", "CHF", "EUR"]


@pytest.mark.parametrize("tag", ["rates", "rates:EUR", "rates:*"])
async def test_a_tag_drops_the_results_that_carry_it(opened: Cache, tag: str) -> None:
    await exchange_rates("EUR")
    await opened.invalidate(tag)
    await exchange_rates("EUR")
    assert calls == ["EUR", "EUR"]


async def test_an_argument_without_identity_is_refused_at_the_first_call(opened: Cache) -> None:
    @cache(expire=60)
    async def rows(session: object) -> int:
        return 1

    with pytest.raises(TypeError, match=r"rows: argument 'session' is a object"):
        await rows(object())


async def test_a_method_is_refused_unless_its_object_has_an_identity(opened: Cache) -> None:
    class Service:
        @cache(expire=60)
        async def total(self) -> int:
            return 1

    with pytest.raises(TypeError, match="argument 'self' is a"):
        await Service().total()  # type: ignore[call-arg]


async def test_expire_0_turns_caching_off(opened: Cache) -> None:
    @cache(expire=0)
    async def now() -> int:
        calls.append("now")
        return 1

    await now()
    await now()
    assert calls == ["now", "now"]


async def test_without_an_open_cache_a_function_runs_uncached_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @cache(expire=60)
    async def total() -> int:
        calls.append("total")
        return 1

    assert [await total(), await total()] == [1, 1]
    assert calls == ["total", "total"]
    assert ["open_cache" in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(RuntimeError, match="open_cache"):
        await total.invalidate()


async def test_a_plain_function_must_be_async(opened: Cache) -> None:
    @cache(expire=60)
    def total() -> int:
        return 1

    with pytest.raises(TypeError, match="`async def`"):
        total()


async def test_a_failure_is_raised_and_not_cached(opened: Cache) -> None:
    @cache(expire=60)
    async def fails() -> int:
        calls.append("fails")
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await fails()
    assert calls == ["fails", "fails"]
