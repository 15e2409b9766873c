"""All SQL about countries."""

from collections.abc import Sequence

from pydantic import MISSING
from sqlalchemy import or_, select
from sqlalchemy.orm import selectinload

from app.countries.models import Country
from app.countries.schemas import CountryCreate, CountryQuery, CountryUpdate
from app.currencies.models import Currency
from app.database import ReadSession, WriteSession
from app.listing import fetch_page
from app.problems import invalid_body

_with_currencies = selectinload(Country.currencies)


async def find(session: ReadSession, query: CountryQuery) -> tuple[Sequence[Country], int]:
    matching = select(Country).options(_with_currencies)
    if query.region is not None:
        matching = matching.where(Country.region == query.region)
    if query.subregion is not None:
        matching = matching.where(Country.subregion == query.subregion)
    if query.currency is not None:
        matching = matching.where(Country.currencies.any(Currency.code == query.currency))
    if query.q is not None:
        matching = matching.where(
            or_(
                Country.name.icontains(query.q, autoescape=True),
                Country.official_name.icontains(query.q, autoescape=True),
            )
        )
    return await fetch_page(session, matching, query, key=Country.alpha_2)


async def get(session: ReadSession, alpha_2: str) -> Country | None:
    return await session.get(Country, alpha_2, options=[_with_currencies])


async def lock(session: WriteSession, alpha_2: str) -> Country | None:
    """Until the end of the transaction nobody else changes it."""
    return await session.get(Country, alpha_2, options=[_with_currencies], with_for_update=True)


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
        raise invalid_body("currencies", f"unknown: {', '.join(unknown)}")
    return currencies
