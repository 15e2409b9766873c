"""What Redis does in one step: the scripts. Each touches the keys of one tag only.

Whatever another program has put under these keys, a script repairs it or it does no harm: a
generation of another form is missing, holders and locks of another type are dropped. What ends a
generation comes first, so that nothing prevents it; and as its DEL is allowed on a server that is
out of memory, so is the rest of the script.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

Command = Sequence[str | bytes | int]


@dataclass(frozen=True, slots=True)
class Script:
    """A script is sent by its digest. Redis knows it since the connection began."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", sha)

    def call(self, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


# Holders are a sorted set that expires; anything else is not ours.
_REPAIR_HOLDERS = """
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'none' and (kind ~= 'zset' or redis.call('PTTL', KEYS[2]) < 0) then
    redis.call('DEL', KEYS[2])
end
"""
# KEYS: generation, holders and, for the first tag of an entry, its lock. ARGV: new generation, its
# life in ms, lock token, life of the lock in ms. Gives the generation, and 1 if the lock was taken.
# The server's clock alone decides which holders are alive. A generation of another incarnation (its
# first 8 bytes) is missing. A lock names the generation it was taken under: one that is left over
# from before an invalidation holds nobody up.
BEGIN = Script(f"""
local generation = redis.pcall('GET', KEYS[1])
if type(generation) ~= 'string' or #generation ~= #ARGV[1]
        or string.sub(generation, 1, 8) ~= string.sub(ARGV[1], 1, 8) then
    {_REPAIR_HOLDERS}
    local now = redis.call('TIME')
    now = now[1] * 1000 + math.floor(now[2] / 1000)
    if redis.call('ZCOUNT', KEYS[2], now, '+inf') > 0 then return {{false, 0}} end
    generation = ARGV[1]
    redis.call('SET', KEYS[1], generation, 'PX', ARGV[2])
elseif redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if not KEYS[3] then return {{generation, 0}} end
local lock = redis.pcall('GET', KEYS[3])
if type(lock) == 'string' and lock ~= generation .. ARGV[3]
        and string.sub(lock, 1, #generation) == generation then
    return {{generation, 0}}
end
redis.call('SET', KEYS[3], generation .. ARGV[3], 'PX', ARGV[4])
return {{generation, 1}}
""")
# KEYS: generation, holders. ARGV: writer, life of the hold in ms.
HOLD = Script(f"""
redis.call('DEL', KEYS[1])
{_REPAIR_HOLDERS}
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
return 1
""")
# KEYS: generation, holders. ARGV: writer, '1' when something was committed.
RELEASE = Script(f"""
if ARGV[2] == '1' then redis.call('DEL', KEYS[1]) end
{_REPAIR_HOLDERS}
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
""")
# KEYS: generation. ARGV: life in ms that it needs. It gets twice that, so that it is seldom
# touched: all local tiers are told of it.
KEEP = Script("""
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
end
return 1
""")
# KEYS: lock. ARGV: token, life in ms; a life of 0 gives the lock up.
RELOCK = Script("""
local lock = redis.pcall('GET', KEYS[1])
if type(lock) ~= 'string' or string.sub(lock, -#ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

ALL = (BEGIN, HOLD, RELEASE, KEEP, RELOCK)
LOAD: Sequence[Command] = [("SCRIPT", "LOAD", script.text) for script in ALL]
