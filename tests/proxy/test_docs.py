"""`docs/proxy.md` and the two pages beside it say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamguard.http.limits import Limits
from streamguard.http.refusals import REFUSALS
from streamguard.proxy.answers.error_responses import status_of, type_of
from streamguard.proxy.config import ProxyConfig
from streamguard.proxy.configfile import read_config
from tests.data import ROOT

TEXT = "\n".join((ROOT / "docs" / name).read_text() for name in ("proxy.md", "proxy-config.md", "proxy-security.md"))


def test_every_refusal_stands_with_its_status() -> None:
    """The table of refusals is the code's."""
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", TEXT, re.MULTILINE)
    told = {name: int(status) for status, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == {name: status for name, (status, _) in REFUSALS.items()}


@pytest.mark.parametrize(
    ("reason", "row"),
    re.findall(r"^\| (`(?!x-|POST)[a-z]+\.[^|]*) \| (\d{3} \| `\w+`) \|$", TEXT, re.MULTILINE),
)
def test_reasons_have_the_statuses_that_stand_there(reason: str, row: str) -> None:
    """The table of failures is the code's."""
    for name in re.findall(r"`([a-z]+\.[a-z_*]+)`", reason):
        some = name.replace("*", "anything")
        assert f"{status_of(some)} | `{type_of(some)}`" == row


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    """It can be read, and what it shows as the defaults are the defaults."""
    example = re.search(r"```yaml\n(version: 1\n.*?)```", TEXT, re.DOTALL)
    assert example is not None
    (tmp_path / "proxy.yaml").write_text(example[1])
    config, _ = read_config(str(tmp_path / "proxy.yaml"), {})
    plain = ProxyConfig()
    for name in (
        "upstream",
        "upstream_addresses",
        "policy",
        "keep_alive",
        "pass_through",
        "limits",
        "drain",
        "view",
        "forward_headers",
        "max_event_bytes",
        "final_status",
    ):
        assert getattr(config, name) == getattr(plain, name)
    assert config.limits == Limits()
