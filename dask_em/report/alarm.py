"""Whether rows are still those that a model was fitted to: tests of one level in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from ..backends import backend_in_force
from ..core.additive import Additive, Array
from ..core.protocols import Pass, Source
from ..core.scoring import Predict
from ..data.columns import check_columns
from ..data.open import as_source, with_columns_beside
from ..data.times import Period, times_beside
from ..errors import UsageError
from ..estimators.describe import FittedMixture, mixture_moments
from ..fitting.observers import ObservedPass
from .drift import FEWEST_ROWS, ChunkDensities, Densities
from .periods import PeriodDensities, TimedDensities

# Rows that a component should have, for its share to be near a normal distribution.
FEWEST_EXPECTED = 25
# Tests of parts that are told, the least probable first.
MOST_TOLD = 20


@dataclass(frozen=True)
class Baseline:
    """Hold what a fit said of its own rows.

    Attributes
    ----------
    n_rows : float
        Their weight.
    log_density : float
        Mean of new rows of the same distribution, in nats: that of the fit's rows less p / n of p
        parameters, by which these are described better (Akaike 1974).
    weights : (k,) array
        Mean responsibilities.
    means, variances : (d,) array
        Of the columns; NaN where the family's means are not those of its rows.
    columns : sequence of str
        Their names.
    """

    n_rows: float
    log_density: float
    weights: Array
    means: Array
    variances: Array
    columns: Sequence[str]

    @classmethod
    def of(cls, model: FittedMixture) -> Baseline:
        """Read what a model keeps of its fit.

        Raises
        ------
        UsageError
            No pass over rows made it.
        """
        state = model.state_
        if not state.measured:
            raise UsageError("the baseline of a drift keeps no sums of its fit: fit it anew")
        if state.result.noise_box is not None:
            raise UsageError("drift is tested of components alone, and the baseline has noise")
        sums, components = state.statistics, state.result.components
        described = model.describe()
        # By an M-step of normals without a prior, the mixture's mean is that of the rows.
        exact = components.adaptable and not (components.has_prior or components.variational)
        means, deviations = mixture_moments(model.weights_, described)
        soft = state.mixture.assignment == "soft"
        optimism = state.mixture.n_parameters / sums.weight if soft else 0.0
        return cls(
            sums.weight,
            sums.mean_log_likelihood - optimism,
            np.asarray(sums.resp_sum / sums.weight),
            means if exact else np.full_like(means, np.nan),
            deviations**2,
            described.columns,
        )

    @property
    def names(self) -> list[tuple[str, str]]:
        """Statistics that are tested, and the component or column of each."""
        components = [("weight", f"component {k}") for k in range(len(self.weights))]
        return [("log-density", ""), *components, *(("mean", str(name)) for name in self.columns)]

    @property
    def expected(self) -> Array:
        """Expected value of each statistic, (1 + k + d,)."""
        return np.concatenate([[self.log_density], self.weights, self.means])

    def errors(self, parts: ChunkDensities) -> Array:
        """Compute how far each statistic of each part is from the fit's, (c, 1 + k + d).

        In standard errors of the difference of two samples, of which the fit's is one. The spread
        of log-densities is that of the part itself, so that nothing is asked of the model's
        truth. NaN where there are too few rows to tell.
        """
        n = parts.n_used[:, None].astype(float)
        both = 1 / np.maximum(n, 1) + 1 / self.n_rows
        own = np.maximum(n - 1, 1)
        w, shares = self.weights, parts.shares
        # Under no drift: as sharp as these rows are, and of the fit's shares.
        bernoulli = shares * (1 - shares)
        sharp = np.ones_like(shares)
        np.divide(parts.share_scatters / own, bernoulli, out=sharp, where=bernoulli > 1e-12)
        spread = np.minimum(sharp, 1.0) * w * (1 - w) * both
        spread[n * w < FEWEST_EXPECTED] = np.nan
        spread[:, w == 1] = np.nan
        columns = parts.column_scatters / own / np.maximum(n, 1) + self.variances / self.n_rows
        density = (parts.scatters[:, None] / own) * both
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = _statistics(parts) - self.expected
            found = apart / np.sqrt(np.hstack([density, spread, columns]))
        # The density of a row underflows: no chance makes that of rows like those of the fit.
        found[~parts.finite & (parts.n_used > 0), 0] = -np.inf
        found[parts.n_used < FEWEST_ROWS] = np.nan
        return np.asarray(found)


def _statistics(parts: ChunkDensities) -> Array:
    return np.hstack([parts.means[:, None], parts.shares, parts.column_means])


def drift_densities(
    model: FittedMixture, source: Source, callbacks: Sequence[Any]
) -> ChunkDensities:
    """Make the pass of a drift, at the very parameters of which the fit keeps sums."""
    return _passed(source, _work(model, source), callbacks)


def timed_densities(
    model: FittedMixture, source: Source, callbacks: Sequence[Any]
) -> TimedDensities:
    """Make the same pass over rows that have the numbers of their periods behind their columns."""
    return _passed(source, PeriodDensities(_work(model, source)), callbacks)


S = TypeVar("S", bound=Additive)


def _passed(source: Source, work: Pass[S], callbacks: Sequence[Any]) -> S:
    with ObservedPass(callbacks, "drift", 1, source.n_rows, source.nbytes) as running:
        return backend_in_force().map_reduce(source, work, running.advance)


def _work(model: FittedMixture, source: Source) -> Densities:
    """Return what is summed of rows."""
    check_columns("X", source.n_features, model.n_features_in_)
    drop = model.read_options.nonfinite == "drop"
    mixture = model.state_.mixture
    answer = Predict(mixture, ("log_density", "proba"), drop)
    support = mixture.components.support
    return Densities(answer, model.n_components, source.n_features, drop, support)


def drift_told(
    baseline: Baseline,
    parts: ChunkDensities,
    level: float,
    timed: tuple[Sequence[str], ChunkDensities] | None = None,
) -> dict[str, Any]:
    """Test all rows, each part and each period; an alarm is false at most at this level.

    The level is shared alike by all rows, the parts and the periods, as far as there are several,
    and within each of these by all its tests (Bonferroni). Rows are taken as drawn independently.

    Parameters
    ----------
    baseline : Baseline
    parts : ChunkDensities
    level : float
        Probability of an alarm where nothing drifted, between 0 and 1.
    timed : (sequence of str, ChunkDensities), optional
        What periods are called, and the densities of the rows of each.

    Returns
    -------
    dict
        For JSON: `alarm`, the least `p_value` (of all tests together), the statistics of all rows,
        the parts and the periods that are least probable, and the least p-value of each period.
    """
    whole = parts.whole
    overall = baseline.errors(whole)[0]
    nothing = np.full((0, len(overall)), np.nan)
    each = baseline.errors(parts) if len(parts.means) > 1 else nothing
    labels, periods = timed if timed is not None else ((), None)
    of_time = nothing if periods is None else baseline.errors(periods)
    shares = 1 + sum(bool(np.isfinite(errors).any()) for errors in (each, of_time))
    p_all, p_each, p_time = (_p_values(errors, shares) for errors in (overall, each, of_time))
    known = [p[~np.isnan(p)] for p in (p_all, p_each, p_time)]
    least = float(np.min([1.0, *np.concatenate([p.ravel() for p in known])]))
    values, names = _statistics(whole)[0], baseline.names
    found: dict[str, Any] = {
        "level": level,
        "alarm": bool(least <= level),
        "p_value": least,
        "n_rows": int(whole.n_used[0]),
        "n_tests": sum(p.size for p in known),
        "statistics": [
            {
                "what": what,
                "of": of,
                "value": float(values[i]),
                "expected": float(baseline.expected[i]),
                "errors": float(overall[i]),
                "p_value": float(p_all[i]),
            }
            for i, (what, of) in enumerate(names)
        ],
        "parts": [
            {"first_row": int(parts.first_rows[c]), "n_rows": int(parts.n_rows[c]), **told}
            for c, told in _past(each, p_each, level, names)
        ],
    }
    if periods is None:
        return found
    found["periods"] = [
        {"period": labels[c], "n_rows": int(periods.n_rows[c]), **told}
        for c, told in _past(of_time, p_time, level, names)
    ]
    by_period = np.min(np.where(np.isnan(p_time), 1.0, p_time), axis=1)
    found["by_period"] = [
        {
            "period": label,
            "n_rows": int(n),
            "log_density": float(mean),
            "p_value": float(p),
            "alarm": bool(p <= level),
        }
        for label, n, mean, p in zip(labels, periods.n_rows, periods.means, by_period, strict=True)
    ]
    return found


def _past(
    errors: Array, p_values: Array, level: float, names: Sequence[tuple[str, str]]
) -> list[tuple[int, dict[str, Any]]]:
    """Return the tests past a level, the least probable first, each with the number of its part."""
    order = np.argsort(p_values, axis=None)[: int((p_values <= level).sum())][:MOST_TOLD]
    places = [np.unravel_index(i, p_values.shape) for i in order]
    return [
        (
            int(c),
            {
                "what": names[i][0],
                "of": names[i][1],
                "errors": float(errors[c, i]),
                "p_value": float(p_values[c, i]),
            },
        )
        for c, i in places
    ]


def _p_values(errors: Array, shares: int) -> Array:
    """Return two-sided p-values that all tests together make, NaN where nothing was tested."""
    tail = np.vectorize(lambda z: 2 * NormalDist().cdf(-abs(z)), otypes=[float])
    p = tail(errors) if errors.size else errors.copy()
    tested = int((~np.isnan(errors)).sum())
    return np.asarray(np.minimum(p * shares * max(tested, 1), 1.0))


def drift_of(
    baseline: FittedMixture,
    X: Any,
    level: float = 0.01,
    time: Any = None,
    period: str | float | None = None,
    callbacks: Sequence[Any] = (),
) -> dict[str, Any]:
    """Test in one pass whether rows are still those that a model was fitted to.

    Parameters
    ----------
    baseline : fitted mixture
    X : the same kinds as in `fit`, (n, d)
    level : float, default=0.01
        Probability of an alarm where nothing drifted: of all tests together.
    time : array, Dask array, zarr.Array, path, or the name of a column of X, optional
        Dates or numbers of the rows, which are no features: each period is tested, too.
    period : str or float, optional
        "hour", "day" (the default), "week", "month" or "year" of dates in UTC; of numbers the
        width of a period, by default each is one.
    callbacks : sequence, optional
        Observers of the pass.

    Returns
    -------
    dict
        As `drift_told` has it.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> model = GaussianMixture(1).fit(rng.normal(size=(2000, 1)))
    >>> night = np.repeat([1, 2, 3], 500)
    >>> found = drift_of(model, rng.normal(size=(1500, 1)) + (night == 3)[:, None], time=night)
    >>> found["alarm"], [one["period"] for one in found["by_period"] if one["alarm"]]
    (True, ['3'])
    """
    known, options = Baseline.of(baseline), baseline.read_options
    if time is None:
        source = as_source(X, options=options)
        return drift_told(known, drift_densities(baseline, source, callbacks), level)
    source = as_source(X, options=with_columns_beside(options, time))
    source, how = times_beside(source, X, time, period, options)
    return timed_told(known, timed_densities(baseline, source, callbacks), how, level)


def timed_told(
    baseline: Baseline, found: TimedDensities, period: Period, level: float
) -> dict[str, Any]:
    """Test all rows, each part and each period, as `drift_told` does."""
    labels = [period.label(number) for number in found.numbers.tolist()]
    return drift_told(baseline, found.parts, level, (labels, found.periods))
