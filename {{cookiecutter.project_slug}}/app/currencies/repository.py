"""All SQL about currencies."""

from sqlalchemy import select

from app.currencies.models import Currency
from app.currencies.schemas import CurrencyCreate, CurrencyQuery, CurrencyUpdate
from app.database import ReadSession, WriteSession
from app.errors import found
from app.listing import PageRows, ShownRow, fetch_page

UNKNOWN = "There is no such currency."

# Reads take columns. Entities are for writes: to make them takes longer than the query.
_shown = select(
    Currency.code,
    Currency.numeric,
    Currency.name,
    Currency.minor_units,
    Currency.version,
)


async def find(session: ReadSession, query: CurrencyQuery) -> PageRows:
    matching = _shown
    if query.minor_units is not None:
        matching = matching.where(Currency.minor_units == query.minor_units)
    if query.q is not None:
        matching = matching.where(Currency.name.icontains(query.q, autoescape=True))
    return await fetch_page(session, matching, query, key=Currency.code)


async def get(session: ReadSession, code: str) -> ShownRow:
    rows = await session.execute(_shown.where(Currency.code == code))
    return found(rows.one_or_none(), UNKNOWN)


async def lock(session: WriteSession, code: str) -> Currency:
    """Until the end of the transaction nobody else changes it, or refers to it anew."""
    return found(await session.get(Currency, code, with_for_update=True), UNKNOWN)


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
