"""Questions to a fitted mixture of whatever continuous components: outliers, entropy, clusters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.draws import Estimate, draw, log_density
from ..core.engine import NUMPY
from ..core.merging import MergedLabels, merged_by_entropy
from ..core.mixture import Mixture
from ..core.outliers import OutlierPvalues
from ..core.protocols import Source
from ..core.scoring import Predict, RowAnswers
from ..errors import UsageError
from ..fitting.checks import check_adaptation
from ..fitting.survey import Survey
from .base import MixtureEstimator
from .chosen_columns import column_numbers
from .fitted import real_type
from .merge_tree import MergeTree
from .options import check_number

logger = logging.getLogger("dask_em")

N_DRAWS = 100_000


class QuestionedMixture(MixtureEstimator):
    """The part of a mixture that answers questions about itself and about rows."""

    def _without_noise(self, question: str) -> None:
        """Raise `UsageError` where some of the rows are noise, of which there is no such answer."""
        check_is_fitted(self)
        if self.fitted_box is not None:
            raise UsageError(f"{question} is known of components alone, and this model has noise")

    def density(self) -> Mixture:
        """Return the mixture whose density is that of the model, and integrates to one."""
        self._without_noise("the density")
        return self.mixture(NUMPY)

    def _drawn(self, mixture: Mixture, n_draws: int, random_state: int) -> Array:
        check_number("n_draws", n_draws, int, 2)
        check_number("random_state", random_state, int, 0)
        rng, weights = np.random.default_rng(random_state), mixture.weights
        return draw(mixture.components, weights / weights.sum(), int(n_draws), rng)[0]

    # -- rows -------------------------------------------------------------------------

    def outlier_pvalues(
        self,
        X: Any,
        n_draws: int = N_DRAWS,
        random_state: int = 0,
        as_frame: bool = False,
    ) -> Any:
        """Compute how often the model draws a row of no larger density, (n,): small for outliers.

        Of the model's own data p-values are uniform between 0 and 1: 1 % of the rows are below
        0.01. They are (1 + m) / (1 + n_draws), of which m draws have no larger log p(x), so that
        the least is 1e-5 by default; of one Gaussian component they are exact, by the chi-square
        distribution of the squared Mahalanobis distance. Of a row that lacks values they are by the
        columns that are observed.

        Parameters
        ----------
        X : the same kinds as in `fit`, (n, d)
        n_draws : int, default=100_000
            Rows that are drawn from the model, once for all of X; where values are missing,
            compared once for each pattern of them in a chunk.
        random_state : int, default=0
            The same seed gives the same p-values.
        as_frame : bool, default=False
            As in `predict`.

        Returns
        -------
        array, (n,)
            Lazy unless X is in memory, as those of `predict`. A row without an answer holds NaN.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(1000, 2))
        >>> model = GaussianMixture(2, random_state=0).fit(X)
        >>> bool(abs((model.outlier_pvalues(X) < 0.1).mean() - 0.1) < 0.03)
        True
        >>> bool(model.outlier_pvalues([[9.0, 9.0]])[0] < 1e-4)
        True
        """
        check_is_fitted(self)
        check_number("n_draws", n_draws, int, 1)
        check_number("random_state", random_state, int, 0)

        def make(source: Source) -> RowAnswers:
            return self.pvalues(n_draws, random_state, source.dtype, source.n_rows)

        return self._answered(X, make, "pvalues", as_frame)

    def pvalues(
        self,
        n_draws: int = N_DRAWS,
        random_state: int = 0,
        dtype: Any = np.float64,
        n_rows: int | None = None,
    ) -> RowAnswers:
        """Return a picklable function from rows (n, d) of this type to a dict of p-values."""
        self._without_noise("outlier_pvalues")
        mixture, drop, reals = self._asked(dtype, n_rows)
        rng = np.random.default_rng(random_state)
        return OutlierPvalues.of(mixture, int(n_draws), rng, drop, reals)

    def _asked(self, dtype: Any, n_rows: int | None) -> tuple[Mixture, bool, np.dtype[Any]]:
        """Return what answers of rows of a type, whether some have none, and the answers' type."""
        reals = np.result_type(self.parameters_dtype, real_type(dtype))
        drop = self.read_options.nonfinite == "drop"
        return self.mixture(self._answering_engine(n_rows)), drop, reals

    def posterior_entropy(self, X: Any, as_frame: bool = False) -> Any:
        """Compute -sum_k r_nk log r_nk of each row, (n,), in nats; lazy unless X is in memory.

        0 where a row belongs to one component alone, log K where to all alike.
        """
        return self._answer(X, "entropy", as_frame)

    # -- the model --------------------------------------------------------------------

    def entropy(self, n_draws: int = N_DRAWS, random_state: int = 0) -> Estimate:
        """Estimate the entropy -E[log p(x)] of the model in nats, with its standard error.

        Parameters
        ----------
        n_draws : int, default=100_000
        random_state : int, default=0

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(1000, 1))
        >>> found = GaussianMixture(1).fit(X).entropy()
        >>> round(found.value, 1), found.standard_error < 0.01
        (1.4, True)
        """
        check_is_fitted(self)
        mixture = self.density()
        rows = self._drawn(mixture, n_draws, random_state)
        return Estimate.of(-log_density(mixture, rows))

    def overlap(self, n_draws: int | None = None, random_state: int = 0) -> Array:
        """Estimate how often a row of component i is taken for one of j, (k, k), at [i, j].

        The probability, for x of component i, that w_j p_j(x) is larger than w_i p_i(x) (Maitra and
        Melnykov 2010), by draws of each component; ones on the diagonal. Its standard error is
        sqrt(p (1 - p) / n_draws).

        Parameters
        ----------
        n_draws : int, default=100_000
            Of each component.
        random_state : int, default=0
        """
        self._without_noise("overlap")
        n = N_DRAWS if n_draws is None else n_draws
        check_number("n_draws", n, int, 1)
        check_number("random_state", random_state, int, 0)
        mixture, rng = self.mixture(NUMPY), np.random.default_rng(random_state)
        found = np.eye(len(mixture.log_weights))
        for i, row in enumerate(found):
            joint = Predict(mixture, ("log_prob",))(mixture.components.sample(i, int(n), rng))
            ahead = joint["log_prob"] > joint["log_prob"][:, [i]]
            row += ahead.mean(axis=0)
        return found

    def merge(
        self, X: Any, sample_weight: Any = None, sample_size: int = N_DRAWS, random_state: int = 0
    ) -> MergeTree:
        """Merge components into clusters, two at a time, by the entropy of the responsibilities.

        Where a cluster is not shaped as a component is, several make it up, and rows between them
        belong to none clearly. Of all pairs the two are merged whose merger lowers the entropy most
        (Baudry, Raftery, Celeux, Lo and Gottardo 2010; `clustCombi` of mclust). The density stays.

        Parameters
        ----------
        X : as in `fit`
            Read once.
        sample_weight : the same kinds, (n,), or the name of a column of X, optional
            A row of weight w counts as w rows.
        sample_size : int, default=100_000
            Rows, a uniform sample of X, that the entropies are of: all of them where there are no
            more.
        random_state : int, default=0
            Of the sample.

        Returns
        -------
        MergeTree
            Which are merged, first to last, the entropies, and labels by any number of clusters.
        """
        self._without_noise("merge")
        check_number("sample_size", sample_size, int, 1)
        check_number("random_state", random_state, int, 0)
        source = self.source(X, sample_weight)
        mixture = self.mixture(self._answering_engine(source.n_rows))
        survey = Survey(
            int(random_state), int(sample_size), source.n_features, source.n_rows,
            support=mixture.components.support, engine=mixture.engine,
        )  # fmt: skip
        found = self.sums(source, survey, "survey")
        names = vars(self).get("feature_names_in_")
        check_adaptation(source, found.sums, names)
        if found.log.n_dropped:
            logger.info("%d rows of NaN or infinity are left out of merge", found.log.n_dropped)
        sample = found.sums.sample.smallest()
        resp = Predict(mixture, ("proba",))(sample.rows)["proba"]
        mergers = merged_by_entropy(resp, sample.weights)
        weights = self.fitted_array("weights_")
        return MergeTree(mergers, weights, len(sample.rows), self._label_clusters)

    def _label_clusters(self, X: Any, clusters: Array) -> Any:
        def make(source: Source) -> RowAnswers:
            mixture, drop, _ = self._asked(source.dtype, source.n_rows)
            return MergedLabels(mixture, clusters, drop)

        return self._answered(X, make, "labels")

    def sorted(self, by: str | int = "weight") -> Self:
        """Return the same model with its components in another order.

        Parameters
        ----------
        by : "weight", or name or number of a column, default="weight"
            Heaviest first, or by the mean of a column, least first. A column called "weight" is
            asked for by its number.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.concatenate([np.random.default_rng(0).normal(m, 1, (100, 1)) for m in (9, 0)])
        >>> model = GaussianMixture(2, random_state=0).fit(X)
        >>> model.sorted(0).means_.round().ravel().tolist()
        [0.0, 9.0]
        """
        check_is_fitted(self)
        if isinstance(by, str) and by == "weight":
            keys = -self.fitted_array("weights_")
        else:
            names = vars(self).get("feature_names_in_")
            (column,) = column_numbers("by", by, names, self.n_features_in_)
            keys = self.mixture(NUMPY).components.moments()[0][:, column]
        return self._in_order(np.argsort(keys, kind="stable").tolist())

    def _in_order(self, order: Sequence[int]) -> Self:
        """Return a copy whose component i is number `order[i]` of this one."""
        state, _ = self.fitted_state()
        found = copy(self)
        held = self.held_parts(len(order))
        if held is not None:
            places = {c: i for i, c in enumerate(order)}
            moved = {
                name: None if of is None else sorted(places[c] for c in of)
                for name, of in held.items()
            }
            found.set_params(fixed=moved)
        found.set_state(state.reordered(order), self.parameters_dtype)
        return found


