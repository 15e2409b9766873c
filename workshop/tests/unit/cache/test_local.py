"""When the local tier answers without a question, and when not, with the clocks in our hands."""

import pytest

from app.cache.backends.base import Found
from app.cache.backends.redis.local import PROOF_SECONDS, Copy, LocalTier
from app.cache.entry import GENERATION_BYTES, Entry

LOCAL_SECONDS, EXPIRE_SECONDS = 10, 60
TRACKED = "s:g:"
NAMES = ("s:e:key", "s:g:{countries}", "s:g:{country:FR}")
OTHER = ("s:e:other", "s:g:{currencies}")


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Tier(LocalTier):
    """With clocks that stand still."""

    def __init__(self) -> None:
        self.wall, self.life = Clock(1_800_000_000), Clock(1000)
        super().__init__(clock=self.wall, monotonic=self.life)
        self.tracks = True

    def put(self, names: tuple[str, ...], generation: bytes = b"1") -> Found:
        """An entry that Redis has just answered with, whose generations are all this one."""
        tags = [name.removeprefix(TRACKED)[1:-1] for name in names[1:]]
        fresh = int((self.wall.now + EXPIRE_SECONDS) * 1000)
        generations = dict.fromkeys(tags, generation * GENERATION_BYTES)
        copy = Copy(Entry(0, fresh, fresh, fresh, 0, generations, b"body"), TRACKED)
        self.keep(names[0], copy)
        return copy.found

    def settle(self, names: tuple[str, ...] = NAMES, generation: bytes = b"1") -> Found:
        found = self.put(names, generation)
        self.allow(names[0], found, LOCAL_SECONDS)
        return found

    def live(self, seconds: float, *, proven: bool = True) -> None:
        self.life.now += seconds
        self.wall.now += seconds
        if proven:
            self.answered(self.life.now)


@pytest.fixture
def tier() -> Tier:
    """A moment after Redis has answered a command."""
    tier = Tier()
    tier.answered(tier.life.now)
    return tier


def test_what_redis_has_just_said_is_said_again_without_it(tier: Tier) -> None:
    found = tier.settle()
    assert tier.get(NAMES[0]) is found


def test_a_copy_alone_is_no_hit(tier: Tier) -> None:
    tier.put(NAMES)
    assert tier.get(NAMES[0]) is None


def test_there_is_no_hit_before_the_first_proof() -> None:
    tier = Tier()
    tier.settle()
    assert tier.get(NAMES[0]) is None


def test_a_proof_lasts_from_when_the_command_was_sent(tier: Tier) -> None:
    tier.settle()
    sent = tier.life.now
    tier.live(PROOF_SECONDS / 2, proven=False)
    tier.answered(sent)  # answered only now
    tier.live(PROOF_SECONDS / 2 - 0.01, proven=False)
    assert tier.get(NAMES[0]) is not None
    tier.live(0.02, proven=False)
    assert tier.get(NAMES[0]) is None
    tier.answered(tier.life.now)
    assert tier.get(NAMES[0]) is not None


def test_a_proof_is_wanted_when_half_of_it_is_over(tier: Tier) -> None:
    assert not tier.wants_proof
    tier.live(PROOF_SECONDS / 2 - 0.01, proven=False)
    assert not tier.wants_proof
    tier.live(0.02, proven=False)
    assert tier.wants_proof


def test_there_is_no_hit_after_the_seconds_of_the_policy(tier: Tier) -> None:
    tier.settle()
    tier.live(LOCAL_SECONDS - 0.01)
    assert tier.get(NAMES[0]) is not None
    tier.live(0.02)
    assert tier.get(NAMES[0]) is None


def test_an_answer_of_redis_begins_the_seconds_anew(tier: Tier) -> None:
    found = tier.settle()
    tier.live(LOCAL_SECONDS + 1)
    tier.allow(NAMES[0], found, LOCAL_SECONDS)
    assert tier.get(NAMES[0]) is found


