"""The service as it is measured: with two routes more, which no product needs.

The list of countries once without a cache, to compare a miss with, and once per user. They are
added before startup, so that the cache analyses them like any other route.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Query

from app.cache import cache
from app.countries import repository
from app.countries.schemas import CountryQuery, CountryRead
from app.database import ReadSession, ReadSessionDep
from app.listing import Page
from app.main import create_app as create_service

router = APIRouter(prefix="/benchmark")


async def current_user(authorization: Annotated[str, Header()]) -> str:
    return authorization


@router.get("/uncached")
@cache(expire=0)
async def uncached_countries(
    query: Annotated[CountryQuery, Query()], session: ReadSessionDep
) -> Page[CountryRead]:
    return await _page(query, session)


@router.get("/per-user", dependencies=[Depends(current_user)])
@cache(expire=300, stale=60, tags=["countries"], guard=current_user, per_user=True)
async def countries_per_user(
    query: Annotated[CountryQuery, Query()], session: ReadSessionDep
) -> Page[CountryRead]:
    return await _page(query, session)


async def _page(query: CountryQuery, session: ReadSession) -> Page[CountryRead]:
    rows, total = await repository.find(session, query)
    return Page[CountryRead].of(rows, total, query)


def create_app() -> FastAPI:
    app = create_service()
    app.include_router(router)
    return app


app = create_app()
