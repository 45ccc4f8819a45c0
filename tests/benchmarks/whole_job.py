"""From the shell to the saved model: where each second of `dask-em fit` goes, and other programs.

    python tests/benchmarks/whole_job.py [--save] [--small] [--rows 1e6 1e7] [--without NAME ...]

Each contestant is a program of its own that imports, opens the rows (8 columns of float32), fits
eight components with its own default start and end, and saves weights, means and covariances; they
have two processors. The log-likelihood of each is computed by us from what it saved. A contestant
that needs more than `--limit` seconds is ended, and left out of larger data.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common import table
from peers.environments import DEFAULT, InstallError, python_of
from stores import options, parse, publish, scratch

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from dask_em import GaussianMixture

D, K = 8, 8
CHUNK = 2**18
# Means are so many standard deviations apart, in each column: neighbours overlap.
APART = 1.5

SKLEARN = """
import sys
import numpy as np
from sklearn.mixture import GaussianMixture
model = GaussianMixture({k}, random_state=0).fit(np.load(sys.argv[1] + ".npy"))
np.savez(sys.argv[2], weights=model.weights_, means=model.means_, covariances=model.covariances_)
"""

ONEDAL = """
import sys
import daal4py, numpy as np
daal4py.daalinit(2)
X = np.load(sys.argv[1] + ".npy")
start = daal4py.em_gmm_init({k}, fptype="float", nTrials=1, nIterations=10, engine=daal4py.engines_mt19937(seed=0)).compute(X)
model = daal4py.em_gmm({k}, fptype="float", maxIterations=100, accuracyThreshold=1e-3).compute(X, start.weights, start.means, start.covariances)
np.savez(sys.argv[2], weights=model.weights.ravel(), means=model.means, covariances=np.stack(model.covariances))
"""  # noqa: E501

SPARK = """
import sys
import numpy as np
from pyspark.ml.clustering import GaussianMixture
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession
spark = (SparkSession.builder.master("local[2]").config("spark.driver.memory", "8g")
    .config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false").getOrCreate())
frame = spark.read.parquet(sys.argv[1] + ".parquet")
rows = VectorAssembler(inputCols=frame.columns, outputCol="features").transform(frame).select("features").cache()
model = GaussianMixture(k={k}, maxIter=100, tol=0.01, seed=0).fit(rows)
found = model.gaussiansDF.collect()
np.savez(sys.argv[2], weights=model.weights, means=[r["mean"].toArray() for r in found],
    covariances=[r["cov"].toArray() for r in found])
spark.stop()
"""  # noqa: E501

# What somebody writes who has Dask and an afternoon: k-means of a sample, then a task a block.
BY_HAND = """
import sys
import dask, dask.array as da, numpy as np
from distributed import Client, LocalCluster
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from sklearn.cluster import KMeans

def e_step(X, weights, means, factors):
    n, d = X.shape
    X = X.astype("float64")
    log = np.empty((n, len(weights)))
    for k, (mean, L) in enumerate(zip(means, factors)):
        Y = solve_triangular(L, (X - mean).T, lower=True)
        log[:, k] = np.log(weights[k]) - 0.5 * (Y**2).sum(0) - np.log(np.diag(L)).sum()
    log -= 0.5 * d * np.log(2 * np.pi)
    total = logsumexp(log, axis=1)
    resp = np.exp(log - total[:, None])
    second = np.stack([(resp[:, k, None] * X).T @ X for k in range(len(weights))])
    return [(resp.sum(0), resp.T @ X, second, total.sum(), n)]

def main():
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster, Client(cluster):
        X = da.from_zarr(sys.argv[1] + ".zarr")
        n, d = X.shape
        sample = X[:: max(n // 100_000, 1)].compute().astype("float64")
        means = KMeans({k}, n_init=1, random_state=0).fit(sample).cluster_centers_
        weights = np.full({k}, 1 / {k})
        covariances = np.stack([np.cov(sample.T) / 2] * {k})
        blocks = X.to_delayed().ravel()
        last = -np.inf
        for _ in range(100):
            factors = np.linalg.cholesky(covariances)
            parts = dask.compute(*[dask.delayed(e_step)(b, weights, means, factors) for b in blocks])
            r, first, second, ll, m = (sum(p[0][i] for p in parts) for i in range(5))
            weights, means = r / m, first / r[:, None]
            covariances = second / r[:, None, None] - np.einsum("ki,kj->kij", means, means) + 1e-6 * np.eye(d)
            if ll / m - last < 1e-3:
                break
            last = ll / m
        np.savez(sys.argv[2], weights=weights, means=means, covariances=covariances)

if __name__ == "__main__":
    main()
"""  # noqa: E501

# Name, whose environment, and the program.
PROGRAMS = {
    "scikit-learn": ("scikit-learn", SKLEARN),
    "oneDAL": ("oneDAL", ONEDAL),
    "Spark, local[2]": ("Spark", SPARK),
    "Dask by hand": ("ours", BY_HAND),
}
OURS = "ours"


@dataclass
class Entry:
    """What one contestant did with one size of data."""

    seconds: list[float] = field(default_factory=list)
    score: float = np.nan
    failure: str = ""

    @property
    def median(self) -> float:
        """Seconds of the whole process."""
        return statistics.median(self.seconds) if self.seconds else np.nan


def write(base: Path, n: int) -> None:
    """Write the same rows as Zarr, .npy and Parquet."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(K, D)).astype("float32") * np.float32(APART)
    store = zarr.create_array(
        f"{base}.zarr", shape=(n, D), chunks=(min(CHUNK, n), D), dtype="float32", compressors=None
    )
    plain = np.lib.format.open_memmap(f"{base}.npy", "w+", "float32", (n, D))
    names = [f"x{j}" for j in range(D)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with pq.ParquetWriter(f"{base}.parquet", schema) as parquet:
        for first in range(0, n, CHUNK):
            part = slice(first, min(first + CHUNK, n))
            count = part.stop - part.start
            X = rng.normal(size=(count, D)).astype("float32") + means[rng.integers(0, K, count)]
            store[part] = plain[part] = X
            columns = [np.ascontiguousarray(X[:, j]) for j in range(D)]
            parquet.write_table(pa.table(columns, names=names))
    plain.flush()


def run(command: list[str], limit: float) -> tuple[float, str]:
    """Seconds of a process, and what it said.

    Raises
    ------
    RuntimeError
        It failed, or was not done in time.
    """
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    # Threads are the contestants' own affair here: BLAS is pinned by none but us.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.pop(variable, None)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=environment, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise RuntimeError(f"> {limit:.0f} s") from e
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1][:100])
    return time.perf_counter() - start, done.stderr


def ours(base: Path, output: Path, limit: float) -> tuple[float, dict[str, float]]:
    """Seconds of `dask-em fit`, in all and of its parts, by the times of its log."""
    command = [
        *(str(Path(sys.executable).with_name("dask-em")), "fit", f"{base}.zarr", "-k", str(K)),
        *("-o", str(output), "--seed", "0", "--overwrite"),
    ]
    begun = time.time()
    seconds, said = run(command, limit)
    parts = {"imports, opening, workers": 0.0, "first pass": 0.0, "start": 0.0, "EM passes": 0.0}
    first, last = np.nan, begun
    for when, words in log_lines(said):
        spent = re.search(r" in ([0-9.]+) s", words)
        kind = next((k for k in ("survey", "start", "em") if words.startswith(k)), None)
        if spent and kind:
            name = {"survey": "first pass", "start": "start", "em": "EM passes"}[kind]
            parts[name] += float(spent[1])
            if np.isnan(first):
                first = when - float(spent[1])
        last = when
    parts["imports, opening, workers"] = first - begun
    known = sum(parts.values())
    parts["M-steps, between passes"] = max(last - begun - known, 0.0)
    parts["saving and closing"] = max(begun + seconds - last, 0.0)
    return seconds, parts


def log_lines(said: str) -> Iterator[tuple[float, str]]:
    """Yield the time and the words of each line of a log."""
    for line in said.splitlines():
        if found := re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) (.*)", line):
            moment = datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S")
            yield moment.timestamp() + int(found[2]) / 1000, found[3]


def score(base: Path, saved: Path) -> float:
    """Nats per row of what a contestant saved."""
    if saved.suffix == ".npz" and "weights" in (found := np.load(saved)):
        model = GaussianMixture.from_parameters(
            found["weights"] / found["weights"].sum(), found["means"], found["covariances"]
        )
    else:
        from dask_em import load

        model = load(saved)
    return float(model.score(f"{base}.zarr"))


def compete(
    base: Path, folder: Path, names: list[str], rounds: int, limit: float
) -> tuple[dict[str, Entry], dict[str, float]]:
    """Let all take turns with one size of data."""
    entries = {name: Entry() for name in [OURS, *names]}
    parts: list[dict[str, float]] = []
    for turn in range(rounds):
        for name, entry in entries.items():
            # One turn tells enough of who takes minutes.
            if entry.failure or (turn and entry.seconds[0] > limit / 5):
                continue
            output = folder / f"{re.sub('[^a-z]', '', name.lower())}.npz"
            try:
                if name == OURS:
                    seconds, found = ours(base, output, limit)
                    parts.append(found)
                else:
                    peer, program = PROGRAMS[name]
                    script = folder / "program.py"
                    script.write_text(program.replace("{k}", str(K)))
                    python = str(python_of(peer, DEFAULT))
                    seconds, _ = run([python, str(script), str(base), str(output)], limit)
            except (InstallError, RuntimeError) as error:
                entry.failure = str(error)
                print(name, entry.failure, flush=True)
                continue
            entry.seconds.append(seconds)
            if not turn:
                entry.score = score(base, output)
            print(f"{name}: {seconds:.2f} s, {entry.score:.6f} nats per row", flush=True)
    means = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    return entries, means


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", nargs="+", type=float, default=[1e6, 1e7])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", nargs="+", choices=list(PROGRAMS), default=[])
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of a contestant")
    arguments = parse(parser)
    sizes = [100_000] if arguments.small else [int(rows) for rows in arguments.rows]
    names = [name for name in PROGRAMS if name not in arguments.without]
    text = measure(arguments, sizes, names)
    publish(arguments, "A whole job", text)


