"""Every setting of the service, with its type and its default.

Values come from the environment, else from a file `.env` (see `.env.example`). A service that is
not configured as it should be does not start: the message names the variable and what to do.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

# Of the token and of the database, as in compose.yaml. Everybody knows it.
DEVELOPMENT_SECRET = "local-development-only"
MAKE_A_SECRET = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


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
    service_name: str = Field(default="service", pattern=r"^[a-z][a-z0-9-]*$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    database_url: str = Field(
        default=f"postgresql+asyncpg://app:{DEVELOPMENT_SECRET}@localhost:5432/app",
        repr=False,
    )
    database_pool_size: int = Field(default=10, ge=1)
    database_timeout_seconds: float = Field(default=10, gt=0)

    cache_url: str = Field(default="memory://", repr=False)
    cache_strict_writes: bool = False
    cache_client_may_bypass: bool = False
    cache_listen: bool = False

    api_token: SecretStr = SecretStr(DEVELOPMENT_SECRET)
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
            raise SystemExit("\n".join(["The service is not configured:", *problems])) from None

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

    @field_validator("api_token")
    @classmethod
    def _check_api_token(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if _in_production(info) and value.get_secret_value() == DEVELOPMENT_SECRET:
            raise ValueError(
                "is not set, or is the default, which everybody knows."
                f" Make one with: {MAKE_A_SECRET}"
            )
        return value


def _in_production(info: ValidationInfo) -> bool:
    return info.data.get("environment") == "production"
