"""`/regions`: how many countries each region has, computed from the countries."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.cache import cache
from app.countries.regions import repository
from app.countries.regions.schemas import RegionRead
from app.database import ReadSessionDep
from app.listing import ListQuery, Page

router = APIRouter(prefix="/regions", tags=["regions"])


@router.get("")
@cache(expire=300, stale=60, stale_if_error=3600, tags=["countries"], public=True)
async def list_regions(
    query: Annotated[ListQuery, Query()], session: ReadSessionDep
) -> Page[RegionRead]:
    rows, total = await repository.find(session, query)
    return Page[RegionRead].of(rows, total, query)