def measure(arguments: argparse.Namespace, sizes: list[int], names: list[str]) -> str:
    """Both tables."""
    rows, seconds = [], []
    with scratch(arguments) as folder:
        for n in sizes:
            base = folder / f"{n}"
            write(base, n)
            entries, parts = compete(base, folder, names, arguments.rounds, arguments.limit)
            mine = entries[OURS].median
            for name, entry in entries.items():
                ratio = entry.median / mine
                rows.append(
                    [
                        f"{n:,}",
                        name,
                        entry.failure or f"{entry.median:.1f}",
                        "-" if entry.failure or name == OURS else f"{ratio:.1f}",
                        "-"
                        if np.isnan(entry.score)
                        else f"{entry.score - entries[OURS].score:+.4f}",
                    ]
                )
                if entry.failure:
                    names = [other for other in names if other != name]
            seconds += [
                [f"{n:,}", part, f"{s:.2f}", f"{s / mine:.0%}"] for part, s in parts.items()
            ]
            for path in folder.glob(f"{n}.*"):
                subprocess.run(["rm", "-rf", str(path)], check=True)
    first = table(["rows", "program", "s", "times ours", "nats per row above ours"], rows)
    second = table(["rows", "part of ours", "s", "share"], seconds)
    return f"{' '.join(__doc__.split(chr(10) * 2)[2].split())}\n\n{first}\n\n{second}"


if __name__ == "__main__":
    main()
