"""Gaussian components of rows whose values are missing at random: EM on what is observed.

The likelihood of a row is the density of its observed columns, which is all that counts where
whether a value is missing depends on observed values alone (Rubin, Biometrika 63, 1976). What the
E-step sums are the rows with the means of what is missing in place of it, and its covariances
(`observed`), so the M-step, its constraints and priors are those of complete rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import blocks, register_family
from ...core.support import Support
from ...core.tuning import tuning
from ...errors import UsageError
from .column_coordinates import ColumnCoordinates
from .completed import CompletedGaussian
from .family import Gaussian
from .missing_kernel import MissingKernel, has_missing
from .patterns import Patterns
from .regularized import RegularizedGaussian

OBSERVED = Support(missing=(True,))
"""Every finite number, and NaN for a value that is missing."""


@register_family("gaussian-mar")
@dataclass(frozen=True)
class GaussianMissing(CompletedGaussian):
    """Hold Gaussian components of which rows tell some columns; NaN is a value that is missing.

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> wide = np.linalg.cholesky(np.array([[[1.0, 0.8], [0.8, 1.0]]]))
    >>> one = GaussianMissing(np.zeros((1, 2)), Full(wide), unit)
    >>> one.log_prob(np.array([[0.0, np.nan], [np.nan, np.nan]])).round(4).tolist()
    [[-0.9189], [0.0]]
    >>> one.conditional_means(np.array([[2.0, np.nan]]), np.ones((1, 1))).round(9).tolist()
    [[2.0, 1.6]]
    """

    @property
    def support(self) -> Support:
        """Every finite number, and NaN."""
        return OBSERVED

    @property
    def of_missing(self) -> str:
        return ""

    @property
    def structure(self) -> str:
        """The constraint in words, and that values may be missing."""
        return f"{super().structure}, values missing at random"

    def join_key(self, engine: Engine) -> Hashable:
        """Return the key that families to be `joined` share; None if this one is computed alone."""
        key = super().join_key(engine)
        return None if key is None else ("mar", key)

    def kernel(self, engine: Engine = NUMPY) -> MissingKernel:
        """Return a kernel of zero sums: the plain one, and beside it that of rows with holes."""
        if engine.device != "cpu":
            raise UsageError(
                f"device={engine.device!r}: rows of which values are missing "
                '(missing_values="mar") are computed on the CPU; pass device="cpu"'
            )
        return MissingKernel(self, self.kernel_of_all(engine), engine)

    def near(self, X: Array, resp: Array) -> Self:
        """Return components with the means of what is observed of the rows X (n, d)."""
        if not has_missing(X):
            return super().near(X, resp)
        missing = np.isnan(X)
        apart = np.where(missing, 0.0, X - self.whitening.shift)
        seen = resp.T @ ~missing
        means = resp.T @ apart / np.where(seen > 0, seen, 1.0)
        return replace(self, means=self.whitening.whiten(self.whitening.shift + means))

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) in whitened coordinates, with the means of what is missing."""
        if not has_missing(X):
            return super().coordinates(X)
        log_prob = self.log_prob(X)
        resp = np.exp(log_prob - log_prob.max(axis=1, keepdims=True))
        resp /= resp.sum(axis=1, keepdims=True)
        return super().coordinates(self.conditional_means(X, resp))

    # -- what is missing -----------------------------------------------------------------

    def conditional_means(self, X: Array, resp: Array) -> Array:
        """Return the rows X (n, d) with the means of what is missing, given what is observed.

        Parameters
        ----------
        X : (n, d) array
        resp : (n, k) array
            Responsibilities, by which the components' means are weighed.
        """
        out = np.array(X, dtype=np.float64)
        columns = ColumnCoordinates(self)
        means = self.whitening.unwhiten(self.means)
        for rows, patterns in self._with_holes(X):
            Z = columns.take(X[rows], patterns)
            filled = np.zeros_like(Z)
            for k, mean in enumerate(means):
                found = columns.completed(k, mean, Z, patterns)
                filled += resp[rows, k, None] * found
            out[rows] = np.where(np.isnan(X[rows]), filled, X[rows])
        return out

    def draws(self, X: Array, resp: Array, rng: np.random.Generator) -> Array:
        """Return the rows X (n, d) with one draw of what is missing, given what is observed.

        A component is drawn by `resp` (n, k), then the values: those of a row that is drawn
        whole, and what the conditional means of the two differ by.
        """
        out = np.array(X, dtype=np.float64)
        columns = ColumnCoordinates(self)
        means = self.whitening.unwhiten(self.means)
        reached = np.cumsum(resp, axis=1)
        drawn = rng.random(len(X)) * reached[:, -1]
        labels = np.minimum((reached <= drawn[:, None]).sum(axis=1), len(means) - 1)
        for k, mean in enumerate(means):
            mine = np.flatnonzero((labels == k) & np.isnan(X).any(axis=1))
            for some in blocks(len(mine), tuning().missing.most_rows):
                rows = X[mine[some]]
                missing = np.isnan(rows)
                patterns = Patterns.of(missing)
                whole = np.asarray(self.sample(k, len(rows), rng))
                expected, its = (
                    columns.completed(k, mean, columns.take(x, patterns), patterns)
                    for x in (rows, whole)
                )
                out[mine[some]] = np.where(missing, whole + expected - its, rows)
        return out

    def _with_holes(self, X: Array) -> Iterator[tuple[Array, Patterns]]:
        """Yield the numbers of rows that lack values, and their patterns, some at a time."""
        holes = np.flatnonzero(np.isnan(X).any(axis=1))
        for some in blocks(len(holes), tuning().missing.most_rows):
            rows = holes[some]
            yield rows, Patterns.of(np.isnan(X[rows]))


