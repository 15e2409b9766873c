"""The service as it is measured: with routes more, which no product needs.

The list of countries once without a cache, to compare a miss with, once from the local tier, and
once per user; and how many requests the cache could not answer. They are added before startup, so
that the cache analyses them like any other route.
"""

import gc
from typing import Annotated

from app.cache import cache
from app.countries import repository
from app.countries.schemas import CountryQuery, CountryRead
from app.database import ReadSession, ReadSessionDep
from app.listing import Page
from app.main import create_app as create_service
from app.metrics import EVENTS
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request

router = APIRouter(prefix="/benchmark")


async def current_user(authorization: Annotated[str, Header()]) -> str:
    return authorization


@router.get("/uncached")
@cache(expire=0)
async def uncached_countries(
    query: Annotated[CountryQuery, Query()], session: ReadSessionDep
) -> Page[CountryRead]:
    return await _page(query, session)


@router.get("/local")
@cache(expire=300, stale=60, tags=["countries"], public=True, local=60)
async def countries_without_a_question(
    query: Annotated[CountryQuery, Query()], session: ReadSessionDep
) -> Page[CountryRead]:
    return await _page(query, session)


@router.get("/per-user", dependencies=[Depends(current_user)])
@cache(expire=300, stale=60, tags=["countries"], guard=current_user, per_user=True)
async def countries_per_user(
    query: Annotated[CountryQuery, Query()], session: ReadSessionDep
) -> Page[CountryRead]:
    return await _page(query, session)


@router.get("/computed")
async def computed(request: Request) -> int:
    """Misses of this process, those that joined the computation of another included."""
    request.state.cache.recorder.flush()
    samples = [sample for metric in EVENTS.collect() for sample in metric.samples]
    return int(
        sum(
            sample.value
            for sample in samples
            if sample.name.endswith("_total") and sample.labels["event"] == "miss"
        )
    )


async def _page(query: CountryQuery, session: ReadSession) -> Page[CountryRead]:
    rows, total = await repository.find(session, query)
    return Page[CountryRead].of(rows, total, query)


def create_app() -> FastAPI:
    app = create_service()
    app.include_router(router)
    return app


app = create_app()
gc.freeze()  # as app.main does: another application than the one that was frozen there
