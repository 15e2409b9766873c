"""Who may write: whoever sends `Authorization: Bearer $API_TOKEN`."""

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
    given = credentials.credentials if credentials else ""
    # On bytes: compare_digest refuses text that is not ASCII.
    if not secrets.compare_digest(given.encode(), settings.api_token.get_secret_value().encode()):
        raise HTTPException(
            status.HTTP_401_UNAUTHORIZED,
            "Writing needs the header Authorization: Bearer <API_TOKEN>.",
            headers={"WWW-Authenticate": "Bearer"},
        )


token_required = Depends(require_token)
