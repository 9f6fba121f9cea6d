"""Books in a server that speaks Redis's protocol, for processes anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.budget.amounts import Amount, Limit, from_nano, nano_above, nano_below
from llmkit.budget.ledger import Ledger, Standing, StoreError
from llmkit.errors import ConfigurationError
from llmkit.log import redact
from llmkit.process_local import ProcessLocal

if TYPE_CHECKING:
    import redis

__all__ = ["RedisLedger"]

# Seconds for a connect, and for each answer: a budget's store is near, or of no use.
TIMEOUT = 0.5

# How long the books remember that an expired reservation was charged (see sqlite_ledger).
REMEMBERED = 86_400.0

# KEYS: the sums (spent and held, nano-USD and tokens), the reservations as "nano-USD tokens", and
# when each expires. An expired one is charged and goes on as "charged nano-USD tokens".
# Lua counts in doubles, exact up to 2^53: nine million USD in nano-USD.
_PRELUDE = """
local sums, held, expiry = KEYS[1], KEYS[2], KEYS[3]
local function add(kind, usd, tokens)
  redis.call('HINCRBY', sums, kind .. '_usd', usd)
  redis.call('HINCRBY', sums, kind .. '_tokens', tokens)
end
local function read(entry)
  local charged, usd, tokens = string.match(entry, '^(c?)(%d+) (%d+)$')
  return charged == 'c', tonumber(usd), tonumber(tokens)
end
local function whole(number)
  return number == 0 and '0' or string.format('%.0f', number)
end
local function expire(now)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', now)) do
    local entry = redis.call('HGET', held, key)
    if entry then
      local charged, usd, tokens = read(entry)
      if charged then
        redis.call('HDEL', held, key)
        redis.call('ZREM', expiry, key)
      else
        add('spent', whole(usd), whole(tokens))
        add('held', whole(-usd), whole(-tokens))
        redis.call('HINCRBY', sums, 'in_flight', -1)
        redis.call('HSET', held, key, 'c' .. entry)
        redis.call('ZINCRBY', expiry, %(remembered)s, key)
      end
    else
      redis.call('ZREM', expiry, key)
    end
  end
end
local function standing()
  local found = redis.call('HMGET', sums, 'spent_usd', 'spent_tokens', 'held_usd',
    'held_tokens', 'in_flight')
  for at = 1, 5 do found[at] = found[at] or '0' end
  return found
end
""".replace("%(remembered)s", str(int(REMEMBERED)))
_RESERVE = (
    _PRELUDE
    + """
local key, usd, tokens, most_usd, most_tokens = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
expire(ARGV[6])
local found = standing()
local function fits(most, spent, reserved, wanted)
  return most == '' or
    tonumber(spent) + tonumber(reserved) + tonumber(wanted) <= tonumber(most)
end
if fits(most_usd, found[1], found[3], usd) and fits(most_tokens, found[2], found[4], tokens) then
  redis.call('HSET', held, key, usd .. ' ' .. tokens)
  redis.call('ZADD', expiry, ARGV[7], key)
  redis.call('HINCRBY', sums, 'in_flight', 1)
  add('held', usd, tokens)
  found[6] = '1'
else
  found[6] = '0'
end
return found
"""
)
_SETTLE = (
    _PRELUDE
    + """
local key, usd, tokens, reserved = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local entry = redis.call('HGET', held, key)
if entry then
  local charged, held_usd, held_tokens = read(entry)
  redis.call('HDEL', held, key)
  redis.call('ZREM', expiry, key)
  local kind = charged and 'spent' or 'held'
  add(kind, whole(-held_usd), whole(-held_tokens))
  if not charged then redis.call('HINCRBY', sums, 'in_flight', -1) end
end
if entry or reserved == '0' then add('spent', usd, tokens) end
return 0
"""
)
_STANDING = _PRELUDE + "expire(ARGV[1])\nreturn standing()\n"


class RedisLedger(Ledger):
    """Keeps the books in a server that speaks Redis's protocol.

    It keeps them as durably as the server is set up to; a server that evicts keys (any
    `maxmemory-policy` but `noeviction`) would forget what was spent. Clocks of machines that share
    a budget should agree within a minute. Amounts up to nine million USD are exact.

    Args:
        url: `redis://…`, `rediss://…` (TLS) or `unix://…`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: ProcessLocal[_Scripts] = ProcessLocal(
            lambda: _Scripts(_connect(url)), _Scripts.close
        )

    def reserve(
        self, name: str, key: str, amount: Amount, limit: Limit, *, now: float, expires: float
    ) -> Standing:
        """Reserves; see `Ledger.reserve`."""
        most_usd = "" if limit.usd is None else nano_below(limit.usd)
        most_tokens = "" if limit.tokens is None else limit.tokens
        wanted = (nano_above(amount.usd), amount.tokens)
        found = self._run("reserve", name, key, *wanted, most_usd, most_tokens, now, expires)
        return _standing(found)

    def settle(self, name: str, key: str, spent: Amount, *, reserved: bool = True) -> None:
        """Settles; see `Ledger.settle`."""
        cost = (nano_above(spent.usd), spent.tokens)
        self._run("settle", name, key, *cost, int(reserved))

    def standing(self, name: str, *, now: float) -> Standing:
        """Reads; see `Ledger.standing`."""
        return _standing(self._run("standing", name, now))

    def close(self) -> None:
        """Closes this process's connections; the next use opens others."""
        self._client.close()

    def _run(self, script: str, name: str, *arguments: str | float) -> Any:
        import redis

        # The braces keep a budget's keys together in a cluster.
        keys = [f"llmkit:budget:{{{name}}}:{part}" for part in ("sums", "held", "expiry")]
        try:
            return self._client.get().scripts[script](keys=keys, args=arguments)
        except (redis.RedisError, OSError, ValueError) as error:
            raise StoreError(redact(str(error)) or type(error).__name__) from error


class _Scripts:
    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.scripts = {
            "reserve": client.register_script(_RESERVE),
            "settle": client.register_script(_SETTLE),
            "standing": client.register_script(_STANDING),
        }

    def close(self) -> None:
        self.client.close()


def _connect(url: str) -> redis.Redis:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # The client's own ten retries would take seconds for a server that is gone.
    return redis.Redis.from_url(
        url,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def check_installed() -> None:
    """Raises a `ConfigurationError` with the pip command when redis-py is missing."""
    try:
        import redis  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigurationError(
            'a budget in Redis needs redis-py: pip install "llmkit[redis]"'
        ) from error


def _standing(found: list[str]) -> Standing:
    spent_usd, spent_tokens, held_usd, held_tokens, in_flight, *granted = map(int, found)
    return Standing(
        Amount(from_nano(spent_usd), spent_tokens),
        Amount(from_nano(held_usd), held_tokens),
        in_flight,
        granted == [1],
    )