def test_there_is_no_hit_once_the_entry_is_not_fresh(tier: Tier) -> None:
    found = tier.put(NAMES)
    tier.wall.now += EXPIRE_SECONDS - 1  # it is some time since it was stored, perhaps elsewhere
    tier.allow(NAMES[0], found, LOCAL_SECONDS)
    tier.live(0.99)
    assert tier.get(NAMES[0]) is found
    tier.live(0.02)
    assert tier.get(NAMES[0]) is None


def test_an_entry_that_is_stale_already_is_no_hit(tier: Tier) -> None:
    found = tier.put(NAMES)
    tier.wall.now += EXPIRE_SECONDS + 1
    tier.allow(NAMES[0], found, LOCAL_SECONDS)
    assert tier.get(NAMES[0]) is None


@pytest.mark.parametrize("changed", NAMES[1:])
def test_a_change_of_any_generation_ends_the_hits(tier: Tier, changed: str) -> None:
    tier.settle()
    other = tier.settle(OTHER)
    tier.forget(changed)
    assert tier.get(NAMES[0]) is None
    assert tier.get(OTHER[0]) is other


def test_a_new_generation_does_not_revive_what_was_made_under_the_old_one(tier: Tier) -> None:
    tier.settle()
    tier.forget(NAMES[1])
    tier.settle(("s:e:another", NAMES[1]), generation=b"2")
    assert tier.get(NAMES[0]) is None
    new = tier.settle(generation=b"2")
    assert tier.get(NAMES[0]) is new


def test_after_a_loss_of_news_each_entry_has_to_be_asked_for(tier: Tier) -> None:
    found = tier.settle()
    tier.forget_all()
    assert tier.get(NAMES[0]) is None
    tier.answered(tier.life.now)
    tier.settle(OTHER)
    assert tier.get(NAMES[0]) is None, "Redis has answered, about something else"
    tier.allow(NAMES[0], found, LOCAL_SECONDS)
    assert tier.get(NAMES[0]) is None, "there is no copy of it"
    again = tier.settle()
    assert tier.get(NAMES[0]) is again


def test_a_copy_is_used_while_it_is_fresh(tier: Tier) -> None:
    entry = tier.put(NAMES).entry
    tier.wall.now += EXPIRE_SECONDS - 0.01
    copy = tier.copy(NAMES[0])
    assert copy is not None
    assert copy.entry is entry
    tier.wall.now += 0.02
    assert tier.copy(NAMES[0]) is None
    assert tier.copy(OTHER[0]) is None


def test_an_entry_that_is_not_valid_is_not_allowed(tier: Tier) -> None:
    found = tier.put(NAMES)
    tier.allow(NAMES[0], found._replace(valid=False), LOCAL_SECONDS)
    assert tier.get(NAMES[0]) is None


def test_an_entry_that_another_one_has_replaced_is_not_allowed(tier: Tier) -> None:
    replaced = tier.put(NAMES)
    tier.put(NAMES)
    tier.allow(NAMES[0], replaced, LOCAL_SECONDS)
    tier.allow(NAMES[0], Found(None, replaced.generations), LOCAL_SECONDS)
    assert tier.get(NAMES[0]) is None


def test_an_entry_too_big_to_keep_is_no_hit(tier: Tier) -> None:
    found = tier.put(NAMES)
    tier._copies.remove(NAMES[0])
    tier.allow(NAMES[0], found, LOCAL_SECONDS)
    assert tier.get(NAMES[0]) is None


def test_generations_are_bounded_and_losing_them_loses_hits_only(
    tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.backends.redis.local.MAX_ENTRIES", 100)
    each = [(f"s:e:{number}", f"s:g:{{country:{number}}}") for number in range(1000)]
    for names in each:
        tier.settle(names)
        assert len(tier._generations) <= 100
    assert tier.get(each[0][0]) is None
    assert tier.get(each[-1][0]) is not None
