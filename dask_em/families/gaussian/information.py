"""Standard errors of Gaussian mixtures, by the empirical information: one additive pass.

The scores of the rows, derivatives of log p(x_n) by the free parameters, sum to zero at the
maximum; the sum of their outer products estimates the information (McLachlan and Peel, Finite
Mixture Models, 2000, section 2.15.3), and the delta method takes its inverse to the parameters.

The free parameters are chosen so that their information is near the identity: logits of the
weights; for each component with the Cholesky factor F of its covariance the vector a of
mean = mu + F a, and the symmetric matrix S of Sigma = F (1 + S) F^T, both zero. Of
u = F^{-1} (x - mu) the scores are r u and r (u u^T - 1) / 2. Where values are missing, u and u u^T
are what is expected of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.information import InformationSums, inverse_information
from ...core.mixture import Mixture
from ...core.protocols import Fold, Pass
from ...core.scoring import joint_blocks
from ...core.tuning import tuning
from .conditional import in_columns
from .diagonals import Uncorrelated
from .factors import symmetric_pairs
from .family import Gaussian
from .patterns import Patterns

# Constraints under which S is free: of each component, or one for all.
OF_EACH, OF_ALL = ("full", "diag", "spherical"), ("tied", "EEI", "EII")
KINDS = (*OF_EACH, *OF_ALL)


@dataclass(frozen=True)
class Information(Pass[InformationSums]):
    """Describe the pass that sums the outer products of scores.

    They are by the logits of the weights, k, the vectors of the means, k d, and the matrices of the
    covariances, entry by entry of those that are free.

    Attributes
    ----------
    mixture : Mixture
    normals : Gaussian
        The same components that the mixture has, of a constraint of `KINDS`.

    Examples
    --------
    >>> from ...core.moments import Moments
    >>> from .options import GaussianOptions
    >>> normal = GaussianOptions().of_data(Moments.unit(1), 1)
    >>> fold = Information(Mixture(np.zeros(1), normal), normal).fold()
    >>> fold.update(0, np.array([[-1.0], [1.0]]), None)
    >>> fold.result().products.shape, fold.result().products[1, 1].round(3).tolist()
    ((3, 3), 2.0)
    """

    mixture: Mixture
    normals: Gaussian

    @property
    def n_scores(self) -> int:
        """Scores of a row, of which one is given by the others: that of a weight."""
        k, d = self.normals.means.shape
        n_matrices = 1 if self.normals.kind in OF_ALL else k
        return int(k + k * d + n_matrices * n_entries(self.normals))

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums."""
        return 8 * self.n_scores**2

    def fold(self) -> InformationFold:
        """Return the fold of one range, before its first chunk."""
        return InformationFold(self)


