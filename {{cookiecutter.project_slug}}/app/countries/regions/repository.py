"""All SQL about regions."""

from sqlalchemy import func, select

from app.countries.models import Country
from app.database import ReadSession
from app.listing import ListQuery, PageRows, fetch_slice

# A country outside all regions (Antarctica) counts nowhere.
_shown = (
    select(Country.region.label("name"), func.count().label("countries"))
    .where(Country.region.is_not(None))
    .group_by(Country.region)
    .order_by(Country.region)
)


async def find(session: ReadSession, query: ListQuery) -> PageRows:
    return await fetch_slice(session, _shown, query)
