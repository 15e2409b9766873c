"""What a cached endpoint or function promises: how long, invalidated by what, shared with whom.

A `Policy` is one value, made by the decorator when the module is imported and checked there, so
that a wrong number is an error that names the endpoint before the first request.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from string import Formatter
from typing import Any

from app.cache.keys import digest
from app.cache.values import text_of, value_at

MAX_LIFE_SECONDS = 30 * 86_400
MAX_TAG_CHARS = 200


class PolicyError(ValueError):
    """A cache policy that cannot be kept; the message names the function and what is allowed."""


class UntoldWrite(PolicyError):
    """A write of which nobody knows what it changes; the message names the line to add."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name that an entry depends on, and that a write invalidates.

    `country:{alpha_2}` is a template. Each entry under a template also carries its family,
    `country:*`, so that a bulk statement, which does not say which rows it touches, can
    invalidate them all. An entry for no value in particular (a list by any author) carries
    `author:?` instead, which the write of each row invalidates too.
    """

    text: str
    fields: tuple[str, ...] = ()
    form: str = ""
    """The text with `{}` for each field."""
    manual: bool = False
    """Whether no model declares it, so that only code of the service ends it."""

    @classmethod
    def parse(cls, text: str, *, manual: bool = False) -> "Tag":
        """Raises ValueError unless `text` is a name with plain `{field}` placeholders, or
        `{user.id}` for an attribute."""
        if not isinstance(text, str) or not text or len(text) > MAX_TAG_CHARS:
            raise ValueError(f"a tag is a text of 1 to {MAX_TAG_CHARS} characters, not {text!r}")
        if text == EVERYTHING:
            raise ValueError(f"the tag {text!r} is on everything: name what the entry depends on")
        fields, form = [], ""
        for literal, field, spec, conversion in Formatter().parse(text):
            form += literal.replace("{", "{{").replace("}", "}}")
            if field is None:
                continue
            if spec or conversion or not all(part.isidentifier() for part in field.split(".")):
                raise ValueError(f"tag {text!r}: a placeholder is a name, such as " + "{code}")
            fields.append(field)
            form += "{}"
        return cls(text, tuple(fields), form, manual)

    @property
    def family(self) -> str:
        """The tag that stands for every value of the template; the tag itself without one."""
        return self._with("*") if self.fields else self.text

    def render(self, values: Mapping[str, object]) -> str:
        """The tag for these values; `author:?` if one of them is none in particular.

        Raises KeyError or AttributeError when one is missing.
        """
        if not self.fields:
            return self.text
        texts = [text_of(value_at(values, field)) for field in self.fields]
        if None in texts:
            return self.any
        name = self.form.format(*texts)
        # Clients choose the values: the name of a key stays short and readable, whatever they are.
        if len(name) <= MAX_TAG_CHARS and name.isprintable():
            return name
        return f"{self.family}:{digest([name.encode(errors='surrogateescape')])}"

    def names(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """What an entry made from these values depends on."""
        return (self.render(values), self.family) if self.fields else (self.text,)

    def changed(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """What the write of a row with these values invalidates."""
        return (self.render(values), self.any) if self.fields else (self.text,)

    @property
    def any(self) -> str:
        """The tag of entries for no value in particular."""
        return self._with("?")

    def _with(self, placeholder: str) -> str:
        return self.form.format(*[placeholder] * len(self.fields))


# Each entry depends on it: what ends it ends all of them.
EVERYTHING = "*"
# Those of all decorated functions: whoever invalidates one may not have the function at hand.
manual_tags: set[Tag] = set()


def table_tag(table: str) -> str:
    """The tag that any change to a table ends; `schema.name` outside the default schema."""
    return f"table:{table}"


@dataclass(frozen=True, slots=True)
class Policy:
    """See `app.cache.cache` for the meaning of each field. Times are in seconds."""

    expire: float
    stale: float = 0
    stale_if_error: float = 0
    tags: tuple[Tag, ...] = ()
    vary: tuple[str, ...] = ()
    public: bool = False
    guard: Callable[..., Any] | None = None
    per_user: bool = False
    browser: str = "no-cache"
    expire_not_found: float = 0
    local: float = 0
    reads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("expire", "stale", "stale_if_error", "expire_not_found", "local"):
            self._check_seconds(name, getattr(self, name))
        if self.per_user and self.guard is None:
            raise ValueError("per_user=True needs guard=, the dependency that returns the user")
        if self.per_user and self.public:
            raise ValueError("per_user=True and public=True exclude each other")
        if "*" in self.vary:
            raise ValueError("vary=('*',) can never be a hit: name the headers, or use expire=0")
        if any(not name.isascii() or name != name.lower() or " " in name for name in self.vary):
            raise ValueError(f"vary takes header names in lower case, not {self.vary!r}")

    @staticmethod
    def _check_seconds(name: str, value: object) -> None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not 0 <= value <= MAX_LIFE_SECONDS:  # type: ignore[operator]
            raise ValueError(f"{name} is {value!r}: allowed are 0 to {MAX_LIFE_SECONDS} seconds")

    @property
    def enabled(self) -> bool:
        return self.expire > 0

    @property
    def http_options(self) -> list[str]:
        """The options that are set here and say nothing to a function that is called."""
        names = ("vary", "public", "guard", "per_user", "browser", "expire_not_found")
        return [name for name in names if getattr(self, name) != _DEFAULTS[name]]

    @property
    def families(self) -> frozenset[str]:
        return frozenset(tag.family for tag in self.tags)

    def tag_names(self, values: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(name for tag in self.tags for name in tag.names(values))


_DEFAULTS = {field.name: field.default for field in fields(Policy)}