def kl_divergence(
    a: MixtureEstimator, b: MixtureEstimator, n_draws: int = N_DRAWS, random_state: int = 0
) -> Estimate:
    """Estimate the Kullback-Leibler divergence E_a[log p_a(x) - log p_b(x)] of two models, in nats.

    Parameters
    ----------
    a, b : GaussianMixture, StudentTMixture, ...
        Fitted, of the same columns in the same order. Draws are of `a`.
    n_draws : int, default=100_000
    random_state : int, default=0

    Returns
    -------
    Estimate
        `value`, `standard_error`, and the number of draws `n`. 0 where both are the same
        distribution; infinite where `a` draws rows that `b` excludes.

    Raises
    ------
    UsageError
        One is no such model, or they are of other columns.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture, kl_divergence
    >>> X = np.random.default_rng(0).normal(size=(1000, 1))
    >>> one, other = GaussianMixture(1).fit(X), GaussianMixture(1).fit(X + 2)
    >>> kl_divergence(one, one).value, round(kl_divergence(one, other).value)
    (0.0, 2)
    """
    for name, model in (("a", a), ("b", b)):
        if not isinstance(model, QuestionedMixture):
            raise UsageError(
                f"{name} is a {type(model).__name__}, expected a fitted mixture of densities, such "
                "as a GaussianMixture"
            )
        check_is_fitted(model)
    assert isinstance(a, QuestionedMixture)
    assert isinstance(b, QuestionedMixture)
    of_a, of_b = (tuple(vars(m).get("feature_names_in_", ())) for m in (a, b))
    if a.n_features_in_ != b.n_features_in_ or (of_a and of_b and of_a != of_b):
        raise UsageError(
            f"a and b are of other columns: {a.n_features_in_} ({', '.join(map(str, of_a))[:200]}) "
            f"and {b.n_features_in_} ({', '.join(map(str, of_b))[:200]})"
        )
    mine, theirs = a.density(), b.density()
    rows = a._drawn(mine, n_draws, random_state)
    return Estimate.of(log_density(mine, rows) - log_density(theirs, rows))
