"""What a log says of strangers: bounded in length and in number, and without secrets."""

from __future__ import annotations

import logging

import pytest

from streamguard.http.exchange import STRANGERS
from streamguard.proxy.log_redaction import LINE_BYTES, RedactingFormatter, StrangersFilter
from streamguard.testing import wire
from tests.proxy.running import Running, with_proxy


def written(times: list[float], kinds: list[str], *, marked: bool = True) -> list[str]:
    """The lines that pass the filter, one logged at each of the times."""
    clock = iter(times)
    passing = StrangersFilter(5, clock=lambda: next(clock))
    found = []
    for kind in kinds:
        record = logging.LogRecord("x", logging.WARNING, "", 1, f"{kind} %s", ("a",), None)
        record.__dict__.update(STRANGERS if marked else {})
        if passing.filter(record):
            found.append(record.getMessage())
    return found


def test_of_many_lines_of_strangers_a_few_a_second_are_written() -> None:
    """Ten at once, then five a second; the next says how many were left out before it."""
    found = written([0.0] * 1000 + [1.0] * 1000, ["refused"] * 2000)
    assert found == [*["refused a"] * 10, "refused a (990 more like this were left out before it)", *["refused a"] * 4]


def test_a_flood_of_one_kind_hides_no_other() -> None:
    """Kinds are counted apart, and lines that no stranger causes are not counted at all."""
    assert written([0.0] * 101, ["refused"] * 100 + ["broken"])[-1] == "broken a"
    assert len(written([0.0] * 1000, ["own"] * 1000, marked=False)) == 1000


def test_a_line_has_a_length() -> None:
    """Whatever it says."""
    record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", ("x" * 1_000_000,), None)
    assert len(RedactingFormatter([]).format(record)) <= LINE_BYTES + 1


def test_a_strangers_path_is_not_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    """The view says what it refused, and no more of the path than tells it from others."""

    async def test(running: Running) -> None:
        path = "/_streamguard/" + "-ey" * 2700
        answer = await running.http.get(running.url + path, headers={"host": "a.example"})
        assert answer.status_code == 403

    with caplog.at_level(logging.DEBUG, "streamguard"):
        with_proxy([wire.text_stream("x")], test)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("streamguard")]
    assert [line for line in lines if "refused" in line] != []
    assert max(map(len, lines)) < 300
