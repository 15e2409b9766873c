"""Writing needs the token."""

from collections.abc import AsyncIterator

import pytest

from app.main import create_app
from app.security import token_required
from app.settings import DEVELOPMENT_SECRET, Settings
from tests.clients import AUTHORIZED, TOKEN, Client, make_settings, serving


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    app = create_app(settings)

    @app.post("/write", dependencies=[token_required])
    async def write() -> str:
        return "written"

    async with serving(app=app) as client:
        yield client


async def test_without_a_token_nobody_may_write() -> None:
    app = create_app(make_settings(api_token=None))

    @app.post("/write", dependencies=[token_required])
    async def write() -> str:
        return "written"

    async with serving(app=app) as client:
        for token in ("", DEVELOPMENT_SECRET, "None"):
            response = await client.post("/write", headers={"Authorization": f"Bearer {token}"})
            assert response.status_code == 401
            assert response.json()["detail"] == "Nobody may write: the service has no API_TOKEN."


async def test_whoever_has_the_token_may_write(client: Client) -> None:
    assert (await client.post("/write", headers=AUTHORIZED)).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer wörd",
    ],
)
async def test_whoever_has_not_is_told_how(client: Client, authorization: str | None) -> None:
    # As bytes: a client may send what is not ASCII.
    headers = [] if authorization is None else [(b"Authorization", authorization.encode())]
    response = await client.post("/write", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Content-Type"] == "application/problem+json"
