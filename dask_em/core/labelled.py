"""The pass that sums under responsibilities which labels give: where a fit from labels begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .additive import Array
from .family import blocks
from .fleet import FleetStatistics
from .labels import given_responsibilities
from .mixture import Mixture
from .passes import Holdout
from .protocols import Fold, Pass


@dataclass(frozen=True)
class GivenResponsibilities(Pass[FleetStatistics]):
    """Sum the statistics of mixtures under responsibilities that labels give, not the E-step.

    The M-step of these sums is where a fit begins that starts from labels. Rows of which nothing is
    known count for nothing here.

    Attributes
    ----------
    mixtures : tuple of Mixture
        About whose centres the sums are.
    holdout : Holdout or None
        Rows that are left out.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> start = Mixture(np.log([0.5, 0.5]), GaussianOptions().of_data(Moments.unit(1), 2))
    >>> fold = GivenResponsibilities((start,)).fold()
    >>> X = np.array([[0.0], [2.0], [5.0]])
    >>> fold.update_labelled(0, X, None, np.array([0, 0, 1]))
    >>> fold.result().members[0].resp_sum
    array([2., 1.])
    """

    mixtures: tuple[Mixture, ...]
    holdout: Holdout | None = None

    def fold(self) -> GivenFold:
        """Return the fold of one range, before its first chunk."""
        return GivenFold(self)

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return sum(m.result_bytes for m in self.mixtures)


class GivenFold(Fold[FleetStatistics]):
    """Sum the statistics of labelled rows."""

    takes_labels = True

    def __init__(self, pass_: GivenResponsibilities) -> None:
        self._holdout = pass_.holdout
        self._kernels = [m.components.kernel(m.engine) for m in pass_.mixtures]
        self._mixtures = pass_.mixtures
        self._resp_sums = [np.zeros(m.n_parts) for m in pass_.mixtures]
        self._n_rows, self._weight = 0, 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the kernels."""
        return sum(kernel.nbytes for kernel in self._kernels)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add rows of which nothing is known: they count for nothing."""

    def update_labelled(
        self, index: int, X: Array, sample_weight: Array | None, labels: Array
    ) -> None:
        """Add the rows X (n, d) with weights (n,) and labels (n,) or responsibilities (n, k)."""
        if self._holdout is not None:
            _, sample_weight = self._holdout.split(index, len(X), sample_weight)
        known = labels >= 0 if labels.ndim == 1 else labels.any(axis=1)
        if sample_weight is not None:
            known &= sample_weight > 0
        X, labels = X[known], labels[known]
        weight = None if sample_weight is None else sample_weight[known]
        self._n_rows += len(X)
        self._weight += len(X) if weight is None else float(weight.sum())
        for mixture, kernel, resp_sum in zip(
            self._mixtures, self._kernels, self._resp_sums, strict=True
        ):
            k = len(mixture.log_weights)
            for rows in blocks(len(X), kernel.block_rows):
                resp = given_responsibilities(labels[rows], len(resp_sum))
                if weight is not None:
                    resp *= weight[rows]
                kernel.load(X[rows])
                kernel.accumulate(resp[:k])
                resp_sum += resp.sum(axis=1)

    def result(self) -> FleetStatistics:
        """Return the sums over all chunks given so far."""
        found = zip(self._mixtures, self._kernels, self._resp_sums, strict=True)
        members = tuple(
            mixture.statistics(
                self._n_rows,
                self._weight,
                0.0,
                resp_sum[: len(mixture.log_weights)],
                kernel.statistics(),
                float(resp_sum[len(mixture.log_weights) :].sum()),
            )
            for mixture, kernel, resp_sum in found
        )
        return FleetStatistics(members, 0.0, np.zeros(len(members)))
