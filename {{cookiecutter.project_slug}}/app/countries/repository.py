"""All SQL about countries."""

from pydantic import MISSING
from sqlalchemy import or_, select
from sqlalchemy.orm import selectinload

from app.countries.models import Country, country_currencies
from app.countries.schemas import CountryCreate, CountryQuery, CountryUpdate
from app.currencies.models import Currency
from app.database import ReadSession, WriteSession
from app.errors import Invalid, found
from app.listing import PageRows, ShownRow, fetch_page

UNKNOWN = "There is no such country."

# Reads take columns. Entities are for writes: to make them takes longer than the query.
_shown = select(
    Country.alpha_2,
    Country.alpha_3,
    Country.numeric,
    Country.name,
    Country.official_name,
    Country.region,
    Country.subregion,
    Country.currency_codes,
    Country.version,
)


async def find(session: ReadSession, query: CountryQuery) -> PageRows:
    matching = _shown
    if query.region is not None:
        matching = matching.where(Country.region == query.region)
    if query.subregion is not None:
        matching = matching.where(Country.subregion == query.subregion)
    if query.currency is not None:
        users = select(country_currencies.c.country_alpha_2).where(
            country_currencies.c.currency_code == query.currency
        )
        matching = matching.where(Country.alpha_2.in_(users))
    # Reads every row, on purpose. The index for it is a trigram one, of the extension pg_trgm: it
    # has no use for hundreds of rows.
    if query.q is not None:
        matching = matching.where(
            or_(
                Country.name.icontains(query.q, autoescape=True),
                Country.official_name.icontains(query.q, autoescape=True),
            )
        )
    return await fetch_page(session, matching, query, key=Country.alpha_2)


async def get(session: ReadSession, alpha_2: str) -> ShownRow:
    rows = await session.execute(_shown.where(Country.alpha_2 == alpha_2))
    return found(rows.one_or_none(), UNKNOWN)


async def lock(session: WriteSession, alpha_2: str) -> Country:
    """Until the end of the transaction nobody else changes it."""
    currencies = selectinload(Country.currencies)  # after the lock, so that they are of now
    country = await session.get(Country, alpha_2, options=[currencies], with_for_update=True)
    return found(country, UNKNOWN)


async def create(session: WriteSession, values: CountryCreate) -> Country:
    country = Country(
        **values.model_dump(exclude={"currencies"}),
        currencies=await _currencies(session, values.currencies),
    )
    session.add(country)
    await session.flush()
    return country


async def update(session: WriteSession, country: Country, changes: CountryUpdate) -> None:
    for field, value in changes.model_dump(exclude={"currencies"}, exclude_unset=True).items():
        setattr(country, field, value)
    if changes.currencies is not MISSING:
        country.currencies = await _currencies(session, changes.currencies)
        country.touch()
    await session.flush()


async def delete(session: WriteSession, country: Country) -> None:
    await session.delete(country)
    await session.flush()


async def _currencies(session: WriteSession, codes: set[str]) -> list[Currency]:
    # FOR KEY SHARE: none of them can be deleted before this transaction ends.
    locked = (
        select(Currency)
        .where(Currency.code.in_(codes))
        .order_by(Currency.code)
        .with_for_update(read=True, key_share=True)
    )
    currencies = list(await session.scalars(locked))
    if unknown := sorted(codes - {currency.code for currency in currencies}):
        raise Invalid("currencies", f"unknown: {', '.join(unknown)}")
    return currencies
