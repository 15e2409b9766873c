"""The cached results of one function: keys of bound arguments, results as JSON through Pydantic.

A caller is given what is read back, on a miss as on a hit. So what is read back must be what was
computed: each result is compared before it is stored.
"""

import functools
import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from app.cache.context import active_cache
from app.cache.flights import Miss
from app.cache.identity import argument_parts, fields_of, function_parts, state_of
from app.cache.keys import digest
from app.cache.policy import EVERYTHING, Policy, PolicyError
from app.cache.reads import Learned
from app.cache.store import Computed

# What JSON can hold only by agreement. Models and dataclasses have a configuration of their own.
_CONFIG = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")

_WHERE_TO_CALL = (
    "call it inside `async with open_cache(…)`, or in a request to an application whose lifespan "
    "did so and whose requests pass CacheMiddleware"
)
_NOTHING = object()
# Of the first result of a type, so many items are compared field by field, the others by `==`.
THOROUGH_ITEMS = 100

log = logging.getLogger("app.cache")


class ResultError(TypeError):
    """A result that cannot be stored so that it is read back as it was."""


class Results:
    """What `@cache` does to an async function that is called."""

    def __init__(self, function: Callable[..., Any], name: str, policy: Policy) -> None:
        self._function, self.name, self._policy = function, name, policy
        self._signature = inspect.signature(function)
        self._learned = Learned(name, policy)
        self._known: set[type] = set()
        self._warned = False

    async def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = active_cache.get(None)
        if cache is None:
            self._warn_uncached()
            return await self._function(*args, **kwargs)
        key, tags = self._address(args, kwargs)
        made: Any = _NOTHING
        stored: tuple[bytes, Any] | None = None

        async def compute() -> Computed:
            nonlocal made, stored
            if problems := [*cache.coverage.problems(self._policy)]:
                raise PolicyError(f"@cache on {self.name}: " + "; ".join(problems))
            made = await self._function(*args, **kwargs)
            stored = self._dump(made)
            return Computed(stored[0])

        try:
            payload = await cache.fetch(Miss(key, tags, self._policy, self._learned, compute))
        except (PolicyError, ResultError) as error:
            reason = "result" if isinstance(error, ResultError) else "policy"
            cache.refuse(reason, self.name, error)
            return made if made is not _NOTHING else await self._function(*args, **kwargs)
        if stored is not None and payload is stored[0]:
            return stored[1]
        try:
            return self._load(payload)
        except ValidationError:  # what was valid is no more, such as a date in the future
            cache.recorder.count("error", "result")
            return await self._function(*args, **kwargs)

    async def invalidate(self, *args: Any, **kwargs: Any) -> None:
        _, tags = self._address(args, kwargs)
        cache = active_cache.get(None)
        if cache is None:
            raise RuntimeError(f"{self.name}.invalidate: no cache is open here: {_WHERE_TO_CALL}")
        await cache.invalidate(tags[0])

    def _warn_uncached(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning("%s is not cached: no cache is open here: %s", self.name, _WHERE_TO_CALL)

    def _address(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, tuple[str, ...]]:
        """The key, and the tags: first the one that stands for these arguments alone."""
        prefix = self._prefix
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        parts: list[bytes] = []
        try:
            for name, value in bound.arguments.items():
                parts += [name.encode(), digest(argument_parts(name, value)).encode()]
        except TypeError as error:
            raise TypeError(f"@cache on {self.name}: argument {error}") from None
        arguments = digest(parts)
        own = f"{self.name}:{arguments}"  # in all builds, unlike the key
        declared = self._policy.tag_names(bound.arguments)
        return f"{prefix}:{arguments}", (own, *declared, *self._learned.tags, EVERYTHING)

    @functools.cached_property
    def _prefix(self) -> str:
        """Function and schema build. Made at the first call, which is where a use that is not
        possible is refused."""
        if options := self._policy.http_options:
            raise PolicyError(
                f"@cache on {self.name}: {', '.join(options)} is for endpoints, and this is called "
                "as a function: leave it out, or move what both need into a function of its own"
            )
        try:
            function = digest(function_parts(self._function))
            schema = self._type.json_schema(mode="serialization")
        except TypeError as error:
            raise TypeError(f"@cache on {self.name}: {error}") from None
        except PydanticUserError as error:
            raise TypeError(f"@cache on {self.name}: {self._annotated}: {error}") from None
        text = f"{function}\n{json.dumps(schema, sort_keys=True)}"
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @functools.cached_property
    def _annotated(self) -> Any:
        hints = get_type_hints(self._function, include_extras=True)
        if "return" not in hints:
            raise TypeError("annotate what it returns")
        return hints["return"]

    @functools.cached_property
    def _type(self) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(self._annotated, config=_CONFIG)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(self._annotated)

    def _dump(self, result: Any) -> tuple[bytes, Any]:
        """The payload and what is read back from it. By names of fields, not by aliases, which need
        not be the same in both directions."""
        kind, where = type(result), None
        try:
            payload = self._type.dump_json(result, by_alias=False, round_trip=True, warnings=False)
            back = self._load(payload)
        except PydanticSerializationError as error:
            where = str(error)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            # Thoroughly for the first result of a type, as `==` may look at a part.
            if kind not in self._known or not _equal(back, result):
                where = difference(back, result)
        if where is not None:
            raise ResultError(
                f"@cache on {self.name}: it returned a {kind.__qualname__}, and as JSON it is not "
                f"read back as it was ({where}). Annotate the very type that it returns, with "
                "nothing excluded or secret and no serializer that loses something; for inf, nan "
                "and bytes set ser_json_inf_nan and val_json_bytes in the model's configuration"
            )
        self._known.add(kind)
        return payload, back

    def _load(self, payload: bytes) -> Any:
        return self._type.validate_json(payload, by_alias=False, by_name=True)


def difference(back: Any, made: Any, where: str = "the result") -> str | None:
    """Where what is read back is not what was made; None when all of it is."""
    kind: Any = type(made)
    one: dict[Any, Any]
    other: dict[Any, Any]
    if fields_of(made) is not None or kind.__eq__ is object.__eq__:
        if type(back) is not kind:
            return f"{where}: a {kind.__qualname__} became a {type(back).__qualname__}"
        one, other = state_of(back), state_of(made)
    elif isinstance(made, Mapping) and isinstance(back, Mapping):
        one, other = dict(back), dict(made)
    elif isinstance(made, list | tuple) and isinstance(made, list) is isinstance(back, list):
        one, other = dict(enumerate(back)), dict(enumerate(made))
    else:
        same = _equal(back, made) or (back != back and made != made)
        return None if same else f"{where}: another value"
    if one.keys() != other.keys():
        return f"{where}: not all of it"
    for place, name in enumerate(other):
        if place < THOROUGH_ITEMS or not _equal(one[name], other[name]):
            found = difference(one[name], other[name], f"{where}.{name}")
            if found is not None:
                return found
    return None


def _equal(one: Any, other: Any) -> bool:
    """`==`, with a short way for lists of models, which are slow to compare."""
    if isinstance(other, list) and isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(other, BaseModel):
        return type(one) is type(other) and _held(one) == _held(other)
    try:
        return bool(one == other)
    except Exception:  # an `==` of its own, as of arrays
        return False


def _held(model: BaseModel) -> tuple[Any, ...]:
    return model.__dict__, model.__pydantic_extra__, model.__pydantic_private__
