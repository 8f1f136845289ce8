"""Clients with keys of their own: one that is refused holds back no other."""

from __future__ import annotations

import anyio

from streamguard import Policy, Retry, Rule, Timeouts
from streamguard.proxy.tenancy import KEY, MOST_KEYS, KeyedRuntime, fingerprint
from streamguard.retry.quota import Quota
from streamguard.testing import error, wire
from tests.proxy.running import KEY as SECRET
from tests.proxy.running import Running, with_proxy

GOOD = wire.text_stream("fine")
LIMITED = [error("rate_limit_error", headers={"retry-after": "5"})]
POLICY = Policy(timeouts=Timeouts(total=4), retry=Retry(attempts=1, rules=[Rule(when=["provider.*"])]))


def asked(running: Running, key: str, script: str) -> object:
    return running.ask(headers={"x-api-key": key, "x-script": script})


def test_a_key_that_is_limited_holds_back_only_itself() -> None:
    """A 429 for one key: its next call waits, the other key's is answered at once."""

    async def test(running: Running) -> None:
        began = anyio.current_time()
        assert (await asked(running, "key-a", "limited")).status_code == 429
        held = await asked(running, "key-a", "good")
        assert (held.status_code, "cool" in held.text or "wait" in held.text) == (429, True)
        assert (await asked(running, "key-b", "good")).status_code == 200
        assert anyio.current_time() - began < 3
        assert len(running.upstream.exchanges) == 2

    with_proxy([{"good": GOOD, "limited": LIMITED}], test, POLICY, forward_headers=("x-script",))


def test_with_one_key_for_all_a_refusal_is_everybodys() -> None:
    """The provider counts them together, and so do we."""

    async def test(running: Running) -> None:
        assert (await asked(running, "whoever", "limited")).status_code == 429
        assert (await asked(running, "somebody else", "good")).status_code == 429
        assert len(running.upstream.exchanges) == 1

    with_proxy(
        [{"good": GOOD, "limited": LIMITED}],
        test,
        POLICY,
        forward_headers=("x-script",),
        key=SECRET,
        key_env="ANTHROPIC_API_KEY",
    )


def test_what_is_kept_by_key_is_bounded_and_no_key() -> None:
    """A fingerprint, of so many keys at the most."""
    runtime = KeyedRuntime()
    assert runtime.quota(Quota()) is runtime.quota(Quota())
    prints = [fingerprint([(b"x-api-key", b"key-%d" % number), (b"accept", b"x")]) for number in range(MOST_KEYS + 5)]
    assert len(set(prints)) == len(prints)
    assert fingerprint([(b"x-api-key", b"key-1")]) == prints[1]
    assert fingerprint([(b"authorization", b"key-1")]) != prints[1]
    for one in prints:
        KEY.set(one)
        assert runtime.quota(Quota()) is runtime.quota(Quota())
    KEY.set(None)
    assert len(runtime._by_key) == MOST_KEYS
    assert "key-1" not in str(prints)
