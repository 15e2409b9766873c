"""`/countries`: lists and details are cached, and every write makes the cache true again."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.cache import cache
from app.countries import repository
from app.countries.schemas import Alpha2, CountryCreate, CountryQuery, CountryRead, CountryUpdate
from app.database import ReadSessionDep, WriteSessionDep
from app.etags import IfMatch, etag, require_match
from app.listing import Page
from app.security import token_required

router = APIRouter(prefix="/countries", tags=["countries"])


@router.get("")
@cache(expire=300, stale=60, stale_if_error=3600, tags=["countries"], public=True)
async def list_countries(
    query: Annotated[CountryQuery, Query()], session: ReadSessionDep
) -> Page[CountryRead]:
    rows, total = await repository.find(session, query)
    return Page[CountryRead].of(rows, total, query)


@router.get("/{alpha_2}")
@cache(expire=300, stale=60, stale_if_error=3600, tags=["country:{alpha_2}"], public=True)
async def read_country(alpha_2: Alpha2, session: ReadSessionDep, response: Response) -> CountryRead:
    country = await repository.get(session, alpha_2)
    response.headers["ETag"] = etag(country.version)
    return CountryRead.model_validate(country)


@router.post(
    "",
    status_code=201,
    dependencies=[token_required],
    responses={409: {"description": "One of its codes, or its name, is taken."}},
)
async def create_country(
    values: CountryCreate, session: WriteSessionDep, request: Request, response: Response
) -> CountryRead:
    country = await repository.create(session, values)
    response.headers["Location"] = request.url_for("read_country", alpha_2=country.alpha_2).path
    response.headers["ETag"] = etag(country.version)
    return CountryRead.model_validate(country)


@router.patch(
    "/{alpha_2}",
    dependencies=[token_required],
    responses={409: {"description": "One of its codes, or its name, is taken."}},
)
async def update_country(
    alpha_2: Alpha2,
    changes: CountryUpdate,
    session: WriteSessionDep,
    response: Response,
    if_match: IfMatch = None,
) -> CountryRead:
    country = await repository.lock(session, alpha_2)
    require_match(if_match, country.version)
    await repository.update(session, country, changes)
    response.headers["ETag"] = etag(country.version)
    return CountryRead.model_validate(country)


@router.delete(
    "/{alpha_2}", status_code=204, response_class=Response, dependencies=[token_required]
)
async def delete_country(
    alpha_2: Alpha2, session: WriteSessionDep, if_match: IfMatch = None
) -> None:
    country = await repository.lock(session, alpha_2)
    require_match(if_match, country.version)
    await repository.delete(session, country)
