"""`examples/schedulers`: exit codes of a job as a scheduler's states, and the callable on a real job."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamguard.cli.commands.exits import Exit
from streamguard.demo.provider import Order, provider
from tests.data import ROOT

HERE = ROOT / "examples" / "schedulers"


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A file of the example as a module."""
    monkeypatch.syspath_prepend(str(HERE))
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run_job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that all three schedulers share."""
    return loaded("run_job", monkeypatch)


@pytest.mark.timeout(60)
def test_a_job_runs_and_its_summary_comes_back(run_job: Any, tmp_path: Path) -> None:
    """The job of `init`, against the simulated provider."""
    subprocess.run([sys.executable, "-m", "streamguard", "init"], cwd=tmp_path, check=True, capture_output=True)
    with provider(Order(bad_answers=0, speed=200)).in_thread() as server:
        summary = run_job.run_job(str(tmp_path / "job.yaml"), "--base-url", server.url, "--limit", "3")
    assert (summary["exit_code"], summary["succeeded"], summary["left_out"]) == (0, {"whole": 3}, 17)


@pytest.mark.parametrize("code", [*Exit, 130, 143])
def test_every_exit_code_has_a_meaning(run_job: Any, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Only what gets better by itself is tried again."""
    done = subprocess.CompletedProcess([], int(code), stdout='{"rows": {}}')
    monkeypatch.setattr(run_job.subprocess, "run", lambda *args, **options: done)
    if code in (Exit.OK, Exit.FAILED):
        assert run_job.run_job("job.yaml") == {"rows": {}}
    else:
        expected = run_job.TryAgain if code in (Exit.PROVIDER, 130, 143) else run_job.GiveUp
        with pytest.raises(expected, match=f"exit code {int(code)}"):
            run_job.run_job("job.yaml")


def test_a_job_that_is_missing_is_for_a_person(run_job: Any, tmp_path: Path) -> None:
    """A mistake in the input is never tried again."""
    with pytest.raises(run_job.GiveUp, match="exit code 2"):
        run_job.run_job(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("name", ["airflow_dag", "prefect_flow", "dagster_job"])
def test_the_schedulers_files_use_it(name: str) -> None:
    """Each is Python, names the shared callable, and catches what it raises."""
    tree = ast.parse((HERE / f"{name}.py").read_text())
    imported = {part.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for part in node.names}
    assert "run_job" in imported
    assert imported & {"TryAgain", "GiveUp"}


RUNS = {
    "dagster": "import dagster, dagster_job as example; asset = example.invoices; "
    "config = {'ops': {'invoices': {'config': {'path': JOB}}}}; "
    "done = dagster.materialize([asset], run_config=config); "
    "print(done.asset_materializations_for_node('invoices')[0].metadata['summary'].data['succeeded'])",
    "prefect": "import prefect_flow as example; print(example.invoices(JOB)['succeeded'])",
}
"""What a person types to run the example, where the scheduler is installed."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", RUNS)
def test_the_scheduler_itself_runs_it(name: str, tmp_path: Path) -> None:
    """In a virtual environment of its own, since its wheels are many: a job of twenty rows, all of which succeed."""
    python = ROOT / "build" / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{name} is not installed: `make schedulers` installs it")
    subprocess.run([sys.executable, "-m", "streamguard", "init"], cwd=tmp_path, check=True, capture_output=True)
    with provider(Order(bad_answers=0, speed=200)).in_thread() as server:
        variables = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "none-needed", "PYTHONPATH": str(HERE)}
        homes = {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        done = subprocess.run(
            [python, "-c", RUNS[name].replace("JOB", repr(str(tmp_path / "job.yaml")))],
            cwd=tmp_path,
            env={**os.environ, **variables, **homes},
            capture_output=True,
            text=True,
            timeout=170,
        )
    assert "{'whole': 20}" in done.stdout, done.stderr[-2000:]
