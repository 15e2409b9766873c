"""`/regions`: how many countries each region has, computed from the countries."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select

from app.cache import cache
from app.countries.models import Country
from app.database import ReadSessionDep
from app.listing import ListQuery, Page, fetch_slice

router = APIRouter(prefix="/regions", tags=["regions"])


class Region(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    countries: int


@router.get("")
@cache(expire=300, stale=60, stale_if_error=3600, tags=["countries"], public=True)
async def list_regions(
    query: Annotated[ListQuery, Query()], session: ReadSessionDep
) -> Page[Region]:
    # A country outside all regions (Antarctica) counts nowhere.
    regions = (
        select(Country.region.label("name"), func.count().label("countries"))
        .where(Country.region.is_not(None))
        .group_by(Country.region)
        .order_by(Country.region)
    )
    rows, total = await fetch_slice(session, regions, query)
    return Page[Region].of(rows, total, query)
