"""Questions that normal components answer in closed form: distances, overlap, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.engine import NUMPY
from ..core.mixture import Mixture
from ..core.protocols import Source
from ..core.scoring import Answer, RowAnswers, SeveralAnswers
from ..errors import UsageError
from ..families.gaussian.distances import ChiSquarePvalues, Mahalanobis
from ..families.gaussian.family import Gaussian
from ..families.gaussian.overlap import bhattacharyya, entropy_bounds, misclassification
from .base import MixtureEstimator
from .questions import N_DRAWS, QuestionedMixture

# Pairs of components, times columns and what each pair costs besides, whose overlap is known
# exactly within about five seconds.
MOST_EXACT = 100_000


def normals_of(mixture: Mixture) -> Gaussian:
    """Return the components of a mixture of normals."""
    components = mixture.components
    assert isinstance(components, Gaussian)
    return components


class NormalMixture(QuestionedMixture):
    """The part of a mixture of normals that knows distances and overlaps of these."""

    def density(self) -> Mixture:
        """Return the mixture whose density is that of the model, and integrates to one.

        Of a posterior it is that of the mean weights, means and precisions.
        """
        mixture = super().density()
        normals = normals_of(mixture)
        if not normals.variational:
            return mixture
        parts = {f.name: getattr(normals, f.name) for f in fields(Gaussian)}
        log_weights = mixture.log_weights - np.logaddexp.reduce(mixture.log_weights)
        return Mixture(log_weights, Gaussian(**parts), mixture.engine)

    def mahalanobis(self, X: Any, as_frame: bool = False) -> Any:
        """Compute the Mahalanobis distance of each row to each component, (n, k).

        sqrt((x - mu_k)^T Sigma_k^{-1} (x - mu_k)); of a row that lacks values that of the columns
        that are observed.

        Parameters
        ----------
        X : the same kinds as in `fit`, (n, d)
        as_frame : bool, default=False
            As in `predict`.

        Returns
        -------
        array, (n, k)
            Lazy unless X is in memory, as those of `predict_proba`. A row without an answer holds
            NaN.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.array([[0.0], [2.0], [4.0]])
        >>> GaussianMixture(1, reg_covar=0).fit(X).mahalanobis(X).ravel().round(3).tolist()
        [1.225, 0.0, 1.225]
        """

        def make(source: Source) -> RowAnswers:
            return self.distances(source.dtype, source.n_rows)

        return self._answered(X, make, "mahalanobis", as_frame)

    def distances(self, dtype: Any = np.float64, n_rows: int | None = None) -> Mahalanobis:
        """Return a picklable function from rows (n, d) of this type to a dict of distances."""
        check_is_fitted(self)
        mixture, drop, reals = self._asked(dtype, n_rows)
        return Mahalanobis(mixture, normals_of(mixture), drop, reals)

    def pvalues(
        self,
        n_draws: int = N_DRAWS,
        random_state: int = 0,
        dtype: Any = np.float64,
        n_rows: int | None = None,
    ) -> RowAnswers:
        """Return a picklable function from rows (n, d) of this type to a dict of p-values."""
        self._without_noise("outlier_pvalues")
        if len(self.weights_) == 1:
            return ChiSquarePvalues(self.distances(dtype, n_rows))
        return super().pvalues(n_draws, random_state, dtype, n_rows)

    def overlap(self, n_draws: int | None = None, random_state: int = 0) -> Array:
        """Compute how often a row of component i is taken for one of j, (k, k), at [i, j].

        The probability, for x of component i, that w_j p_j(x) is larger than w_i p_i(x): w_{j|i} of
        Maitra and Melnykov, Journal of Computational and Graphical Statistics 19, 2010, as the
        `OmegaMap` of MixSim has them. Ones on the diagonal. The overlap of a pair is the sum of
        both.

        Parameters
        ----------
        n_draws : int, optional
            Estimate it by so many draws of each component, with the standard error
            sqrt(p (1 - p) / n_draws); by default it is exact to 1e-9, by the distribution of
            quadratic forms.
        random_state : int, default=0
            Of the draws.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.array([[-1.0], [1.0], [3.0], [5.0]])
        >>> start = {"means_init": [[0], [4]], "precisions_init": np.ones((2, 1, 1))}
        >>> model = GaussianMixture(2, max_iter=0, weights_init=[0.5, 0.5], **start).fit(X)
        >>> model.overlap().round(4).tolist()
        [[1.0, 0.0228], [0.0228, 1.0]]
        """
        if n_draws is not None:
            return super().overlap(n_draws, random_state)
        self._without_noise("overlap")
        mixture = self.mixture(NUMPY)
        return misclassification(normals_of(mixture), mixture.log_prior)

    def exact_overlap(self) -> Array | None:
        """Return `overlap`, or None where there is noise, or where it takes longer than seconds."""
        k, d = self.describe().means.shape
        if self.fitted_box is not None or k * k * (d + 20) > MOST_EXACT:
            return None
        return self.overlap()

    def bhattacharyya(self) -> Array:
        """Compute the Bhattacharyya distances of the components, (k, k).

        -log of the integral of sqrt(p_i(x) p_j(x)): 0 where two are the same.
        """
        check_is_fitted(self)
        return bhattacharyya(normals_of(self.mixture(NUMPY)))

    def entropy_bounds(self) -> tuple[float, float]:
        """Bound the entropy of the model from below and above, in nats, without draws.

        By Bhattacharyya distances and Kullback-Leibler divergences of all pairs of components
        (Kolchinsky and Tracey, Entropy 19, 2017).
        """
        mixture = self.density()
        return entropy_bounds(normals_of(mixture), mixture.log_weights)


def answers_of(
    model: MixtureEstimator,
    answers: Sequence[Answer],
    pvalues: bool,
    mahalanobis: bool,
    dtype: Any = np.float64,
    n_rows: int | None = None,
    noisy: bool = False,
    labels: Any = np.int64,
) -> RowAnswers:
    """Return a picklable function from rows (n, d) of this type to a dict of all answers.

    Parameters
    ----------
    model : estimator
    answers : sequence of Answer
        Of every mixture.
    pvalues, mahalanobis : bool
        Whether p-values of outliers, and Mahalanobis distances, are wanted beside them.
    dtype : dtype
    n_rows : int or None
    noisy : bool
        Whether the rows' known noise stands behind their columns.
    labels : dtype
        Of labels.

    Raises
    ------
    UsageError
        The model has no such answer.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(1).fit([[0.0], [2.0]])
    >>> answers_of(model, ["labels"], pvalues=True, mahalanobis=False).answers
    ('labels', 'pvalues')
    """
    if noisy and (pvalues or mahalanobis):
        raise UsageError("p-values and Mahalanobis distances are of rows without known noise")
    predictor = model.predictor(answers, dtype, n_rows, noisy)
    ways: list[RowAnswers] = [replace(predictor, labels=np.dtype(labels))]
    name = type(model).__name__
    if pvalues:
        if not isinstance(model, QuestionedMixture):
            raise UsageError(f"a {name} gives rows no p-values: expected a mixture of densities")
        ways.append(model.pvalues(dtype=dtype, n_rows=n_rows))
    if mahalanobis:
        if not isinstance(model, NormalMixture):
            raise UsageError(f"a {name} has no Mahalanobis distances: expected normal components")
        ways.append(model.distances(dtype, n_rows))
    return SeveralAnswers(tuple(ways)) if len(ways) > 1 else ways[0]
