"""What the matrix found, one test for each: see the list in `docs/reliability-figures.md`."""

from __future__ import annotations

import pytest

from streamguard import api
from streamguard.adapters.anthropic.events import Translator
from streamguard.errors import GaveUp
from streamguard.events import BlockStarted, Delta, Failed, Metered, Started, Stopped, Usage
from streamguard.guards.caps import Caps
from streamguard.guards.completion import Completion
from streamguard.guards.metering import output_upper
from streamguard.guards.transcript import Transcript
from streamguard.policy.model import Policy
from streamguard.pricing.tokens import TokenScale
from streamguard.testing import Script, answer, encode, faults, run_virtual, script
from streamguard.viability.patterns.regexes import TRIES, retry_timeout
from tests.matrix.cells import CHUNKS, TIMES, Cell, violations
from tests.matrix.configs import configs
from tests.matrix.edges import PROXY
from tests.matrix.surfaces import GUARDED, MIDDLEWARE, SDK

LOOKING_ON = Completion(mode="observe")


def test_an_answer_is_final_at_its_end_whoever_acts() -> None:
    """What follows the end is no part of the answer and nothing against it, also where completion only looks on."""
    source = faults.BY_ID["F17-output-after-stop"].source()
    outcome = run_virtual(_run, source, Policy(completion=LOOKING_ON))
    assert (outcome.completed, outcome.text) == ("whole", faults.GOOD)


def test_nothing_is_claimed_where_a_cap_cut_the_answer_and_nobody_acted() -> None:
    """A stop at the `max_tokens` that a cap lowered is no good end, whichever reason it is given."""
    source = script(answer("cut he", stop_reason="max_tokens"))
    outcome = run_virtual(_run, source, Policy(completion=LOOKING_ON, caps=Caps(output_tokens=100)))
    assert outcome.completed is None


def test_output_after_the_end_is_no_part_of_the_answer() -> None:
    """What a consumer of events was shown, and what the outcome says, is the message up to its own end."""
    transcript = Transcript()
    for event in (Started(), BlockStarted(0, "text"), Delta(0, "text", "all"), Stopped("end_turn")):
        transcript.feed(event, 0.0)
    transcript.feed(Delta(0, "text", " and more"), 0.0)
    assert transcript.text == "all"


def test_the_last_count_before_the_end_is_final() -> None:
    """Usage is exact after `message_stop`, though the provider gave no stop reason with it."""
    transcript = Transcript()
    for event in (Started(usage=Usage(input_tokens=9)), Metered(Usage(output_tokens=5)), Stopped()):
        transcript.feed(event, 0.0)
    assert transcript.metered


def test_a_loop_of_blanks_may_have_a_token_for_each() -> None:
    """The upper end of an interval holds for whitespace that a looping model writes character by character."""
    transcript = Transcript()
    transcript.feed(BlockStarted(0, "text"), 0.0)
    for _ in range(100):
        transcript.feed(Delta(0, "text", " " * 10), 0.0)
    upper = output_upper(transcript, None, TokenScale())
    assert upper is not None
    assert upper >= 1000


async def _run(source, policy):
    return await api.run(source, policy=policy)


def test_the_sdk_is_quiet_about_what_it_does_not_know() -> None:
    """Events yet to be invented pass an opened SDK stream without a warning (warnings are errors here)."""
    fault = faults.BY_ID["F57-new-event"]
    cell = Cell(fault, configs()["completion"], CHUNKS[0], TIMES[0], GUARDED)
    assert run_virtual(violations, cell) == []


def test_a_middleware_hands_back_a_message_or_an_error() -> None:
    """An answer without its start, under a completion guard that looks on, is not handed back as `None`."""
    cell = Cell(faults.BY_ID["F22-no-start"], configs()["off"], CHUNKS[0], TIMES[0], MIDDLEWARE)
    seen = run_virtual(MIDDLEWARE.ask, cell.question)
    assert (type(seen.error), seen.error.reason) == (GaveUp, "transport.decode")


def test_a_middleware_hands_back_nothing_from_behind_the_end() -> None:
    """Output after `message_stop` is not in the message, though the completion guard only looks on."""
    cell = Cell(faults.BY_ID["F17-output-after-stop"], configs()["caps"], CHUNKS[0], TIMES[0], MIDDLEWARE)
    assert run_virtual(violations, cell) == []


def test_the_proxy_hands_on_a_message_or_an_error() -> None:
    """The same through the proxy: no empty object with status 200."""
    cell = Cell(faults.BY_ID["F22-no-start"], configs()["off"], CHUNKS[0], TIMES[0], PROXY)
    seen = run_virtual(PROXY.ask, cell.question, grace=0.002)
    (leak,) = seen.leaks
    assert "transport.decode" in leak


def test_half_an_emoji_in_a_name_is_an_undecodable_event() -> None:
    """A lone surrogate in a type or a name, which one of our parsers takes and another does not, is a typed failure."""
    data = b'{"type":"message_delta","delta":{"stop_reason":"end_turn","\\ud800":1},"usage":{"\\ud800":1}}'
    (event,) = Translator().translate([(b"", data)])
    assert (type(event), getattr(event, "reason", None)) in ((Failed, "transport.decode"), (Metered, None))


def test_a_body_that_is_cut_behind_the_messages_end_is_nobodys_failure() -> None:
    """A gzip body may lack its own end where the message in it has come to its end: over sockets."""
    question = Cell(faults.BY_ID["F23-gzip-cut"], configs()["completion"], CHUNKS[0], TIMES[0], SDK).question
    items = [encode("gzip", cut=4), *faults.Say().answer()]
    seen = run_virtual(SDK.ask, question._replace(script=Script.of(items)), grace=0.002)
    assert seen.error is None


@pytest.mark.parametrize("interruptions", [1, 2, 3])
def test_a_busy_machine_is_no_slow_pattern(interruptions: int) -> None:
    """A search that lost the processor for longer than it may take is tried again; a pattern is slow if it always is."""
    tries = 0

    def search(text: str, *, timeout: float) -> str:
        nonlocal tries
        tries += 1
        if tries <= interruptions:
            raise TimeoutError
        return text

    if interruptions < TRIES:
        assert retry_timeout(search, "found", timeout=0.05) == "found"
    else:
        with pytest.raises(TimeoutError):
            retry_timeout(search, "found", timeout=0.05)
