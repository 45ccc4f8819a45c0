"""Spark MLlib's GaussianMixture on one thread, from Parquet: `python -m peers.spark`.

It cannot be given a start, so it is timed from its own, a few random rows; its work
does not depend on the responsibilities. The rows are cached and counted first.
"""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.clustering import GaussianMixture
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession

from .worker import Case, Data, Fit, Run, serve


@cache
def session() -> SparkSession:
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.extraJavaOptions", "-XX:+UseSerialGC")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    atexit.register(spark.stop)
    return spark


def cached(X: np.ndarray, path: Path) -> DataFrame:
    """The rows, written to Parquet, read from there into Spark's memory."""
    n, d = X.shape
    offsets = pa.array(np.arange(0, n * d + 1, d, dtype=np.int32))
    column = pa.ListArray.from_arrays(offsets, pa.array(X.ravel()))
    pq.write_table(pa.table({"row": column}), path)
    rows = session().read.parquet(str(path)).select(array_to_vector("row").alias("features"))
    rows.cache()
    if rows.count() != n:
        raise RuntimeError(f"Spark read {rows.count()} rows of {n}")
    return rows


def load(case: Case, rows: Data, folder: Path) -> Run:
    session().catalog.clearCache()
    frame = cached(rows.X, folder / "rows.parquet")

    def run(iterations: int) -> Fit:
        model = GaussianMixture(k=case.k, maxIter=iterations, tol=0.0, seed=0).fit(frame)
        return Fit(model.summary.numIter, None)

    return run


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        serve(lambda case, rows: load(case, rows, Path(temporary)), "pyspark", "numpy")
