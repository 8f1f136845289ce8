"""What an answer needs of a limit is what replaying it with that limit says."""

from __future__ import annotations

import math

import pytest

from streamguard.calibration.measuring import CLOCKS, REPEATS, measure, without_limits
from streamguard.guards.caps import Caps
from streamguard.guards.repetition import Repetition
from streamguard.guards.timeouts import Timeouts
from streamguard.policy.file import load_policy
from streamguard.policy.model import Policy
from streamguard.replay import Recording, recordings, replay
from streamguard.testing import wire
from tests import data

NOTHING = without_limits(Policy(completion={"accept": ["end_turn", "max_tokens"], "require_content": False}))


def recorded() -> list[Recording]:
    """Real streams with their times, and their requests."""
    return list(recordings([data.path("real_sse/gemma270m-advisories.zip")]))


@pytest.fixture(scope="module")
def measured():
    """Each of them with what it needs."""
    policy = load_policy("streamguard:extraction")
    return [(one, measure(one, policy)) for one in recorded()]


def below(repeats: int) -> int:
    """The value that was tried before the one that let an answer pass."""
    return max([3, *(one for one in REPEATS if one <= repeats)])


def ended(recording: Recording, policy: Policy) -> bool:
    """Whether a limit of the policy ends the answer."""
    reason = replay(recording, policy).reason
    return reason is not None and reason.startswith(("timeout.", "cap.", "repetition."))


@pytest.mark.parametrize("knob", [*CLOCKS, "attempt"])
def test_a_clock_trips_at_what_was_needed_and_not_above(measured, knob) -> None:
    """To a hundredth of a second, on recorded streams."""
    seen = 0
    for recording, one in measured:
        need = one.needs.get(f"timeouts.{knob}", 0.0)
        if need < 0.05:
            continue
        seen += 1
        for limit, trips in ((need + 0.01, False), (need - 0.01, True)):
            clocks = {"first_token": None, "progress": None, "progress_thinking": None, "attempt": None, knob: limit}
            timeouts = Timeouts(connect=None, alive=None, progress_tool=None, **clocks)
            assert ended(recording, NOTHING.model_copy(update={"timeouts": timeouts})) is trips, (recording.file, limit)
    assert seen >= (0 if knob == "progress_thinking" else 40)


def test_ceilings_let_pass_what_was_needed(measured) -> None:
    """Characters, blanks and repetition, each to the last one."""
    for recording, one in measured:
        characters = int(one.needs["caps.characters"])
        blanks = int(one.needs["repetition.max_whitespace"])
        repeats = int(min(one.needs["repetition.min_repeats"], 64))
        for update, trips in (
            ({"caps": Caps(characters=characters)}, False),
            ({"caps": Caps(characters=max(1, characters - 1))}, characters > 1),
            ({"repetition": Repetition(max_period=None, max_whitespace=max(1, blanks))}, False),
            ({"repetition": Repetition(max_whitespace=None, min_repeats=repeats + 1)}, repeats == 64),
            ({"repetition": Repetition(max_whitespace=None, min_repeats=below(repeats))}, repeats >= 3),
        ):
            assert ended(recording, NOTHING.model_copy(update=update)) is trips, (recording.file, update)


def test_good_is_what_a_policy_without_limits_lets_stand(measured) -> None:
    """Whatever its clocks and caps say."""
    strict = load_policy("streamguard:extraction").replace(caps={"characters": 1}, timeouts={"attempt": 0.01})
    again = [measure(recording, strict) for recording, _ in measured]
    assert [one.good for one in again] == [one.good for _, one in measured]
    assert sum(one.good for one in again) == 27


def test_a_recording_without_times_has_no_clocks() -> None:
    """Nothing is made up."""
    one = measure(
        Recording(file="x", data=b"".join(wire.text_stream('{"a": 1}'))), load_policy("streamguard:extraction")
    )
    assert sorted(one.needs) == [
        "caps.characters",
        "max_tokens",
        "repetition.max_whitespace",
        "repetition.min_repeats",
    ]
    assert math.isclose(one.needs["caps.characters"], 8)
