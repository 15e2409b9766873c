"""What only a value shows to be unsafe is an error in development, and uncached in production."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, Header

from app.cache import cache
from app.main import create_app
from tests.clients import cache_status, make_settings, serving


class Account:
    def __init__(self, name: str) -> None:
        self.name = name


async def account(x_user: Annotated[str, Header()]) -> Any:
    return Account(x_user)


@cache(60, guard=account, per_user=True)
async def profile(user: Annotated[Any, Depends(account)]) -> str:
    return str(user.name)


@pytest.mark.parametrize("environment", ["local", "test"])
async def test_a_user_without_identity_is_an_error_in_development(
    environment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(make_settings(environment=environment, cache_url="memory://"))
    app.get("/profile")(profile)
    async with serving(app=app) as client:
        answer = await client.get("/profile", headers={"x-user": "anna"})
    assert answer.status_code == 500
    logged = capsys.readouterr()
    assert "what the guard account returned: 'identity' is a Account" in logged.out + logged.err


async def test_a_user_without_identity_is_answered_uncached_in_production() -> None:
    settings = make_settings(
        environment="production",
        cache_url="memory://",
        database_url="postgresql+asyncpg://app:a-password-of-one-service@localhost/app",
    )
    app = create_app(settings)
    app.get("/profile")(profile)
    async with serving(app=app) as client:
        for _ in range(2):
            for name in ("anna", "bob"):
                answer = await client.get("/profile", headers={"x-user": name})
                assert (answer.status_code, answer.json()) == (200, name)
                assert cache_status(answer) == "fwd=bypass"
        page = (await client.get("/metrics")).text
    assert 'cache_events_total{event="refused",label="identity"}' in page
