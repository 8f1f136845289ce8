"""No beginning of a stream is ever taken for an answer; all of them are tried by `python -m bench.truncation`."""

from __future__ import annotations

import pytest

from streamguard.guards.document.guard import JsonDocument
from streamguard.policy.model import Policy
from streamguard.testing import faults
from tests.matrix.truncation import cut_everywhere, recordings, samples, synthetic, through_the_engine

PLAIN = Policy()
JSON = Policy(json=JsonDocument())


def test_every_cut_of_the_catalogue() -> None:
    """Each conforming answer, in both shapes and with all line ends, cut after each byte: none is accepted early."""
    wrong = []
    for stream in synthetic():
        cuts = cut_everywhere(stream, PLAIN, faults.request())
        if cuts.accepted or cuts.ended_at is None or stream.data[: cuts.ended_at].count(b"message_stop") == 0:
            wrong.append((stream.name, cuts))
    assert wrong == []


def test_every_cut_of_the_samples() -> None:
    """The documented transcripts, cut after each byte."""
    assert [
        (one.name, cuts) for one in samples() if (cuts := cut_everywhere(one, PLAIN, faults.request())).accepted
    ] == []


def test_every_cut_of_some_recordings() -> None:
    """Streams of a real model, cut after each byte; under a policy of documents too."""
    for stream in list(recordings())[::20]:
        for policy in (PLAIN, JSON):
            assert cut_everywhere(stream, policy, faults.request()).accepted == []


@pytest.mark.parametrize("shape", faults.SHAPES)
def test_cuts_through_the_engine(shape: faults.Shape) -> None:
    """The same in calls of their own, whose streams end in good order after each byte."""
    (stream,) = [one for one in synthetic() if one.name == f"good {shape}"]
    cuts = through_the_engine(stream, PLAIN, faults.request(shape), every=3)
    assert cuts.accepted == []
    assert cuts.tried > 500
