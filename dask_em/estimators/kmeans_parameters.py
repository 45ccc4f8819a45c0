"""The parameters of fitted clusters: to and from mixtures, other programs, and draws."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.engine import Engine
from ..core.mixture import Mixture
from ..errors import UsageError
from ..families.centers.family import Centers
from ..families.centers.kernel import unit_rows
from ..families.centers.statistics import CenterStatistics
from .base import MixtureEstimator
from .describe import ClusterDescription, ComponentDescription, names_of_columns
from .options import check_n_samples

if TYPE_CHECKING:
    from sklearn.cluster import KMeans as SklearnKMeans

SKLEARN_ATTRIBUTES = (
    "cluster_centers_",
    "inertia_",
    "n_iter_",
    "n_features_in_",
    "feature_names_in_",
)


class KMeansParameters(MixtureEstimator):
    """The half of `KMeans` that knows what its attributes mean."""

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted centres, which a user may have set, to be computed by `engine`."""
        fitted = super().mixture(engine)
        components = self._components
        given = self.fitted_array("cluster_centers_")
        if not np.array_equal(given, components.attributes()["cluster_centers_"]):
            components = components.with_parameters({"cluster_centers": given})
        return replace(fitted, components=components)

    @property
    def _components(self) -> Centers:
        components = self.state_.result.components
        assert isinstance(components, Centers)
        return components

    @classmethod
    def from_parameters(  # type: ignore[override]
        cls, cluster_centers: Any, weights: Any = None, variances: Any = 0.0, **given: Any
    ) -> Self:
        """Return fitted clusters of these centres: nothing is read, and nothing fitted.

        It predicts, scores, is saved and exported as any. A fit starts from it with
        `warm_start=True`. Its `status_` is GIVEN, and its `inertia_` that of one row.

        Parameters
        ----------
        cluster_centers : (k, d) array
            With spherical=True they are divided by their lengths.
        weights : (k,) array, optional
            Shares of the rows, by default equal ones.
        variances : float or (k,) array, default=0.0
            Of a column within each cluster: `sample` alone has need of it.
        **given
            `feature_names`, and options, such as spherical=True.

        Raises
        ------
        ValueError
            A parameter, or an option, is none of those allowed.

        Examples
        --------
        >>> from dask_em import KMeans
        >>> two = KMeans.from_parameters([[0.0, 0.0], [9.0, 9.0]])
        >>> two.predict([[1.0, 2.0], [8.0, 7.0]]).tolist(), two.weights_.tolist()
        ([0, 1], [0.5, 0.5])
        """
        centers = np.asarray(cluster_centers, dtype=np.float64)
        if centers.ndim != 2 or not centers.size:
            raise ValueError(f"cluster_centers has shape {centers.shape}, expected (k, d)")
        if given.get("spherical") is True:
            centers = unit_rows(centers)
        k = len(centers)
        shares = np.full(k, 1 / k) if weights is None else weights
        model = super().from_parameters(shares, cluster_centers=centers, **given)
        widths = np.asarray(variances, dtype=np.float64)
        if widths.shape not in ((), (k,)) or not ((widths >= 0) & np.isfinite(widths)).all():
            raise ValueError(f"variances are {variances!r:.80}, expected one or {k}, none below 0")
        state = model.state_
        sums = state.statistics.components
        assert isinstance(sums, CenterStatistics)
        sums = replace(sums, squares=model.weights_ * centers.shape[1] * widths)
        model.set_state(replace(state, statistics=replace(state.statistics, components=sums)))
        return model

    def given_parameters(self) -> dict[str, Array]:
        """Return the centres, and the variance of a column within each cluster."""
        return {**super().given_parameters(), "variances": self._variances()}

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows (n, d) and their clusters (n,), from Gaussians of the clusters' variances.

        With spherical=True rows are of length one, as far from the centre of their cluster in the
        mean of squares.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        seed = self.random_state if isinstance(self.random_state, int) else None
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_samples, self.fitted_array("weights_"))
        components = np.repeat(np.arange(len(counts)), counts)
        rows = self.fitted_array("cluster_centers_")[components]
        variances, noise = self._variances()[components], rng.normal(size=rows.shape)
        if self._components.spherical:
            return directions_about(rows, self.n_features_in_ * variances, noise), components
        return rows + np.sqrt(variances)[:, None] * noise, components

    def _variances(self) -> Array:
        """Return the variance of a column within each cluster, (k,)."""
        sums = self.state_.statistics
        rows = np.where(sums.resp_sum > 0, sums.resp_sum, 1.0)
        assert isinstance(sums.components, CenterStatistics)
        return np.asarray(sums.components.squares / (rows * self.n_features_in_))

    def describe(self) -> ComponentDescription:
        """Describe the clusters in the units of the data, for tables and pictures."""
        check_is_fitted(self)
        centers = self.fitted_array("cluster_centers_")
        names = names_of_columns(getattr(self, "feature_names_in_", None), centers.shape[1])
        return ClusterDescription(self._components.structure, names, centers, self._variances())

    def to_sklearn(self) -> SklearnKMeans:
        """Return the same clusters as a fitted `sklearn.cluster.KMeans`.

        It has `labels_` where they are in memory.

        Raises
        ------
        UsageError
            They are of directions, which scikit-learn has not.
        """
        from sklearn.cluster import KMeans as SklearnKMeans

        check_is_fitted(self)
        if self._components.spherical:
            raise UsageError(
                "scikit-learn has no K-means of directions (spherical=True): divide rows by their "
                "lengths, and fit with spherical=False"
            )
        known = vars(self)
        seed = known["random_state"]
        model = SklearnKMeans(
            len(known["cluster_centers_"]), max_iter=known["max_iter"], random_state=seed
        )
        for name in SKLEARN_ATTRIBUTES:
            if name in known:
                setattr(model, name, known[name])
        if isinstance(known.get("labels_"), np.ndarray):
            # Of rows that are not in memory they are not, either.
            model.labels_ = known["labels_"]
        # Its own methods ask for how many threads the fit had.
        model._n_threads = 1
        return model


def directions_about(centers: Array, squares: Array, noise: Array) -> Array:
    """Return rows of length one (n, d), at squared distances of these means (n,) from centres.

    Parameters
    ----------
    centers : (n, d) array
        Of length one.
    squares : (n,) array
    noise : (n, d) array
        Standard normal.

    Examples
    --------
    >>> centers = np.tile([0.0, 1.0], (3, 1))
    >>> noise = np.array([[1.0, 5.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> rows = directions_about(centers, np.full(3, 0.5), noise)
    >>> ((rows - centers) ** 2).sum(axis=1).round(9).tolist()
    [0.5, 0.0, 0.5]
    """
    tangents = noise - (noise * centers).sum(axis=1, keepdims=True) * centers
    lengths = np.linalg.norm(tangents, axis=1)
    # Nothing on the sphere is farther than the opposite pole.
    found = np.minimum(squares * lengths**2 / max(1, centers.shape[1] - 1), 4.0)
    aside = np.sqrt(found - found**2 / 4) / np.where(lengths > 0, lengths, 1.0)
    return np.asarray((1 - found / 2)[:, None] * centers + aside[:, None] * tangents)
