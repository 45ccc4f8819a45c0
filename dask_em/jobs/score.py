"""The job that scores data under a saved model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from ..core.protocols import StoredSource
from ..data.open import stored_source, with_columns_beside
from ..data.times import Period, times_beside
from ..errors import UsageError
from ..estimators.describe import FittedMixture
from ..fitting.progress import reporter
from ..report.alarm import Baseline, drift_densities, drift_told, timed_densities, timed_told
from ..storage.outputs.writer import check_output_file, output_file
from .arguments import check_data, check_model, check_noise_path
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, load_to_read


def score(
    model_path: str,
    data: str,
    cluster: ClusterOptions,
    weights: str | None = None,
    noise_covariance: str | None = None,
    drift: str | None = None,
    alarm: float = 0.01,
    metrics: str | None = None,
    time_column: str | None = None,
    period: str | None = None,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Compute mean log-likelihood per row, AIC, BIC and ICL of a saved model, in one pass.

    With a model at `drift` a second pass tests at the level `alarm` whether rows are still those
    that it was fitted to, in each period of the time at `time_column`, too. `metrics` is a file for
    Prometheus.
    """
    order = "MODEL DATA"
    check_model(model_path, order)
    check_data(data, order=order)
    check_noise_path(noise_covariance)
    if drift is not None:
        check_model(drift, order)
        if weights is not None:
            raise UsageError("--drift counts each row once: leave --weights away")
        if noise_covariance is not None:
            raise UsageError("the drift is that of rows without known noise")
    elif time_column is not None:
        raise UsageError("--time cuts the rows of a drift into periods, and there is no --drift")
    if period is not None and time_column is None:
        raise UsageError("--period cuts a time, and there is no --time")
    if metrics is not None:
        check_output_file(metrics, overwrite=True)
    model = load_to_read(model_path, **reading)
    model.set_params(callbacks=[reporter()])
    options = with_columns_beside(model.read_options, time_column, noise_covariance)
    source = stored_source(data, weights, options)
    with workers_for(cluster, source.nbytes):
        found = {"weights": weights, **model.criteria(data, weights, noise_covariance)}
        if drift is not None:
            baseline = load_to_read(drift, **reading)
            if time_column is None:
                found["drift"] = _drift(baseline, source, alarm)
            else:
                timed, how = times_beside(source, data, time_column, period, options)
                found["drift"] = _timed_drift(baseline, timed, how, alarm)
    if metrics is not None:
        with output_file(metrics, overwrite=True) as output, output.open() as file:
            file.write(_prometheus(found).encode())
    return found


def _drift(baseline: FittedMixture, source: StoredSource, level: float) -> dict[str, Any]:
    known = Baseline.of(baseline)
    return drift_told(known, drift_densities(baseline, source, [reporter()]), level)


def _timed_drift(
    baseline: FittedMixture, source: StoredSource, period: Period, level: float
) -> dict[str, Any]:
    known = Baseline.of(baseline)
    return timed_told(known, timed_densities(baseline, source, [reporter()]), period, level)


def _prometheus(found: Mapping[str, Any]) -> str:
    """Return what was found in Prometheus' text format."""
    gauges = {"score_rows": found["n_rows"], "score_log_likelihood": found["log_likelihood"]}
    if (drift := found.get("drift")) is not None:
        gauges["drift_alarm"] = int(drift["alarm"])
        gauges["drift_p_value"] = drift["p_value"]
        gauges["drift_limit"] = drift["level"]
    gauges["score_timestamp_seconds"] = time.time()
    lines = [
        f"# TYPE dask_em_{name} gauge\ndask_em_{name} {value!r}\n" for name, value in gauges.items()
    ]
    if drift is not None:
        lines += _of_periods(drift.get("by_period", ()))
    return "".join(lines)


def _of_periods(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the gauges of each period, which its name tells apart."""
    lines = []
    for name, key in (("p_value", "p_value"), ("log_density", "log_density"), ("rows", "n_rows")):
        gauge = f"dask_em_drift_period_{name}"
        lines += [f"# TYPE {gauge} gauge\n"] * bool(found)
        lines += [f"{gauge}{_label(one['period'])} {one[key]!r}\n" for one in found]
    return lines


def _label(period: str) -> str:
    return '{period="' + period + '"}'
