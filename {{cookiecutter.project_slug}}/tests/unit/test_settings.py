"""What a configuration may be, and that each variable is written down."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import make_url

from app.settings import DEVELOPMENT_SECRET, Settings

SERVICE = Path(__file__).parents[2]
GOOD_URL = "postgresql+asyncpg://app:s3cret@db/app"
VARIABLE = re.compile(r"^([A-Z_]+)=(.*)$", re.MULTILINE)


def documented() -> dict[str, str]:
    return dict(VARIABLE.findall((SERVICE / ".env.example").read_text("utf-8")))


def test_every_setting_is_in_env_example_and_nothing_else_is() -> None:
    assert set(documented()) == {name.upper() for name in Settings.model_fields}


def test_env_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings()
    for name, value in documented().items():
        if name != "SERVICE_NAME":  # the one that a project is generated with
            monkeypatch.setenv(name, value)
    assert Settings() == default


def test_production_refuses_the_default_token() -> None:
    with pytest.raises(ValidationError, match=r"(?s)api_token.*secrets.token_urlsafe"):
        Settings(environment="production", database_url=GOOD_URL)


def test_production_refuses_the_default_database_password() -> None:
    with pytest.raises(ValidationError, match=r"(?s)database_url.*default password"):
        Settings(
            environment="production",
            api_token="9Xb",
            database_url=f"postgresql://app:{DEVELOPMENT_SECRET}@db/app",
        )


def test_production_starts_with_secrets_of_its_own() -> None:
    settings = Settings(environment="production", api_token="9Xb", database_url=GOOD_URL)
    assert settings.api_token.get_secret_value() == "9Xb"


def test_an_empty_token_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "")
    with pytest.raises(ValidationError, match="api_token"):
        Settings(environment="production", database_url=GOOD_URL)


def test_a_refused_start_says_which_variable_and_how_to_make_a_value() -> None:
    start = subprocess.run(
        [sys.executable, "-c", "import app.main"],
        cwd=SERVICE,
        env={"ENVIRONMENT": "production"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert start.returncode == 1
    assert "API_TOKEN: is not set" in start.stderr
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
    settings = Settings(api_token="9Xb", database_url=GOOD_URL)
    assert "9Xb" not in repr(settings)
    assert "s3cret" not in repr(settings)
    with pytest.raises(ValidationError) as refused:
        Settings(environment="production", database_url="mysql://app:s3cret@db/app")
    assert "s3cret" not in str(refused.value)


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, https://b.example")
    assert Settings().cors_origins == ("https://a.example", "https://b.example")
