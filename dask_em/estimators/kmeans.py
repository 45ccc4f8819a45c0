"""K-means clustering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin

from ..core.em import Convergence, EMState, Status
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.objective import Objective
from ..core.responsibilities import Assignment
from ..core.scoring import Scores
from ..core.validation import require
from ..data.options import MissingChunks, Names, NonFinite
from ..families.centers.options import CentersOptions
from ..families.centers.scores import ClusterScore, ClusterScores
from ..fitting.criteria import Criteria, penalty
from ..fitting.driver import FittedModel
from ..fitting.observers import Observer
from ..fitting.starts import StartOptions
from ..fitting.survey import Surveyed
from .kmeans_parameters import KMeansParameters
from .options import check_choice, check_number
from .registry import register_estimator
from .saved import SavedModel, Stored

# By the names of `init`, those of the methods that make labels of the sample.
METHODS = {
    "auto": "auto",
    "k-means++": "k-means++",
    "k-means||": "k-means||",
    "random": "random_from_data",
}


@register_estimator("kmeans")
class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, KMeansParameters):  # type: ignore[misc]
    """K-means clustering of data of any size.

    Each pass reads every chunk once, gives each row to its nearest centre (one matrix product
    and an arg-min for a block of rows), and sums rows by cluster; their means are the next
    centres (Lloyd 1982). Between the passes the accelerated algorithm makes steps on the
    sample, corrected by every pass; the start is the best of several on the sample.

    Parameters
    ----------
    n_clusters : int, default=8
    init : {"auto", "k-means++", "k-means||", "random"} or (k, d) array, default="auto"
        How centres are drawn from the sample: by greedy k-means++ (Arthur and Vassilvitskii
        2007), by k-means|| (Bahmani et al. 2012), or rows at random. "auto" is k-means++, of small
        data the best of several runs of K-means. Accelerated, or "auto", every start is fitted to
        the sample before it meets the data. Centres that are given are not.
    n_init : int or "auto", default="auto"
        Starts tried on the sample; the best goes on to the full data. Accelerated, there are 1 to
        4, by what they cost, or `n_init` if that is more.
    max_iter : int, default=300
        Moves of the centres, and passes over the full data but for one more, which measures the
        last; 0 measures the start.
    tol : float, default=1e-4
        The fit has converged when the inertia is estimated to fall by less than this share of the
        mean variance of the columns yet, for each row; with algorithm="lloyd", when a pass gains
        less, or no centre moves.
    algorithm : {"auto", "lloyd"}, default="auto"
        Accelerated, or Lloyd's algorithm, iteration for iteration.
    spherical : bool, default=False
        Cluster directions, by the cosine: rows and centres are divided by their lengths
        (Dhillon and Modha 2001). Distances and inertia are then of rows of length one.
    sample_size, max_passes, max_time, nonfinite, missing_chunks, columns, exclude, features, raw
        As in `GaussianMixture`.
    random_state : int, RandomState or None
    warm_start : bool, default=False
        Start from the last result; on the same data, go on from where the last fit ended.
    callbacks, checkpoint, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    cluster_centers_ : (k, d) array
        float32 where X is.
    labels_ : (n,) array of int
        The cluster of each row: a NumPy array where X is in memory, else lazy, as `predict`
        returns it. A model that was read from a file has none.
    inertia_ : float
        Sum of squared distances of the rows to `cluster_centers_`, times their weights.
    n_iter_ : int
        Moves of the centres, those that were rejected among them; 1 at least.
    weights_ : (k,) array
        The share of the rows in each cluster.
    n_features_in_, feature_names_in_, converged_, status_, history_, n_reads_, n_passes_
        As in `GaussianMixture`.
    lower_bound_ : float
        Minus the inertia of a row, in mean variances of a column; `lower_bounds_` after every pass.
    state_ : EMState
        Centres of the best pass paired with their sums.
    provenance_ : dict

    Notes
    -----
    A cluster that loses all its rows goes to the row that is farthest from its centre, as in
    scikit-learn; which one does not depend on the number of workers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(1.0, 1.0, (200, 2)), rng.normal(9.0, 1.0, (100, 2))])
    >>> model = KMeans(2, random_state=0).fit(X)
    >>> np.sort(model.cluster_centers_, axis=0).round().tolist()
    [[1.0, 1.0], [9.0, 9.0]]
    >>> sorted(np.bincount(model.labels_).tolist()), model.transform(X).shape
    ([100, 200], (300, 2))
    """

    array_options: ClassVar[tuple[str, ...]] = ("init",)
    assignment: ClassVar[Assignment] = "hard"
    size_option: ClassVar[str] = "n_clusters"

    n_init: Any

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "auto",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        algorithm: str = "auto",
        spherical: bool = False,
        sample_size: int | None = None,
        max_passes: int | None = None,
        max_time: float | None = None,
        nonfinite: NonFinite = "error",
        missing_chunks: MissingChunks = "error",
        columns: Names = None,
        exclude: Names = None,
        features: str | None = None,
        raw: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        callbacks: Sequence[Callable[[EMState], object] | Observer] | None = None,
        checkpoint: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            n_clusters, tol=tol, max_iter=max_iter, n_init=n_init, algorithm=algorithm,
            sample_size=sample_size, max_passes=max_passes, max_time=max_time,
            nonfinite=nonfinite, missing_chunks=missing_chunks, columns=columns, exclude=exclude,
            features=features, raw=raw, random_state=random_state, warm_start=warm_start,
            callbacks=callbacks, checkpoint=checkpoint, verbose=verbose,
        )  # fmt: skip
        self.init = init
        self.spherical = spherical

    # -- options ---------------------------------------------------------------------

    @property
    def n_components(self) -> int:
        """The number of clusters, by the name that mixtures have for it."""
        return self.n_clusters

    @n_components.setter
    def n_components(self, n_components: int) -> None:
        self.n_clusters = n_components

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        check_number("n_clusters", self.n_clusters, int, 1)
        if self.n_init != "auto":
            check_number("n_init", self.n_init, int, 1)
        if isinstance(self.init, str):
            check_choice("init", self.init, METHODS)
        elif np.ndim(self.init) != 2:
            raise ValueError(
                f"init={self.init!r:.80}: expected one of {', '.join(METHODS)}, or an array of "
                "centres (n_clusters, n_features)"
            )
        check_choice("algorithm", self.algorithm, ("auto", "lloyd"))
        if not isinstance(self.spherical, bool | np.bool_):
            raise ValueError(f"spherical={self.spherical!r}: expected True or False")
        self.check_limits()

    def family_options(self) -> CentersOptions:
        """Return what the options say of the centres."""
        given = None if isinstance(self.init, str) else self.init
        return CentersOptions(bool(self.spherical), given)

    def start_options(self) -> StartOptions:
        """Return how the clusters are to start."""
        given = not isinstance(self.init, str)
        return replace(
            super().start_options(),
            n_init=1 if self.n_init == "auto" else self.n_init,
            init_params="auto" if given else METHODS[self.init],
            weights_init=np.full(self.n_clusters, 1 / self.n_clusters) if given else None,
            algorithm="em" if self.algorithm == "lloyd" else "auto",
            refined=self.algorithm == "auto",
        )

    def convergence(self) -> Convergence:
        """Return the limits at which a fit stops: a last pass measures the last move."""
        return Convergence(self.tol, self.max_iter + 1, self.max_passes)

    def remedy(self, status: Status) -> str:
        """Return why a fit ended so, and what to try."""
        if status is Status.COLLAPSED:
            return (
                "clusters are left without rows, as there are fewer distinct rows than n_clusters: "
                "lower n_clusters. Number of distinct clusters found smaller than n_clusters. "
                "Possibly due to duplicate points in X"
            )
        return super().remedy(status)

    def quick(self) -> Self:
        """Return an estimator that needs two moves from k-means++."""
        few = {"init": "k-means++", "algorithm": "lloyd", "max_iter": 2, "random_state": 0}
        return type(self)(**{**self.get_params(), **self.params_of_rows(), **few})

    # -- fitting -----------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: None = None,
        sample_weight: Any = None,
        labels_init: Any = None,
        labels_fixed: bool = False,
        noise_covariance: Any = None,
        keep_sample: int = 0,
    ) -> Self:
        """Estimate the centres with one survey pass and one pass a move, and one more.

        Parameters and errors are those of `GaussianMixture.fit`, but clusters know of no noise.
        With `labels_fixed` it is the seeded K-means, which keeps its seeds, of Basu, Banerjee and
        Mooney (2002).
        """
        super().fit(X, y, sample_weight, labels_init, labels_fixed, noise_covariance, keep_sample)
        self.labels_ = self.predict(X)
        return self

    def fit_predict(
        self,
        X: Any,
        y: None = None,
        sample_weight: Any = None,
        labels_init: Any = None,
        labels_fixed: bool = False,
        noise_covariance: Any = None,
    ) -> Any:
        """Fit, then return the cluster of every row: `labels_`."""
        fitted = self.fit(X, y, sample_weight, labels_init, labels_fixed, noise_covariance)
        return fitted.labels_

    def fit_transform(
        self,
        X: Any,
        y: None = None,
        sample_weight: Any = None,
        labels_init: Any = None,
        labels_fixed: bool = False,
        noise_covariance: Any = None,
    ) -> Any:
        """Fit, then compute the distance of every row to each centre."""
        fitted = self.fit(X, y, sample_weight, labels_init, labels_fixed, noise_covariance)
        return fitted.transform(X)

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last centres as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        last, now = self.cluster_centers_.shape, (self.n_clusters, self.n_features_in_)
        if last != now:
            raise ValueError(
                f"warm_start=True, but the last fit has cluster_centers_ of shape {last}, and this "
                f"one is to have {now}: set warm_start=False"
            )
        components = CentersOptions(bool(self.spherical)).of_data(moments, self.n_clusters)
        found = {"cluster_centers": self.fitted_array("cluster_centers_")}
        return replace(self.state_.result, components=components.with_parameters(found))

    def earlier(self, surveyed: Surveyed) -> Mixture | EMState:
        """Return where a warm start begins."""
        found = super().earlier(surveyed)
        if isinstance(found, EMState):
            return replace(found, result=found.mixture.m_step(found.statistics)[0])
        return found

    def set_fit(self, fitted: FittedModel, provenance: Mapping[str, Any]) -> None:
        """Take what a fit found: the centres that the best pass measured, not those after it."""
        state = fitted.state
        shares = state.mixture.with_shares(state.statistics.resp_sum)
        state = replace(state, result=shares)
        if isinstance(self.init, str) and not {"labels", "generations"} & provenance.keys():
            # The numbers of clusters do not depend on the order of the rows.
            centers = shares.components.attributes()["cluster_centers_"]
            state = state.reordered(np.lexsort(centers.T[::-1]).tolist())
        self.__dict__.pop("labels_", None)
        super().set_fit(replace(fitted, state=state), provenance)

    def set_state(self, state: EMState, dtype: Any = np.float64) -> None:
        """Take the state at which a fit ended, and make the attributes of it."""
        super().set_state(state, dtype)
        self.n_iter_ = max(1, state.n_iter - 1)
        inertia = state.mixture.components.inertia(state.statistics.components)
        assert inertia is not None, "centres have an inertia"
        self.inertia_ = inertia

    # -- answers -----------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def transform(self, X: Any) -> Any:
        """Compute the distance of each row to each centre, (n, k); lazy unless X is in memory.

        Chunks are those of `predict` along rows, and one along clusters. With spherical=True
        distances are of rows of length one: 2 - 2 cosine is their square. A row without an answer
        holds NaN.
        """
        squares = self._answer(X, "log_prob", False) * -(self._components.unit**2)
        return squares**0.5

    def score(
        self, X: Any, y: None = None, sample_weight: Any = None, noise_covariance: Any = None
    ) -> float:
        """Compute minus the inertia of X: one pass."""
        return -self.criteria(X, sample_weight, noise_covariance)["inertia"]

    def criteria(self, X: Any, sample_weight: Any = None, noise_covariance: Any = None) -> Criteria:
        """Compute inertia, simplified silhouette, AIC and BIC, all from one pass.

        The likelihood is that of Gaussians of one variance, each row in the cluster that it is
        nearest to, at its maximum in the variance and in the shares (X-means: Pelleg and Moore
        2000). Rows, weights, errors and what else the dict holds: as in `GaussianMixture.criteria`;
        of a hard assignment ICL is BIC.
        """
        return super().criteria(X, sample_weight, noise_covariance)

    def score_pass(self, mixture: Mixture) -> ClusterScore:
        """Return the pass that `criteria` makes."""
        return ClusterScore(mixture)

    def criteria_of(self, sums: Scores, n_dropped: int, mixture: Mixture) -> Criteria:
        """Return what `criteria` tells of the sums of its pass."""
        assert isinstance(sums, ClusterScores)
        d, weight = self.n_features_in_, sums.weight
        shares = sums.sizes[sums.sizes > 0] / weight
        with np.errstate(divide="ignore"):
            width = 1 + np.log(2 * np.pi * sums.inertia / (weight * d))
        log_likelihood = weight * float(shares @ np.log(shares) - d / 2 * width)
        p = mixture.n_parameters
        bic = -2 * (log_likelihood - penalty("bic", p, weight))
        return {
            "n_rows": sums.n_rows,
            "n_dropped": n_dropped,
            "weight": weight,
            "log_likelihood": log_likelihood / weight,
            "aic": -2 * (log_likelihood - penalty("aic", p, weight)),
            "bic": bic,
            "icl": bic,
            "inertia": sums.inertia,
            "silhouette": sums.silhouette / weight,
        }

    @property
    def objective_(self) -> Objective:
        """The objective that the fit lowered, and the value that it reached."""
        return Objective("inertia", self.inertia_)

    # -- files -------------------------------------------------------------------------

    def fitted_options(self) -> dict[str, Any]:
        """Return the options that the fit was of, whatever was set since."""
        word = self.init if isinstance(self.init, str) else "auto"
        return {
            "n_clusters": len(self.weights_),
            "init": word,
            "spherical": self._components.spherical,
        }

    @classmethod
    def stored(cls) -> Stored:
        """Return which of the parameters files hold: `init` is a word, or an array."""
        found = super().stored()
        return replace(found, options=found.options | {"init"})

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return the fitted estimator that a model file held.

        Raises
        ------
        KeyError, TypeError, ValueError
            A part is missing, or does not go with the others.
        """
        shape = saved.attributes["cluster_centers_"].shape
        given = saved.attributes.get("init")
        require("init", given, given is None or given.shape == shape)
        return super().from_saved(saved)
