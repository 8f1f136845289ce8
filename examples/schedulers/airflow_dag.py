# ruff: noqa: INP001  an example, not a package
"""A job every night in Airflow: only what can get better is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.exceptions import AirflowFailException
from airflow.sdk import dag, task
from run_job import GiveUp, run_job


@dag(schedule="0 2 * * *", start_date=datetime(2026, 1, 1), catchup=False)  # noqa: DTZ001  Airflow's own timezone
def invoices() -> None:
    """Extract last day's invoices."""

    @task(retries=5, retry_delay=timedelta(minutes=10), retry_exponential_backoff=True)
    def extract() -> dict[str, object]:
        try:
            return run_job("/srv/invoices/job.yaml")
        except GiveUp as error:
            raise AirflowFailException(str(error)) from error

    extract()


invoices()