def n_entries(normals: Gaussian) -> int:
    """Count the free entries of one matrix S.

    Examples
    --------
    >>> from ...core.moments import Moments
    >>> from .options import GaussianOptions
    >>> [n_entries(GaussianOptions(kind).of_data(Moments.unit(3), 2)) for kind in KINDS]
    [6, 3, 1, 6, 3, 1]
    """
    d = normals.n_features
    few = {"diag": d, "spherical": 1}
    return int(few.get(normals.covariance.kind, d * (d + 1) // 2))


class InformationFold(Fold[InformationSums]):
    """Sum the outer products of scores over chunks of rows."""

    def __init__(self, work: Information) -> None:
        self.work = work
        self._scores = _Scores(work)
        self._n_rows = 0
        self._products = np.zeros((work.n_scores, work.n_scores))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        nothing = np.zeros(len(self.work.mixture.log_weights))
        if sample_weight is not None and not sample_weight.all():
            X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
        self._n_rows += len(X)
        size = max(32, tuning().numpy_kernel.cached // self.work.n_scores)
        for numbers, log_joint, arithmetic in joint_blocks(self.work.mixture, X):
            resp, _ = arithmetic.normalize(log_joint, nothing)
            block, R = X[numbers], arithmetic.fetch(resp)
            weight = None if sample_weight is None else sample_weight[numbers]
            for rows in blocks(len(block), size):
                S = self._scores.of(block[rows], R[:, rows])
                self._products += S.T @ (S if weight is None else S * weight[rows, None])

    def result(self) -> InformationSums:
        """Return the sums over all chunks given so far."""
        return InformationSums(self._n_rows, self._products)


class _Scores:
    """Derivatives of log p(x) by all parameters, row by row.

    Parameters
    ----------
    work : Information
    """

    def __init__(self, work: Information) -> None:
        whole = in_columns(work.normals)
        k, d = whole.means.shape
        self._weights, self._means = work.mixture.weights, whole.means
        self._whitening, self._n_scores = whole.whitening, work.n_scores
        self._shared = whole.kind in OF_ALL
        self._storage = whole.covariance.kind
        self._deviations: Array | None = None
        if isinstance(whole.covariance, Uncorrelated):
            self._deviations = np.sqrt(np.broadcast_to(whole.covariance.variances(d), (k, d)))
        else:
            self._factor = whole.covariance.factor.reshape(-1, d, d)
        self._pairs = symmetric_pairs(d)
        # Half of u_i u_j for i = j; each pair i, j stands for two entries.
        self._halves = np.where(self._pairs[0] == self._pairs[1], 0.5, 1.0)

    def of(self, X: Array, resp: Array) -> Array:
        """Return the scores (n, p) of rows X (n, d) with responsibilities (k, n)."""
        k, d = self._means.shape
        out = np.empty((len(X), self._n_scores))
        out[:, :k] = resp.T - self._weights
        Z = (X - self._whitening.shift) / self._whitening.scale
        patterns = Patterns.of(np.isnan(Z))
        for alike in patterns.groups(1):
            rows = patterns.order[alike]
            seen = np.flatnonzero(~patterns.missing[alike.start])
            U, known = self._standardized(Z[rows], seen)
            r = resp[:, rows, None]
            out[rows, k : k + k * d] = (r * U).transpose(1, 0, 2).reshape(len(rows), -1)
            scores = r * self._of_matrix(U, known)
            by_row = scores.sum(axis=0) if self._shared else scores.transpose(1, 0, 2)
            out[rows, k + k * d :] = by_row.reshape(len(rows), -1)
        return out

    def _standardized(self, Z: Array, seen: Array) -> tuple[Array, Array]:
        """Return u, or what is expected of it, (k, n, d), and which directions of it are known.

        The latter are projections (k or 1, d, d), or their diagonals (1, d).
        """
        k, d = self._means.shape
        if self._deviations is not None:
            known = np.zeros((1, d))
            known[:, seen] = 1.0
            Z = np.where(known, Z, 0.0)
            return (Z - self._means[:, None]) * known / self._deviations[:, None], known
        # The rows of the factor that are seen are R^T Q^T: Q^T u is known, and the rest unknown.
        Q, R = np.linalg.qr(np.swapaxes(self._factor[:, seen], 1, 2))
        apart = (Z[None][:, :, seen] - self._means[:, None, seen]).transpose(0, 2, 1)
        lower = np.broadcast_to(np.swapaxes(R, 1, 2), (k, len(seen), len(seen)))
        white = np.linalg.solve(lower, apart) if len(seen) else apart
        return (Q @ white).transpose(0, 2, 1), Q @ np.swapaxes(Q, 1, 2)

    def _of_matrix(self, U: Array, known: Array) -> Array:
        """Return (u u^T - what a normal would have of it) / 2 in the free entries, (k, n, e)."""
        if self._deviations is None:
            i, j = self._pairs
            return np.asarray((U[:, :, i] * U[:, :, j] - known[:, None, i, j]) * self._halves)
        halves = 0.5 * (U**2 - known[:, None])
        return np.asarray(
            halves.sum(axis=2, keepdims=True) if self._storage == "spherical" else halves
        )


def standard_errors(
    mixture: Mixture,
    normals: Gaussian,
    products: Array,
    held: Mapping[str, Sequence[int]],
) -> dict[str, Array]:
    """Compute the standard errors of weights, means and covariances, by the delta method.

    Parameters
    ----------
    mixture : Mixture
    normals : Gaussian
        Its components.
    products : (p, p) array
        What the pass summed.
    held : mapping of str to sequence of int
        Components whose "weights", "means" or "covariances" are known: these have the error 0.

    Returns
    -------
    dict
        Arrays of the shapes of `weights_`, `means_` and `covariances_`, NaN where the parameters
        are not identified.
    """
    k, d = normals.means.shape
    free_weights = [i for i in range(k) if i not in held.get("weights", ())]
    free = np.zeros(len(products), dtype=bool)
    # Of the logits one is given by the others.
    free[free_weights[1:]] = True
    means, matrices = k + np.arange(k * d).reshape(k, d), k + k * d
    free[means[[i for i in range(k) if i not in held.get("means", ())]]] = True
    n = n_entries(normals)
    shared = normals.kind in OF_ALL
    entries = matrices + np.arange(n if shared else k * n).reshape(-1, n)
    moved = [i for i in range(len(entries)) if i not in held.get("covariances", ())]
    free[entries[moved]] = True
    left = 1 - float(mixture.weights[[i for i in range(k) if i not in free_weights]].sum())
    products = _with_logits(products, mixture.weights, free_weights, left)
    inverse = inverse_information(products[np.ix_(free, free)]) if free.any() else np.zeros((0, 0))
    if inverse is None:
        shapes = {
            "weights_": (k,),
            "means_": (k, d),
            "covariances_": normals.covariance.factor.shape,
        }
        return {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    variances = np.zeros_like(products)
    variances[np.ix_(free, free)] = inverse
    return {
        "weights_": _of_weights(mixture.weights, free_weights, left, variances),
        "means_": np.sqrt(_of_means(normals, variances[k:matrices, k:matrices])),
        "covariances_": np.sqrt(_of_covariances(normals, variances, entries)),
    }


def _with_logits(products: Array, weights: Array, free: Sequence[int], left: float) -> Array:
    """Return sums by the logits of those weights that share what is `left` by the held ones."""
    index = list(free)
    if len(index) == len(weights) or len(index) < 2:
        return products
    # The score of a logit is r_j - w_j sum_i r_i / left over those that are free.
    change = np.eye(len(products))
    change[np.ix_(index, index)] -= np.outer(weights[index] / left, np.ones(len(index)))
    found = change @ products @ change.T
    return np.asarray(found)


def _of_weights(weights: Array, free: Sequence[int], left: float, variances: Array) -> Array:
    found = np.zeros(len(weights))
    index = list(free)
    q = weights[index]
    J = np.diag(q) - np.outer(q, q) / left
    own = variances[np.ix_(index, index)]
    found[index] = np.sqrt(np.maximum(np.einsum("ci,ij,cj->c", J, own, J), 0.0))
    return found


def _factors(normals: Gaussian) -> Array:
    """Return factors of the covariances in the units of the data, (k, d, d)."""
    k, d = normals.means.shape
    whole = in_columns(normals)
    covariance, scale = whole.covariance, whole.whitening.scale
    if isinstance(covariance, Uncorrelated):
        deviations = scale * np.sqrt(np.broadcast_to(covariance.variances(d), (k, d)))
        return np.asarray(deviations[:, :, None] * np.eye(d))
    return np.broadcast_to(scale[:, None] * covariance.factor, (k, d, d))


def _of_means(normals: Gaussian, variances: Array) -> Array:
    """Return the variances of the means (k, d)."""
    k, d = normals.means.shape
    own = np.einsum("kikj->kij", variances.reshape(k, d, k, d))
    F = _factors(normals)
    return np.asarray(np.maximum(np.einsum("kia,kab,kib->ki", F, own, F), 0.0))


def _of_covariances(normals: Gaussian, variances: Array, entries: Array) -> Array:
    """Return the variances of the covariances, in the shape of the attribute."""
    F = _factors(normals)
    d = normals.n_features
    found = []
    for own, factor in zip(entries, F, strict=False):
        A = variances[np.ix_(own, own)]
        if len(own) == 1 and normals.covariance.kind == "spherical":
            found.append(factor[0, 0] ** 4 * A[0, 0])
        elif normals.covariance.kind == "diag":
            found.append(np.diagonal(factor) ** 4 * np.diagonal(A))
        else:
            found.append(_of_matrix(factor, A, symmetric_pairs(d)))
    shape = normals.covariance.factor.shape
    whole = np.stack(found) if len(found) > 1 or len(shape) == np.ndim(found[0]) + 1 else found[0]
    # One that all components share may be stored of each.
    return np.asarray(np.maximum(np.broadcast_to(whole, shape), 0.0))


def _of_matrix(factor: Array, variances: Array, pairs: tuple[Array, Array]) -> Array:
    """Return the variances of F S F^T (d, d), whose free entries have these covariances."""
    i, j = pairs
    found = np.empty(factor.shape)
    for row, along in enumerate(factor):
        # d Sigma_rc / d S_ij is F_ri F_cj + F_rj F_ci, or one of both where i = j.
        change = along[i] * factor[:, j] + np.where(i == j, 0.0, along[j] * factor[:, i])
        found[row] = np.einsum("ce,ef,cf->c", change, variances, change, optimize=True)
    return found
