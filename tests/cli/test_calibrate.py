"""`streamguard calibrate`: what it proposes, what it refuses to say, and what it cannot read."""

from __future__ import annotations

import json
import random
import re

import pytest

from streamguard.cli.main import main
from tests import data

ZIP = "real_sse/gemma270m-advisories.zip"


def command(capfd, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and messages."""
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", *arguments])
    out, err = capfd.readouterr()
    return int(ended.value.code or 0), out, err


def test_it_refuses_to_say_what_the_answers_cannot_support(capfd) -> None:
    """Fourteen answers are none for one percent, and it says how many would be."""
    code, out, _ = command(capfd, str(data.path(ZIP)))
    assert code == 3
    assert re.search(r"answers\s+60: 27 good, 33 bad, json\.malformed 25, stop\.max_tokens 7, json\.incomplete 1", out)
    assert "14 good answers support no share below 19.26% (95 % sure); for 1.00%" in " ".join(out.split())
    assert "needs 598 good answers" in " ".join(out.split())


def test_it_proposes_limits_with_what_each_would_have_done(capfd) -> None:
    """A line a knob, as it stands in a policy, with the value before, good answers ended and tokens saved."""
    code, out, _ = command(capfd, str(data.path(ZIP)), "--false-aborts", "50%")
    assert code == 0
    assert re.search(
        r"^caps\.characters: \d+    # was 100000; would have ended \d of 13 good answers, "
        r"saves [\d,]+ of 9,277 tokens of bad ones$",
        out,
        re.MULTILINE,
    )
    assert re.search(r"^timeouts\.first_token: [\d.]+    # was 60; ", out, re.MULTILINE)
    code, out, _ = command(capfd, str(data.path(ZIP)), "--false-aborts", "50%", "--json")
    found = json.loads(out)
    assert (code, found["fitted"], found["checked"], found["bad"]) == (0, 14, 13, 33)
    assert found["saved_tokens"]["all"] >= max(count for name, count in found["saved_tokens"].items() if name != "all")


def test_outputs_of_jobs_have_first_tokens_times_and_lengths(tmp_path, capfd) -> None:
    """Attempts that a limit ended are left out: nobody knows what they would have needed."""
    dice = random.Random(1)
    lines = []
    for at in range(200):
        done = {
            "number": 2,
            "completed": "whole",
            "reason": None,
            "first_token_seconds": dice.uniform(0.5, 1.5),
            "seconds": dice.uniform(2, 9),
            "output_tokens": [100, 100],
        }
        cut = {
            "number": 1,
            "completed": None,
            "reason": "timeout.first_token",
            "seconds": 60.0,
            "output_tokens": [0, 0],
        }
        lines.append({"custom_id": f"r{at}", "streamguard": {"attempts": [cut, done] if at % 10 == 0 else [done]}})
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = command(capfd, str(tmp_path / "out.jsonl"), "--false-aborts", "10%", "--json")
    found = json.loads(out)
    assert (code, found["fitted"], found["checked"], found["bad"]) == (0, 100, 100, 0)
    values = {one["knob"]: one["value"] for one in found["knobs"]}
    assert set(values) == {"timeouts.first_token", "timeouts.attempt", "max_tokens"}
    assert 2.6 <= values["timeouts.first_token"] <= 3.0
    assert values["max_tokens"] == 100
    assert found["saved_tokens"] == {}
    assert "saves" not in command(capfd, str(tmp_path / "out.jsonl"), "--false-aborts", "10%")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no.zip"], "no.zip: no such file"),
        (["no.jsonl"], "no.jsonl: cannot be read: No such file or directory"),
        (["bad.jsonl"], "bad.jsonl:1: Input data was truncated"),
        (["other.jsonl"], "other.jsonl:1: no result line of a job"),
        (["x.zip", "--false-aborts", "much"], "--false-aborts must be a share of the good answers such as 0.1% or 1%"),
        (["x.zip", "--policy", "no.yaml"], "no.yaml"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path, monkeypatch, capfd, arguments, said) -> None:
    """With the file and the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    code, _, err = command(capfd, *arguments)
    assert (code, said in err) == (2, True), err
