"""The start of a mixture with noise: its box, and which rows of the sample are taken for noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.additive import Array
from ..core.box import Box
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.noise import NoisyMixture, beside_noise
from ..core.tuning import tuning
from ..errors import DataError
from .checks import Columns
from .sample import Sampled
from .survey import Surveyed


@dataclass(frozen=True)
class NoiseOptions:
    """Hold the options of noise.

    Attributes
    ----------
    volume : float or None
        In the units of the data; by default that of the box of all rows.
    share : float or None
        Of the rows that are noise at the start; by default as many as lie sparsely.

    Examples
    --------
    >>> round(NoiseOptions().box(Moments.unit(2)).volume, 9), NoiseOptions(8.0).volume
    (4.0, 8.0)
    """

    volume: float | None = None
    share: float | None = None

    def box(self, moments: Moments) -> Box:
        """Return the box of all data of these moments."""
        return Box.of(moments.low, moments.high, self.volume)

    def split(self, sample: Sampled, rows: Array, k: int) -> tuple[Sampled, Array, float]:
        """Return the rows of the sample that are no noise at first, and the share of the others.

        Parameters
        ----------
        sample : Sampled
        rows : (m, d) array
            The same in coordinates in which distances may be compared.
        k : int
            Components that are to be made of them: where too few rows are left, all are.

        Returns
        -------
        Sampled
        (m', d) array
            The coordinates of its rows.
        float
        """
        kept = ~likely_noise(rows, self.share)
        if len(np.unique(rows[kept], axis=0)) <= k:
            kept = np.ones(len(rows), dtype=bool)
        share = float(sample.weights[~kept].sum() / sample.weights.sum())
        return Sampled(sample.rows[kept], sample.weights[kept]), rows[kept], share

    def beside(
        self,
        mixture: Mixture,
        moments: Moments,
        share: float | None = None,
        held: Mapping[str, Sequence[int] | None] | None = None,
    ) -> NoisyMixture:
        """Return a mixture with noise beside its components, of which parts may be held.

        EM leaves neither of the shares 0 and 1, so that the noise begins with a little of both,
        and with an even share where nothing says more.
        """
        constants = tuning().noise
        if share is None:
            share = 0.5 if self.share is None else self.share
        share = min(max(share, constants.least_share), constants.most_share)
        return beside_noise(
            self.box(moments),
            share,
            mixture.log_weights,
            mixture.components,
            mixture.engine,
            mixture.assignment,
            held,
        )


def check_noise(
    options: Sequence[NoiseOptions], surveyed: Surveyed, names: Sequence[str] | Array | None
) -> None:
    """Refuse data whose box has no volume, where noise is to have that.

    Parameters
    ----------
    options : sequence of NoiseOptions
        Of each model that has noise.
    surveyed : Surveyed
    names : (d,) sequence of str or None
        Of the columns.

    Raises
    ------
    DataError
        A column does not vary.
    """
    constant = surveyed.constant_columns
    if constant and any(one.volume is None for one in options):
        columns = Columns(names)
        raise DataError(
            f"noise=True, and X does not vary in {columns.first(constant)}: the box of all rows "
            "has no volume; give noise_volume in the units of X, or leave the column "
            f"out{columns.leaving_out(constant)}"
        )


def likely_noise(rows: Array, share: float | None = None) -> Array:
    """Tell which of some rows lie as sparsely as noise does, (m,) bool.

    Where points lie at random, the volume within reach of the n-th neighbour has a gamma
    distribution, of rate their density. The volumes of all rows are taken for a mixture of two
    such, of clusters and of noise (Byers and Raftery, Journal of the American Statistical
    Association 93, 1998, section 2).

    Parameters
    ----------
    rows : (m, d) array
        In coordinates in which distances may be compared, in random order.
    share : float, optional
        Of the rows that are noise; the sparsest ones then are.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(size=(200, 2)), rng.uniform(-20, 20, (800, 2))])
    >>> rows = rows[rng.permutation(1000)]
    >>> noise = likely_noise(rows)
    >>> bool(noise[np.abs(rows).max(axis=1) > 5].mean() > 0.9)
    True
    """
    if len(rows) < 3:
        return np.zeros(len(rows), dtype=bool)
    volumes = _log_volumes(rows)
    if share is not None:
        return np.asarray(volumes > np.quantile(volumes, 1 - share))
    order, noise = tuning().noise.neighbours, volumes > np.median(volumes)
    for _ in range(tuning().noise.iterations):
        # Of each of the two: how many rows it has, and their mean volume.
        parts = [np.where(of, 1.0, 0.0) for of in (~noise, noise)]
        if not all(part.any() for part in parts):
            break
        means = [np.log((part @ np.exp(volumes)) / part.sum()) for part in parts]
        dense, sparse = (
            np.log(part.sum()) - order * mean - order * np.exp(volumes - mean)
            for part, mean in zip(parts, means, strict=True)
        )
        before, noise = noise, sparse > dense
        if (noise == before).all():
            break
    return np.asarray(noise)


def _log_volumes(rows: Array) -> Array:
    """Return log volumes within reach of the n-th neighbour, up to a constant, (m,).

    Neighbours are among the first rows alone, which lie in random order.
    """
    some = rows[: tuning().noise.references]
    n = min(tuning().noise.neighbours, len(some) - 1)
    reach = np.log(np.maximum(_distances(rows, some, n), np.finfo(np.float64).tiny))
    found = rows.shape[1] * (reach - np.median(reach))
    return np.asarray(np.clip(found, -50.0, 50.0))


def _distances(rows: Array, some: Array, n: int) -> Array:
    """Return the distance of each row (m, d) to its n-th neighbour among the first ones."""
    # scipy takes longer to import than all that reads a model file.
    from scipy.spatial import KDTree

    # Each of these is its own nearest.
    apart = np.asarray(KDTree(some).query(rows, [n, n + 1])[0])
    return np.where(np.arange(len(rows)) < len(some), apart[:, 1], apart[:, 0])
