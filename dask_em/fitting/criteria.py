"""Criteria by which models are compared, and the table of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, NotRequired, TypedDict, get_args

import numpy as np

from ..core.codec import record
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..core.responsibilities import Assignment
from ..core.scoring import Scores

Criterion = Literal["bic", "aic", "icl", "holdout"]

# The status of a candidate that was given up.
DROPPED = "DROPPED"

# And of one that is left out of the choice: its likelihood is that of spikes, or of chance.
DEGENERATE = "DEGENERATE"


def check_criterion(criterion: str, holdout: float, assignments: Iterable[Assignment] = ()) -> None:
    """Raise `ValueError` where the two do not go together, or not with the models' assignments.

    Examples
    --------
    >>> check_criterion("holdout", 0.1)
    >>> check_criterion("holdout", 0.0)
    Traceback (most recent call last):
    ValueError: criterion='holdout' needs rows to score: pass holdout=0.1, say
    """
    if criterion not in get_args(Criterion):
        raise ValueError(
            f"criterion={criterion!r}: expected one of {', '.join(get_args(Criterion))}"
        )
    number = isinstance(holdout, int | float | np.number) and not isinstance(holdout, bool)
    if not number or not 0 <= holdout < 1:
        raise ValueError(f"holdout={holdout!r}: expected a number of at least 0 and below 1")
    if "hard" in assignments and (holdout or criterion == "holdout"):
        asked = f"holdout={holdout}" if holdout else f"criterion={criterion!r}"
        raise ValueError(
            f"{asked}: rows that no fit has seen are scored by their density, and K-means has "
            "none. Leave hold-out away, and choose by criterion='bic' (or 'aic', 'icl'), by the "
            "elbow of the inertia, which table and report have, or by the silhouette: with "
            "keep_all=True every model can be asked for it, by `dask-em score`, or in Python, by "
            "criteria(X)"
        )
    if criterion == "holdout" and not holdout:
        raise ValueError("criterion='holdout' needs rows to score: pass holdout=0.1, say")


# -- how good a model is -------------------------------------------------------------


def entropy(mixture: Mixture, statistics: MixtureStatistics) -> float:
    """Compute -sum_nk w_n r_nk log r_nk, in nats, from the sums of the E-step at `mixture`.

    log r_nk = log z_nk + log w_k + log p(x_n | k) - log p(x_n), where z_nk is one but of rows whose
    responsibilities are kept (Come et al. 2009), and the sum of r log p(x | k) is linear in the
    sufficient statistics, so that it takes no pass of its own.
    """
    joint = mixture.expected_log_joint(statistics) + statistics.evidence_sum
    return max(0.0, statistics.log_likelihood - joint)


def penalty(criterion: Criterion, n_parameters: int, weight: float) -> float:
    """Compute the penalty of `criterion` for p parameters and rows of this weight, in nats."""
    if criterion == "holdout":
        return 0.0
    return n_parameters * (1.0 if criterion == "aic" else 0.5 * float(np.log(weight)))


class Criteria(TypedDict):
    """Criteria of a model on some rows, and which rows those were.

    Attributes
    ----------
    n_rows : int
        Rows that were used, those of weight zero among them.
    n_dropped : int
        Rows of NaN or infinity that were left out.
    weight : float
        Sum of the weights of the rows used, which is their number where they have none.
    log_likelihood : float
        Mean per unit of weight, in nats.
    aic, bic, icl : float
        Lower is better; n of BIC is `weight`.
    inertia : float
        Of K-means: the sum of squared distances to the nearest centre, times weights.
    silhouette : float
        Of K-means: the mean simplified silhouette of a row, from -1 to 1; 0 of a single cluster.
    """

    n_rows: int
    n_dropped: int
    weight: float
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    inertia: NotRequired[float]
    silhouette: NotRequired[float]


def criteria(scores: Scores, n_dropped: int, n_parameters: int) -> Criteria:
    """Compute all criteria from the sums of a pass.

    Examples
    --------
    >>> found = criteria(Scores(2, 2.0, -6.0, 0.5), 0, 3)
    >>> found["log_likelihood"], found["aic"], round(found["icl"] - found["bic"], 9)
    (-3.0, 18.0, 1.0)
    """
    log_likelihood, weight = scores.log_likelihood, scores.weight
    bic = -2 * (log_likelihood - penalty("bic", n_parameters, weight))
    return {
        "n_rows": scores.n_rows,
        "n_dropped": n_dropped,
        "weight": weight,
        "log_likelihood": log_likelihood / weight,
        "aic": -2 * (log_likelihood - penalty("aic", n_parameters, weight)),
        "bic": bic,
        "icl": bic + 2 * scores.entropy,
    }


@record("candidate-row", 3)
@dataclass(frozen=True)
class Row:
    """One model in the table of a sweep.

    Attributes
    ----------
    n_components : int
    kind : str
        Which kind of components: a covariance structure, say.
    n_parameters : int
    log_likelihood : float
        Mean per row at the model's last pass, in nats.
    aic, bic, icl : float
        Lower is better.
    holdout : float or None
        Mean log-likelihood of a row held out, in nats: higher is better.
    n_passes : int
        Passes over the full data that served this model. A model of no pass was dropped
        on the word of the sample or of a slice, and its numbers are estimates: the winner's,
        and how much either says that this one is worse.
    status : str
        Why its fit ended, or DROPPED, or DEGENERATE.
    inertia : float or None
        Sum of the squared distances of rows to their centres, of families that have such.
    family : str
        The name of its family, where models of several families are compared.
    n_factors : int or None
        Number of factors of a component, of families that have such.
    """

    n_components: int
    kind: str
    n_parameters: int
    log_likelihood: float
    aic: float
    bic: float
    icl: float
    holdout: float | None
    n_passes: int
    status: str
    inertia: float | None = None
    family: str = ""
    n_factors: int | None = None

    def moved(self, nats: float, weight: float) -> Row:
        """Return the row with a log-likelihood `nats` higher for each of rows of this weight."""
        shift = 2 * weight * nats
        return replace(
            self,
            log_likelihood=self.log_likelihood + nats,
            aic=self.aic - shift,
            bic=self.bic - shift,
            icl=self.icl - shift,
        )

    def as_dict(self, kind: str) -> dict[str, Any]:
        """Return the row for JSON, which has no infinity: None where a number is not finite.

        Parameters
        ----------
        kind : str
            What the table calls the kind of components.
        """
        values = {kind if name == "kind" else name: v for name, v in asdict(self).items()}
        if self.inertia is None:
            del values["inertia"]
        if not self.family:
            del values["family"]
        if self.n_factors is None:
            del values["n_factors"]
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in values.items()
        }


RangeEnd = Literal["largest", "smallest"]


def range_end(n_components: int, tried: Iterable[int]) -> RangeEnd | None:
    """Return whether a winner stands at an end of the numbers of components that were tried.

    Nobody tries fewer than one.

    Examples
    --------
    >>> range_end(5, [2, 3, 5]), range_end(2, [2, 3, 5]), range_end(3, [2, 3, 5])
    ('largest', 'smallest', None)
    >>> range_end(1, [1, 2]), range_end(4, [4])
    (None, None)
    """
    numbers = {*tried}
    if len(numbers) > 1 and n_components == max(numbers):
        return "largest"
    return "smallest" if len(numbers) > 1 and 1 < n_components == min(numbers) else None


def kind_option_in(row: Mapping[str, Any]) -> str:
    """Return what a row of a table calls the kind of components.

    Examples
    --------
    >>> kind_option_in({"n_components": 2, "covariance_type": "", "bic": 3.0, "status": "DROPPED"})
    'covariance_type'
    """
    numbers = {field.name for field in fields(Row)} - {"kind"}
    named = (name for name, v in row.items() if name not in numbers and isinstance(v, str))
    return next(named, "kind")


def kind_in(row: Mapping[str, Any]) -> str:
    """Return the kind of components in a row of a table, whatever its column is called.

    Examples
    --------
    >>> kind_in({"n_components": 2, "covariance_type": "diag", "bic": 3.0, "status": "DROPPED"})
    'diag'
    """
    return str(row.get(kind_option_in(row), ""))


def model_in(row: Mapping[str, Any]) -> str:
    """Return the family, where there are several, the kind of components and factors of a row.

    Examples
    --------
    >>> model_in({"n_components": 2, "covariance_type": "diag", "family": "student-t"})
    'student-t diag'
    >>> model_in({"n_components": 2, "factor_constraint": "UUU", "n_factors": 3})
    'UUU q=3'
    """
    factors = f"q={row['n_factors']}" if row.get("n_factors") else ""
    return " ".join(filter(None, (str(row.get("family", "")), kind_in(row), factors)))


def elbow(n_components: Sequence[int], inertias: Sequence[float]) -> int | None:
    """Return the K at which inertia over K bends most; None where there are fewer than three.

    That is where the curve is farthest below the line from its first point to its last (Satopaa,
    Albrecht, Irwin and Raghavan 2011).

    Parameters
    ----------
    n_components : sequence of int
        Ascending.
    inertias : sequence of float

    Examples
    --------
    >>> elbow([1, 2, 3, 4, 5], [100.0, 60.0, 10.0, 9.0, 8.0])
    3
    >>> elbow([2, 3], [9.0, 8.0]) is None
    True
    """
    ks, values = np.asarray(n_components, dtype=float), np.asarray(inertias, dtype=float)
    if len(ks) < 3 or not values[0] > values[-1]:
        return None
    along = (ks - ks[0]) / (ks[-1] - ks[0])
    below = 1 - along - (values - values[-1]) / (values[0] - values[-1])
    return int(n_components[int(below.argmax())])
