"""Every setting of the service, with its type and its default.

Values come from the environment, else from a file `.env` (see `.env.example`). A service that is
not configured as it should be does not start: the message names the variable and what to do.
"""

import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

# The password of the database in compose.yaml, and the token of `make run`. Everybody knows it.
DEVELOPMENT_SECRET = "local-development-only"
MAKE_A_SECRET = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
MIN_TOKEN_CHARACTERS = 32
# Uvicorn starts a worker that ends otherwise anew, for ever.
STARTUP_FAILURE = 3


def project_name() -> str:
    """From pyproject.toml, so that all processes agree on it: keys of the cache begin with it."""
    project = Path(__file__).parents[1] / "pyproject.toml"
    return str(tomllib.loads(project.read_text("utf-8"))["project"]["name"])


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    environment: Literal["local", "test", "production"] = "local"
    service_name: str = Field(default_factory=project_name, pattern=r"^[a-z][a-z0-9-]*$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    database_url: str = Field(
        default=f"postgresql+asyncpg://app:{DEVELOPMENT_SECRET}@localhost:5432/app",
        repr=False,
    )
    database_pool_size: int = Field(default=10, ge=1)
    database_timeout_seconds: float = Field(default=10, gt=0)

    cache_url: str = Field(default="", repr=False)
    cache_strict_writes: bool = False
    cache_client_may_bypass: bool = False
    cache_listen: bool = False

    api_token: SecretStr | None = None
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()

    @classmethod
    def load(cls) -> Self:
        """The settings of this process. Ends it with a readable message when they are not valid."""
        try:
            return cls()
        except ValidationError as error:
            problems = (
                f"  {'.'.join(map(str, item['loc'])).upper()}: "
                f"{item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_input=False)
            )
            sys.stderr.write("\n".join(["The service is not configured:", *problems, ""]))
            raise SystemExit(STARTUP_FAILURE) from None

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(origin.strip() for origin in value.split(",") if origin.strip())
        return value

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str, info: ValidationInfo) -> str:
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            raise ValueError("is not a URL: postgresql+asyncpg://user:password@host/name") from None
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise ValueError(
                "must be a PostgreSQL URL: postgresql+asyncpg://user:password@host/name"
            )
        if _in_production(info) and url.password == DEVELOPMENT_SECRET:
            raise ValueError(
                "has the default password, which everybody knows."
                f" Give the database user another one; make one with: {MAKE_A_SECRET}"
            )
        # Hosting platforms hand out postgres:// and postgresql://, which mean another driver.
        return url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    @field_validator("cache_url")
    @classmethod
    def _check_cache_url(cls, value: str, info: ValidationInfo) -> str:
        if not value and _in_production(info):
            raise ValueError(
                "is not set: redis://host:6379/0, rediss:// with TLS,"
                " or memory:// where one process is all there is"
            )
        return value or "memory://"

    @field_validator("api_token")
    @classmethod
    def _check_api_token(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        token = value.get_secret_value().strip() if value is not None else ""
        if _in_production(info):
            problem = ""
            if not token:
                problem = "is not set."
            elif token == DEVELOPMENT_SECRET:
                problem = "is the one of `make run`, which everybody knows."
            elif len(token) < MIN_TOKEN_CHARACTERS:
                problem = f"is shorter than {MIN_TOKEN_CHARACTERS} characters."
            if problem:
                raise ValueError(f"{problem} Make one with: {MAKE_A_SECRET}")
        return SecretStr(token) if token else None


def _in_production(info: ValidationInfo) -> bool:
    return info.data.get("environment") == "production"
