"""Guarded extraction inside an engine's own function: Ray Data, Spark, Daft, Dask, Airflow, or a loop of one's own.

`Extractor` is all there is to call; it knows no engine. With a row journal (`sqlite:`, `redis:`, `postgresql:`) each
row of a job has one result for ever, whoever is killed.
"""

from streamguard.batch.extractor import Extractor
from streamguard.batch.journal.contract import JournalLost
from streamguard.batch.work import Stopped

__all__ = ["Extractor", "JournalLost", "Stopped"]
