"""`/currencies`: lists and details are cached, and every write makes the cache true again."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.cache import cache
from app.currencies import repository
from app.currencies.schemas import (
    CurrencyCode,
    CurrencyCreate,
    CurrencyQuery,
    CurrencyRead,
    CurrencyUpdate,
)
from app.database import ReadSessionDep, WriteSessionDep
from app.etags import IfMatch, etag, require_match
from app.listing import Page
from app.security import token_required

router = APIRouter(prefix="/currencies", tags=["currencies"])


@router.get("")
@cache(expire=300, stale=60, stale_if_error=3600, tags=["currencies"], public=True)
async def list_currencies(
    query: Annotated[CurrencyQuery, Query()], session: ReadSessionDep
) -> Page[CurrencyRead]:
    rows, total = await repository.find(session, query)
    return Page[CurrencyRead].of(rows, total, query)


@router.get("/{code}")
@cache(expire=300, stale=60, stale_if_error=3600, tags=["currency:{code}"], public=True)
async def read_currency(
    code: CurrencyCode, session: ReadSessionDep, response: Response
) -> CurrencyRead:
    currency = await repository.get(session, code)
    response.headers["ETag"] = etag(currency.version)
    return CurrencyRead.model_validate(currency)


@router.post(
    "",
    status_code=201,
    dependencies=[token_required],
    responses={409: {"description": "Its code or number is taken."}},
)
async def create_currency(
    values: CurrencyCreate, session: WriteSessionDep, request: Request, response: Response
) -> CurrencyRead:
    currency = await repository.create(session, values)
    response.headers["Location"] = request.url_for("read_currency", code=currency.code).path
    response.headers["ETag"] = etag(currency.version)
    return CurrencyRead.model_validate(currency)


@router.patch(
    "/{code}",
    dependencies=[token_required],
    responses={409: {"description": "Its number is taken."}},
)
async def update_currency(
    code: CurrencyCode,
    changes: CurrencyUpdate,
    session: WriteSessionDep,
    response: Response,
    if_match: IfMatch = None,
) -> CurrencyRead:
    currency = await repository.lock(session, code)
    require_match(if_match, currency.version)
    await repository.update(session, currency, changes)
    response.headers["ETag"] = etag(currency.version)
    return CurrencyRead.model_validate(currency)


@router.delete(
    "/{code}",
    status_code=204,
    response_class=Response,
    dependencies=[token_required],
    responses={409: {"description": "A country uses it."}},
)
async def delete_currency(
    code: CurrencyCode, session: WriteSessionDep, if_match: IfMatch = None
) -> None:
    currency = await repository.lock(session, code)
    require_match(if_match, currency.version)
    await repository.delete(session, currency)