@register_family("gaussian-regularized-mar")
@dataclass(frozen=True)
class RegularizedGaussianMissing(GaussianMissing, RegularizedGaussian):
    """Hold such components with a conjugate prior, a bound on eigenvalues, or both.

    Examples
    --------
    >>> RegularizedGaussianMissing.linear, issubclass(RegularizedGaussianMissing, Gaussian)
    (False, True)
    """


def drawn_from_one(normal: GaussianMissing, rows: Array) -> Array:
    """Return rows (m, d) with draws of what is missing, from one normal fitted to some of them.

    Parameters
    ----------
    normal : GaussianMissing
        One component, where EM begins.
    rows : (m, d) array

    Examples
    --------
    >>> from ...core.moments import Moments
    >>> from .options import GaussianOptions
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(300, 1)) + 0.1 * rng.normal(size=(300, 2))
    >>> holes = rows.copy()
    >>> holes[:100, 1] = np.nan
    >>> normal = GaussianOptions(missing=True).one_normal(Moments.of(rows))
    >>> found = drawn_from_one(normal, holes)
    >>> bool(np.corrcoef(found[:100].T)[0, 1] > 0.9), bool((found[100:] == rows[100:]).all())
    (True, True)
    """
    constants = tuning().missing
    some = rows[: constants.start_rows]
    resp = np.ones((len(some), 1))
    for _ in range(constants.start_iterations):
        sums = normal.sufficient_statistics(some, resp)
        normal, _ = normal.maximize(np.array([float(len(some))]), sums)
    return normal.draws(rows, np.ones((len(rows), 1)), np.random.default_rng(0))


def with_missing(components: Gaussian) -> Gaussian:
    """Return the components as those of rows of which values may be missing.

    Examples
    --------
    >>> from .options import GaussianOptions
    >>> from ...core.moments import Moments
    >>> with_missing(GaussianOptions().of_data(Moments.unit(2), 1)).support.missing
    (True,)
    """
    own = {f.name: getattr(components, f.name) for f in fields(components)}
    if isinstance(components, RegularizedGaussian):
        return RegularizedGaussianMissing(**own)
    return GaussianMissing(**own)
