"""What a backend does for the cache: one read, one miss protocol, one write protocol.

Per tag a backend holds a *generation*, a random token, and *holders*, writers in progress with a
deadline each. An entry is valid while every generation recorded in it is the current one.
Of generations by tag, None stands for "not all of them exist", and None never matches. Every entry
has at least one tag: what had none could not be invalidated. docs/consistency.md has the protocol
and its proof.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from app.cache.entry import Entry

Generations: TypeAlias = Mapping[str, bytes]

# What one request may lose to a cache that does not answer, over all its calls (promise P4).
REQUEST_BUDGET_SECONDS = 0.09
# A generation lives so long, and then for as long as the last entry that was stored with it: a
# client that asks for what does not exist leaves nothing behind for long.
GENERATION_SECONDS = 120
# A writer that is killed between COMMIT and release keeps its tags uncached for this long.
HOLD_SECONDS = 30
# A process that is killed while it computes keeps others waiting for this long.
LOCK_SECONDS = 3


class Found(NamedTuple):
    """What there is. Who reads at the same time may be handed the same object."""

    entry: Entry | None
    generations: Generations | None
    """Those of all tags that were asked for, and maybe of more."""
    valid: bool = False
    """Whether the generations of the entry are the current ones."""


class Begun(NamedTuple):
    """What a computation starts from."""

    generations: Generations | None
    owner: bool
    """Whether nobody else, in any process, computes this under the same generations."""
    entry: Entry | None
    """What is stored by now: somebody may have landed since this one's lookup."""


class CacheUnavailable(Exception):
    """The cache cannot be reached, or has not answered in time. The service goes on without it."""


class UnsupportedServer(CacheUnavailable):
    """The server cannot be used as it is set up: the service should not start with it."""


class Backend(Protocol):
    """Every method but `aclose` may raise CacheUnavailable, and none raises anything else."""

    @property
    def warnings(self) -> Sequence[str]:
        """What is promised and cannot be kept with this server, in words."""

    def read(self, key: str, tags: Sequence[str], local: float = 0) -> Awaitable[Found]:
        """The entry under the key, and the generations of these tags.

        An entry may depend on other tags than these. It is valid when each of its generations was
        the current one at some moment after the call.

        With `local`, one that this process took at most so many seconds ago, if it knows of no
        invalidation since: see local.py.
        """

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        """Before a computation: the generations, and whether the lock of the key is the token's.

        A lock taken under another generation is void: what its owner computes is outdated.
        Missing generations are created, unless a writer holds the tag: then they are None, and what
        is computed may be served but not stored.
        """

    async def store(
        self, key: str, tags: Sequence[str], entry: Entry, seconds: float, token: str = ""
    ) -> None:
        """Keeps the entry, and the generations of its tags, for at least so long.

        Gives up the lock as well, which is beside the first of `tags`, if the token has it.
        """

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        """Keeps the lock for another LOCK_SECONDS, if the token still has it."""

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None: ...

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        """Before COMMIT: until the release these tags have no generation, nor is one made."""

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        """After COMMIT (`changed`) or rollback: ends the hold, and once more the generations."""

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...
