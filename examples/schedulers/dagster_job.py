# ruff: noqa: INP001  an example, not a package
"""A job as a Dagster asset: only what can get better is tried again."""

from typing import Any

import dagster
from run_job import GiveUp, TryAgain, run_job


class JobFile(dagster.Config):
    """Which job to run."""

    path: str = "/srv/invoices/job.yaml"


@dagster.asset
def invoices(config: JobFile) -> dagster.MaterializeResult[Any]:
    """Extract last day's invoices; the summary becomes metadata."""
    try:
        summary = run_job(config.path)
    except TryAgain as error:
        raise dagster.RetryRequested(max_retries=5, seconds_to_wait=600) from error
    except GiveUp as error:
        raise dagster.Failure(str(error), allow_retries=False) from error
    return dagster.MaterializeResult(metadata={"summary": dagster.MetadataValue.json(summary)})


defs = dagster.Definitions(assets=[invoices])
