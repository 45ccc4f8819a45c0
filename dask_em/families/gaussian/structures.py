"""M-steps of the fourteen structures of covariances of Celeux and Govaert.

Sigma_k = lambda_k D_k A_k D_k^T has a volume lambda_k = |Sigma_k|^(1/d), a shape A_k (diagonal, of
determinant 1) and an orientation D_k (orthogonal). The three letters of a name say of each in
turn whether it is equal for all components (E), free (V), or the identity (I). Source: Celeux and
Govaert, Gaussian parsimonious clustering models, Pattern Recognition 28 (1995), section 3 and
appendix. Names are those of mclust (Scrucca, Fop, Murphy and Raftery, The R Journal 8, 2016).

All functions take weights n_k = sum_n r_nk (k,) and unconstrained covariances S_k, matrices
(k, d, d) or diagonals (k, d), and return covariances of that shape that minimize
sum_k n_k (log |Sigma_k| + tr Sigma_k^-1 S_k). A component for which there is no minimum has NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning
from .common_axes import axes_of, common_axes, turned

NAMES = (
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE",
    "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
)  # fmt: skip
"""The fourteen structures, in mclust's order."""

SCIKIT_LEARN = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}
"""scikit-learn's names of four of them."""


def n_covariance_parameters(name: str) -> Callable[[int, int], int]:
    """Return (k, d) -> free parameters of the covariances of a structure.

    Examples
    --------
    >>> [n_covariance_parameters(name)(3, 4) for name in ("EII", "VEI", "EEV", "VVV")]
    [1, 6, 22, 30]
    """

    def count(k: int, d: int) -> int:
        each = {"I": 0, "E": 1, "V": k}
        volume, shape, orientation = (each[letter] for letter in name)
        return volume + shape * (d - 1) + orientation * (d * (d - 1) // 2)

    return count


def is_nested(inner: str, outer: str) -> bool:
    """Tell whether every mixture of the structure `inner` is one of the other structure `outer`.

    Examples
    --------
    >>> is_nested("EII", "VEI"), is_nested("EEE", "VEE"), is_nested("VEI", "EVE")
    (True, True, False)
    """
    freedom = "IEV".index
    return inner != outer and all(
        freedom(a) <= freedom(b) for a, b in zip(inner, outer, strict=True)
    )


def equal(weights: Array, covariances: Array) -> Array:
    """Return the weighted mean of the covariances for each of them: EII, EEI."""
    mean = np.einsum("k,k...->...", weights, covariances) / weights.sum()
    return np.broadcast_to(mean, covariances.shape)


# -- one shape ---------------------------------------------------------------------------


def proportional_diagonals(weights: Array, variances: Array, current: Array) -> Array:
    """Return lambda_k B of one diagonal B (VEI), from the volumes of `current` (k, d) on.

    Volumes and shape take turns (Celeux and Govaert, appendix), on a problem that is convex in
    their logarithms; each turn lowers what is minimized.

    Examples
    --------
    >>> S = np.array([[1.0, 4.0], [3.0, 12.0]])
    >>> proportional_diagonals(np.ones(2), S, np.ones((2, 2))).round(6).tolist()
    [[1.0, 4.0], [3.0, 12.0]]
    """
    found = np.full(variances.shape, np.nan)
    live = np.asarray(np.isfinite(variances).all(axis=1) & (variances.sum(axis=1) > 0))
    with np.errstate(all="ignore"):
        S, n = variances[live], weights[live, None]
        volumes = np.exp(np.log(current[live]).mean(axis=1))

        def shape_of(volumes: Array) -> Array:
            total = (n * S / volumes[:, None]).sum(axis=0)
            return np.asarray(total / np.exp(np.log(total).mean()))

        def volumes_of(shape: Array) -> Array:
            return np.asarray((S / shape).mean(axis=1))

        shape, volumes = _in_turns(n[:, 0], volumes, shape_of, volumes_of, S.shape[1])
        found[live] = volumes[:, None] * shape
    return found


def proportional_matrices(weights: Array, covariances: Array, current: Array) -> Array:
    """Return lambda_k C of one matrix C (VEE), from the volumes of `current` (k, d, d) on.

    Examples
    --------
    >>> S = np.stack([np.diag([1.0, 4.0]), np.diag([3.0, 12.0])])
    >>> found = proportional_matrices(np.ones(2), S, np.stack([np.eye(2)] * 2))
    >>> found[1].round(6).tolist()
    [[3.0, 0.0], [0.0, 12.0]]
    """
    d = covariances.shape[1]
    found = np.full(covariances.shape, np.nan)
    traces = np.einsum("kii->k", covariances)
    live = np.isfinite(covariances).all(axis=(1, 2)) & (traces > 0)
    S, n = covariances[live], weights[live]

    def matrix_of(volumes: Array) -> Array:
        total = np.einsum("k,kij->ij", n / volumes, S)
        sign, log_det = np.linalg.slogdet(total)
        return np.asarray(total / np.exp(log_det / d) if sign > 0 else np.full((d, d), np.nan))

    def volumes_of(matrix: Array) -> Array:
        if not np.isfinite(matrix).all():
            return np.full(len(S), np.nan)
        return np.asarray(np.einsum("ij,kji->k", np.linalg.inv(matrix), S) / d)

    with np.errstate(all="ignore"):
        matrix, volumes = _in_turns(n, _volumes(current[live]), matrix_of, volumes_of, d)
        found[live] = volumes[:, None, None] * matrix
    return found


def _in_turns(
    weights: Array,
    volumes: Array,
    shape_of: Callable[[Array], Array],
    volumes_of: Callable[[Array], Array],
    d: int,
) -> tuple[Array, Array]:
    """Return shape and volumes once another turn gains next to nothing."""
    constants, last = tuning().structures, np.inf
    for _ in range(constants.turns):
        shape = shape_of(volumes)
        volumes = volumes_of(shape)
        # Traces of Sigma_k^-1 S_k are d after each turn.
        value = float(d * (weights @ np.log(volumes)) / weights.sum())
        if not last - value > constants.gain:
            break
        last = value
    return shape, volumes


# -- one volume --------------------------------------------------------------------------


def equal_volume_diagonals(weights: Array, variances: Array) -> Array:
    """Return lambda B_k of diagonals B_k of determinant 1: EVI.

    Examples
    --------
    >>> equal_volume_diagonals(np.ones(2), np.array([[1.0, 4.0], [4.0, 4.0]])).tolist()
    [[1.5, 6.0], [3.0, 3.0]]
    """
    with np.errstate(all="ignore"):
        volumes = np.exp(np.log(variances).mean(axis=1))
        return _of_one_volume(weights, variances, volumes)


def equal_volume_matrices(weights: Array, covariances: Array) -> Array:
    """Return lambda C_k of matrices C_k of determinant 1: EVV.

    Examples
    --------
    >>> S = np.stack([np.eye(2), 3 * np.eye(2)])
    >>> equal_volume_matrices(np.ones(2), S)[0].round(6).tolist()
    [[2.0, 0.0], [0.0, 2.0]]
    """
    with np.errstate(all="ignore"):
        volumes = np.where(_are_definite(covariances), _volumes(covariances), np.nan)
        return _of_one_volume(weights, covariances, volumes)


def _of_one_volume(weights: Array, covariances: Array, volumes: Array) -> Array:
    """Return covariances made of one volume; those of no volume have NaN."""
    live = np.isfinite(volumes) & (volumes > 0)
    volume = weights[live] @ volumes[live] / weights[live].sum()
    factors = np.where(live, volume / np.where(live, volumes, 1.0), np.nan)
    return np.asarray(covariances * factors.reshape(-1, *[1] * (covariances.ndim - 1)))


def _volumes(covariances: Array) -> Array:
    """Compute |Sigma_k|^(1/d) of matrices (k, d, d), (k,); NaN where one is not positive."""
    signs, log_dets = np.linalg.slogdet(covariances)
    return np.where(signs > 0, np.exp(log_dets / covariances.shape[1]), np.nan)


def _are_definite(covariances: Array) -> Array:
    """Tell which matrices (k, d, d) have a shape that is more than rounding, (k,)."""
    whole = np.asarray(np.isfinite(covariances).all(axis=(1, 2)))
    values = np.linalg.eigvalsh(np.where(whole[:, None, None], covariances, 0.0))
    return np.asarray(values[:, 0] > tuning().structures.singular * values[:, -1])


# -- orientations of their own, one shape --------------------------------------------------


def equal_eigenvalues(weights: Array, covariances: Array) -> Array:
    """Return D_k (lambda A) D_k^T of eigenvalues that all share: EEV.

    Examples
    --------
    >>> S = np.stack([np.diag([1.0, 4.0]), np.diag([6.0, 3.0])])
    >>> equal_eigenvalues(np.ones(2), S)[1].round(6).tolist()
    [[5.0, 0.0], [0.0, 2.0]]
    """
    return _by_eigenvalues(covariances, lambda values: equal(weights, values))


def proportional_eigenvalues(weights: Array, covariances: Array, current: Array) -> Array:
    """Return lambda_k D_k A D_k^T of one shape A (VEV), from the volumes of `current` on.

    Examples
    --------
    >>> S = np.stack([np.diag([1.0, 4.0]), np.diag([8.0, 2.0])])
    >>> proportional_eigenvalues(np.ones(2), S, S)[1].round(6).tolist()
    [[8.0, 0.0], [0.0, 2.0]]
    """
    if not np.isfinite(current).all():
        return np.full(covariances.shape, np.nan)
    last = np.linalg.eigvalsh(current)
    return _by_eigenvalues(
        covariances, lambda values: proportional_diagonals(weights, values, last)
    )


def _by_eigenvalues(covariances: Array, estimate: Callable[[Array], Array]) -> Array:
    """Return the covariances with other eigenvalues; those that are no covariances have NaN."""
    found = np.full(covariances.shape, np.nan)
    if not np.isfinite(covariances).all():
        return found
    # Ascending in all alike, which is the best way to pair them (Celeux and Govaert, theorem A.1).
    values, axes = np.linalg.eigh(covariances)
    if not (values[:, -1] > 0).all():
        return found
    return turned(axes, estimate(np.maximum(values, 0.0)))


# -- one orientation -----------------------------------------------------------------------


def equal_axes(weights: Array, covariances: Array, current: Array) -> Array:
    """Return D (lambda_k A_k) D^T of one orientation D (VVE), found from that of `current` on.

    Examples
    --------
    >>> S = np.stack([np.diag([1.0, 4.0]), np.diag([8.0, 2.0])])
    >>> equal_axes(np.ones(2), S, S)[1].round(6).tolist()
    [[8.0, 0.0], [0.0, 2.0]]
    """
    return _with_common_axes(weights, covariances, current, one_volume=False)


def equal_axes_and_volume(weights: Array, covariances: Array, current: Array) -> Array:
    """Return lambda D A_k D^T of one volume and orientation (EVE), from those of `current` on.

    Examples
    --------
    >>> S = np.stack([np.diag([1.0, 4.0]), np.diag([8.0, 2.0])])
    >>> equal_axes_and_volume(np.ones(2), S, S)[1].round(6).tolist()
    [[6.0, 0.0], [0.0, 1.5]]
    """
    return _with_common_axes(weights, covariances, current, one_volume=True)


def _with_common_axes(
    weights: Array, covariances: Array, current: Array, one_volume: bool
) -> Array:
    found = np.full(covariances.shape, np.nan)
    live = _are_definite(covariances)
    if not live.any() or not np.isfinite(current).all():
        return found
    n, S = weights[live], covariances[live]
    pooled = np.einsum("k,kij->ij", n / n.sum(), S)
    starts = [axes_of(current), np.linalg.eigh(current[0])[1], np.linalg.eigh(pooled)[1]]
    axes = common_axes(n, S, starts, one_volume)
    inside = np.einsum("ji,kjl,li->ki", axes, S, axes, optimize=True)
    if one_volume:
        inside = equal_volume_diagonals(n, inside)
    found[live] = turned(axes, inside)
    return found
