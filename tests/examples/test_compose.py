"""`examples/compose`: what stands in it is checked by the tools that will read it, as far as they are here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from streamguard.proxy.metrics import Metrics
from tests.data import ROOT

HERE = ROOT / "examples" / "compose"
PROMTOOL = next((ROOT / "build" / "promtool").rglob("promtool"), None) or shutil.which("promtool")


def read(name: str) -> Any:
    return YAML(typ="safe").load((HERE / name).read_text())


def exported() -> set[str]:
    """The names under which the proxy's metrics are scraped."""
    _, text = Metrics().exposition("text/plain")
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text.decode(), re.MULTILINE)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in families for part in parts.get(kind, ("",))}


@pytest.mark.parametrize("name", ["dashboard.json", "alerts.yml", "alerts_test.yml"])
def test_every_metric_that_is_read_is_exported(name: str) -> None:
    """A metric that was renamed would leave an empty panel, and an alert that never fires."""
    text = (HERE / name).read_text().replace("streamguard_calls_total, policy", "streamguard_calls_total")
    named = set(re.findall(r"\bstreamguard_\w+", text))
    assert named
    assert named <= exported()


def test_the_dashboard_is_whole() -> None:
    """Panels have identities of their own, a place each, and an expression."""
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len({panel["id"] for panel in panels}) == len(set(places)) == len(panels) == 10
    assert all(target["expr"] for panel in panels for target in panel["targets"])


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here: `make real` fetches it where apt-get is")
@pytest.mark.parametrize("command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_alerts_fire_in_a_scripted_outage(command: list[str]) -> None:
    """By Prometheus' own tool: the rules are rules, and each fires when it has to and not before."""
    done = subprocess.run([str(PROMTOOL), *command], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["proxy.yaml", "extraction.yaml"])
def test_the_configuration_is_accepted(name: str) -> None:
    """By `streamguard check`."""
    tokens = {"STREAMGUARD_TOKEN_APP": "a" * 24, "STREAMGUARD_TOKEN_OPERATOR": "b" * 24, "ANTHROPIC_API_KEY": "c" * 24}
    done = subprocess.run(
        [sys.executable, "-m", "streamguard", "check", name],
        cwd=HERE,
        env={**os.environ, **tokens},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.startswith(f"{name}: fine")) == (0, True), done.stdout + done.stderr


def test_services_fit_together() -> None:
    """Each file that is mounted lies beside, each secret is declared, and each host that is named is a service."""
    compose = read("compose.yaml")
    services = compose["services"]
    mounts = [mount.split(":")[0] for one in services.values() for mount in one.get("volumes", [])]
    missing = [name for name in mounts if name.startswith("./") and not (HERE / name).exists()]
    assert missing == []
    assert {name for name in mounts if not name.startswith("./")} == set(compose["volumes"])
    assert {secret for one in services.values() for secret in one.get("secrets", [])} == set(compose["secrets"])
    hosts = {
        read("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0],
        read("grafana.yaml")["datasources"][0]["url"].removeprefix("http://"),
        re.findall(r"redis://([^/]+)", (HERE / "extraction.yaml").read_text())[0],
    }
    assert {host.split(":")[0] for host in hosts} == {"proxy", "prometheus", "ledger"} <= set(services)
    assert (HERE / services["proxy"]["build"] / "Dockerfile").exists()
