"""What a configuration may be, and that each variable is written down."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from app.settings import (
    DEVELOPMENT_SECRET,
    MIN_TOKEN_CHARACTERS,
    STARTUP_FAILURE,
    Settings,
    project_name,
)

SERVICE = Path(__file__).parents[2]
GOOD_URL = "postgresql+asyncpg://app:s3cret@db/app"
GOOD_TOKEN = "9Xb" * 11
CACHE_URL = "redis://cache/0"
VARIABLE = re.compile(r"^([A-Z_]+)=(.*)$", re.MULTILINE)


def documented() -> dict[str, str]:
    return dict(VARIABLE.findall((SERVICE / ".env.example").read_text("utf-8")))


def test_every_setting_is_in_env_example_and_nothing_else_is() -> None:
    assert set(documented()) == {name.upper() for name in Settings.model_fields}


def test_env_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings()
    for name, value in documented().items():
        monkeypatch.setenv(name, value)
    assert Settings() == default


def production(**values: str) -> Settings:
    good = {"database_url": GOOD_URL, "cache_url": CACHE_URL, "api_token": GOOD_TOKEN}
    return Settings(environment="production", **good | values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "   ",
        "x",
        "x" * (MIN_TOKEN_CHARACTERS - 1),
        "x".center(2 * MIN_TOKEN_CHARACTERS),
        DEVELOPMENT_SECRET,
        f" {DEVELOPMENT_SECRET}\n",
    ],
)
def test_production_refuses_a_token_that_can_be_guessed(token: str) -> None:
    with pytest.raises(ValidationError, match=r"(?s)api_token.*secrets.token_urlsafe"):
        production(api_token=token)


def test_production_refuses_to_be_without_a_token() -> None:
    with pytest.raises(ValidationError, match=r"api_token\n.*is not set"):
        Settings(environment="production", database_url=GOOD_URL, cache_url=CACHE_URL)


@pytest.mark.parametrize("environment", ["local", "test"])
def test_elsewhere_there_is_no_token_unless_it_is_set(
    environment: Literal["local", "test"],
) -> None:
    assert Settings(environment=environment).api_token is None
    assert Settings(environment=environment, api_token=" ").api_token is None


def test_spaces_around_a_token_are_no_part_of_it() -> None:
    # No header has them: such a token could never be sent.
    token = production(api_token=f" {GOOD_TOKEN}\n").api_token
    assert token is not None
    assert token.get_secret_value() == GOOD_TOKEN


def test_production_wants_to_be_told_where_the_cache_is() -> None:
    with pytest.raises(ValidationError, match=r"cache_url\n.*is not set: redis://"):
        production(cache_url="")
    assert production(cache_url="memory://").cache_url == "memory://"
    assert Settings().cache_url == "memory://"


def test_the_name_is_that_of_the_project_unless_another_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().service_name == project_name()
    monkeypatch.setenv("SERVICE_NAME", "a-second-deployment")
    assert Settings().service_name == "a-second-deployment"


def test_production_refuses_the_default_database_password() -> None:
    with pytest.raises(ValidationError, match=r"(?s)database_url.*default password"):
        production(database_url=f"postgresql://app:{DEVELOPMENT_SECRET}@db/app")


def test_a_refused_start_says_which_variable_and_how_to_make_a_value() -> None:
    start = subprocess.run(
        [sys.executable, "-c", "import app.main"],
        cwd=SERVICE,
        env={"ENVIRONMENT": "production"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert start.returncode == STARTUP_FAILURE
    assert "API_TOKEN: is not set" in start.stderr
    assert "CACHE_URL: is not set" in start.stderr
    assert "DATABASE_URL: has the default password" in start.stderr
    assert "secrets.token_urlsafe(32)" in start.stderr
    assert "Traceback" not in start.stderr


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgres_url_of_any_dialect_gets_the_asyncpg_driver(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://app:p%25w@db/app")
    assert settings.database_url == "postgresql+asyncpg://app:p%25w@db/app"
    assert make_url(settings.database_url).password == "p%w"


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://app@db/app", "postgresql://db:port/app"])
def test_anything_but_a_postgres_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="database_url"):
        Settings(database_url=url)


def test_secrets_are_not_printed() -> None:
    settings = Settings(api_token=GOOD_TOKEN, database_url=GOOD_URL)
    assert GOOD_TOKEN not in repr(settings)
    assert "s3cret" not in repr(settings)
    with pytest.raises(ValidationError) as refused:
        production(database_url="mysql://app:s3cret@db/app", api_token="sh0rt")
    assert "s3cret" not in str(refused.value)
    assert "sh0rt" not in str(refused.value)


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, https://b.example")
    assert Settings().cors_origins == ("https://a.example", "https://b.example")
