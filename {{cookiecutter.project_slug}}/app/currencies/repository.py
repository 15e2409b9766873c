"""All SQL about currencies."""

from collections.abc import Sequence

from sqlalchemy import column, func, select, table

from app.currencies.models import Currency
from app.currencies.schemas import CurrencyCreate, CurrencyQuery, CurrencyUpdate
from app.database import ReadSession, WriteSession
from app.listing import ShownRow, fetch_page

# By name: countries depend on currencies, so currencies cannot import them.
_country_currencies = table("country_currencies", column("currency_code"))
# Reads take columns. Entities are for writes: to make them takes longer than the query.
_shown = select(
    Currency.code,
    Currency.numeric,
    Currency.name,
    Currency.minor_units,
    Currency.version,
)


async def find(session: ReadSession, query: CurrencyQuery) -> tuple[Sequence[ShownRow], int]:
    matching = _shown
    if query.minor_units is not None:
        matching = matching.where(Currency.minor_units == query.minor_units)
    if query.q is not None:
        matching = matching.where(Currency.name.icontains(query.q, autoescape=True))
    return await fetch_page(session, matching, query, key=Currency.code)


async def get(session: ReadSession, code: str) -> ShownRow | None:
    return (await session.execute(_shown.where(Currency.code == code))).one_or_none()


async def lock(session: WriteSession, code: str) -> Currency | None:
    """Until the end of the transaction nobody else changes it, or refers to it anew."""
    return await session.get(Currency, code, with_for_update=True)


async def create(session: WriteSession, values: CurrencyCreate) -> Currency:
    currency = Currency(**values.model_dump())
    session.add(currency)
    await session.flush()
    return currency


async def update(session: WriteSession, currency: Currency, changes: CurrencyUpdate) -> None:
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(currency, field, value)
    await session.flush()


async def delete(session: WriteSession, currency: Currency) -> None:
    await session.delete(currency)
    await session.flush()


async def count_countries(session: WriteSession, currency: Currency) -> int:
    uses = select(func.count()).where(_country_currencies.c.currency_code == currency.code)
    return await session.scalar(uses) or 0
