# ruff: noqa: INP001  an example, not a package
"""A job as a Prefect flow: only what can get better is tried again."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from run_job import TryAgain, run_job


def worth_it(task: Any, run: Any, state: Any) -> bool:  # noqa: ARG001  Prefect's signature
    """Whether the task's error goes away by itself."""
    try:
        state.result()
    except TryAgain:
        return True
    except Exception:
        return False
    return False


@task(retries=5, retry_delay_seconds=600, retry_condition_fn=worth_it)
def extract(job: str) -> dict[str, Any]:
    """Run the job; its summary is the result."""
    return run_job(job)


@flow
def invoices(job: str = "/srv/invoices/job.yaml") -> dict[str, Any]:
    """Extract last day's invoices."""
    return extract(job)
