"""What Redis does in one step: the scripts. Each touches the keys of one tag only."""

# KEYS: generation, holders and, for the first tag of an entry, its lock. ARGV: new generation, its
# life in ms, lock token, life of the lock in ms. Gives the generation, and 1 if the lock was taken.
# The server's clock alone decides which holders are alive. A lock names the generation it was taken
# under: one that is left over from before an invalidation holds nobody up.
BEGIN = """
local generation = redis.call('GET', KEYS[1])
if not generation then
    local now = redis.call('TIME')
    now = now[1] * 1000 + math.floor(now[2] / 1000)
    if redis.call('ZCOUNT', KEYS[2], now, '+inf') > 0 then return {false, 0} end
    generation = ARGV[1]
    redis.call('SET', KEYS[1], generation, 'PX', ARGV[2])
elseif redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if not KEYS[3] then return {generation, 0} end
local lock = redis.call('GET', KEYS[3])
if lock and lock ~= generation .. ARGV[3] and string.sub(lock, 1, #generation) == generation then
    return {generation, 0}
end
redis.call('SET', KEYS[3], generation .. ARGV[3], 'PX', ARGV[4])
return {generation, 1}
"""
# KEYS: generation, holders. ARGV: writer, life of the hold in ms.
HOLD = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
redis.call('DEL', KEYS[1])
"""
# KEYS: generation, holders. ARGV: writer, '1' when something was committed.
RELEASE = """
redis.call('ZREM', KEYS[2], ARGV[1])
if ARGV[2] == '1' then redis.call('DEL', KEYS[1]) end
"""
# KEYS: generation. ARGV: life in ms that it needs. It gets twice that, so that it is seldom
# touched: all local tiers are told of it.
KEEP = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], 2 * ARGV[1])
end
"""
# KEYS: lock. ARGV: token, life in ms; a life of 0 gives the lock up.
RELOCK = """
local lock = redis.call('GET', KEYS[1])
if not lock or string.sub(lock, -#ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
