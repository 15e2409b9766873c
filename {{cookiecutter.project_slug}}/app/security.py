"""Who may write: whoever sends `Authorization: Bearer $API_TOKEN`; without a token, nobody."""

import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Request, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.settings import Settings

_bearer = HTTPBearer(auto_error=False, description="The value of `API_TOKEN`.")


async def require_token(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    settings: Settings = request.state.settings
    if settings.api_token is None:
        raise _unauthorized("Nobody may write: the service has no API_TOKEN.")
    given = credentials.credentials if credentials else ""
    # On bytes: compare_digest refuses text that is not ASCII.
    if not secrets.compare_digest(given.encode(), settings.api_token.get_secret_value().encode()):
        raise _unauthorized("Writing needs the header Authorization: Bearer <API_TOKEN>.")


def _unauthorized(detail: str) -> HTTPException:
    headers = {"WWW-Authenticate": "Bearer"}
    return HTTPException(status.HTTP_401_UNAUTHORIZED, detail, headers)


token_required = Depends(require_token)
