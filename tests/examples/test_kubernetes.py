"""`examples/kubernetes`: the manifests by the cluster's own schemas, and what they say to the proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from streamguard.proxy.configfile import read_config, read_setup
from tests.data import ROOT

MANIFESTS: list[Any] = list(YAML(typ="safe").load_all((ROOT / "examples" / "kubernetes" / "proxy.yaml").read_text()))
BY_KIND = {one["kind"]: one for one in MANIFESTS}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
def test_manifests_satisfy_the_clusters_schemas(manifest: Any) -> None:
    """Strictly: a key that the API does not know is a mistake."""
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: the extra test has it"
    )
    validate.validate(manifest, validate.latest_version(), strict=True)


def test_the_config_map_is_a_configuration(tmp_path: Path) -> None:
    """The proxy reads its files, with the policies that they name."""
    for name, text in BY_KIND["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    config, folder = read_config(str(tmp_path / "proxy.yaml"), {})
    named = ("ANTHROPIC_API_KEY", "STREAMGUARD_TOKEN_APP", "STREAMGUARD_TOKEN_OPERATOR")
    setup = read_setup(config, folder, environment={name: f"{name}-0123456789abcdef" for name in named})
    assert "extraction" in setup.policies
    pod = BY_KIND["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > config.drain + 5
    assert container["ports"][0]["containerPort"] == BY_KIND["Service"]["spec"]["ports"][0]["port"] == 8787


def test_a_pod_that_drains_is_not_killed() -> None:
    """`/healthz` is 503 while the proxy drains: it may decide about new requests only."""
    (container,) = BY_KIND["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert "httpGet" not in container["livenessProbe"]
