"""Extract from the rows of a Dask dataframe: `dask_rows.py POLICY INPUT.jsonl OUTPUT JOURNAL MODEL [BASE_URL]`."""
# ruff: noqa: INP001  a program, no package

import sys

import dask.dataframe as dd
import pandas as pd

from streamguard.batch import Extractor


def request(row):
    """The request of a row."""
    return {"messages": [{"role": "user", "content": row["text"]}]}


if __name__ == "__main__":
    policy, source, target, journal, model, *url = sys.argv[1:]
    options = {"request": request, "model": model, "max_tokens": 200, "base_url": url[0] if url else None}
    extract = Extractor(policy, job=source, journal=journal, **options)

    def part(frame):
        return pd.DataFrame(list(extract.rows(frame.to_dict("records"))), columns=[*frame.columns, *extract.schema])

    rows = dd.read_json(source, lines=True, blocksize=2**20)
    meta = {**rows.dtypes, **dict.fromkeys(extract.schema, object)}
    rows.map_partitions(part, meta=meta).to_json(target, orient="records", lines=True)
