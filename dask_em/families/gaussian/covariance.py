"""How covariances are stored, what the E-step sums for them, and back.

Each structure holds Cholesky factors C of its covariances, Sigma = C C^T, which
keep twice the digits of Sigma, and knows four things: its features phi(x), in
which the log-density is linear; the Mahalanobis distance; the scatter about the
current means; and how the scatter becomes covariances.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ...core.additive import Array
from ...core.validation import require_array, require_close
from .whitening import WhiteningKind

# A share of a covariance, or of a precision, that another machine may have rounded otherwise:
# of the inverse of a matrix whose columns are nearly collinear it is 1e-8 or so.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Covariance(ABC):
    """Covariances of K components in d dimensions, in whitened coordinates.

    Attributes
    ----------
    factor : array
        Cholesky factors: (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical.

    Examples
    --------
    >>> from dask_em.families.gaussian.matrices import Full
    >>> two = Full.of_data(np.array([[4.0, 0.0], [0.0, 9.0]]), k=2)
    >>> two.factor.shape, two.factor[0].tolist()
    ((2, 2, 2), [[2.0, 0.0], [0.0, 3.0]])
    >>> two.covariances[1].tolist()
    [[4.0, 0.0], [0.0, 9.0]]
    """

    factor: Array

    kind: ClassVar[str]
    whitening_kind: ClassVar[WhiteningKind]
    compiled: ClassVar[bool] = False
    """Whether the compiled kernels know this structure."""
    shared_scatter: ClassVar[bool] = False
    """Whether all components share one scatter, which then is no sum of features."""

    def __getstate__(self) -> dict[str, Array]:
        # What is cached can be made again, and may be as large as the factors.
        return {"factor": self.factor}

    # -- what the E-step needs -------------------------------------------------

    @staticmethod
    @abstractmethod
    def n_features(d: int) -> int:
        """Return the length of phi(x), without the leading one."""

    @abstractmethod
    def natural(self, means: Array) -> Array:
        """Compute theta (k, 1 + F) of log N(z; mu_k, Sigma_k) = theta_k . (1, phi(z))."""

    def features(self, Z: Array, out: Array, work: Array) -> None:
        """Write phi of the columns of Z (d, b) into `out` (F, b), whose first d rows are Z."""
        raise NotImplementedError

    @abstractmethod
    def whitener(self, means: Array) -> tuple[Array, ...]:
        """Return the arrays that `distances` takes of the parameters, for any number of blocks."""

    @staticmethod
    @abstractmethod
    def distances(whitener: tuple[Array, ...], phi: Array, out: Array, work: Array) -> None:
        """Write the squared Mahalanobis distances |C_k^{-1} (z - mu_k)|^2 into `out`.

        Parameters
        ----------
        whitener : tuple of array
        phi : (1 + d, b) array
            Ones, then the columns of z.
        out : (k, b) array
        work : (work_rows(k, d), b) array
        """

    @staticmethod
    def work_rows(k: int, d: int) -> int:
        """Return the number of rows of the work array of `distances` and of `features`."""
        return 2 * d

    @abstractmethod
    def log_det(self, d: int) -> Array:
        """Compute log |Sigma_k| / 2 of each component, (k,) or (1,)."""

    # -- sums ------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def zeros(k: int, d: int) -> Array:
        """Return a scatter of zeros, in the shape of this structure."""

    @staticmethod
    @abstractmethod
    def add_scatter(scatter: Array, k: int, D: Array, resp: Array, work: Array) -> None:
        """Add sum_n r_n d_n d_n^T of component k to `scatter`; D and `work` (n, d), resp (n,)."""

    @staticmethod
    @abstractmethod
    def scatter_of_features(sums: Array, first: Array, resp_sum: Array, means: Array) -> Array:
        """Compute the scatter about `means` from sums of the quadratic features about the origin.

        `sums` is (k, F - d); with a shared scatter it is the total of w z z^T, (d, d).
        """

    # -- the M-step ------------------------------------------------------------

    @abstractmethod
    def unconstrained(self, resp_sum: Array, shift: Array, scatter: Array, ridge: Array) -> Array:
        """Compute the most likely covariances from the scatter about the old means.

        Parameters
        ----------
        resp_sum : (k,) array, all positive
        shift : (k, d) array
            New means less old means.
        scatter : array
            Of the shape of `zeros`.
        ridge : (d, d) or (d,) array
            Added to every covariance, or to its diagonal.
        """

    @abstractmethod
    def factorized(self, covariances: Array, k: int) -> tuple[Self, Sequence[int]]:
        """Return the factors of covariances, and those of k components that are singular.

        A singular component keeps its factor.
        """

    # -- sums about other means ----------------------------------------------------

    def recentred(self, scatter: Array, first: Array, resp_sum: Array, shift: Array) -> Array:
        """Return the scatter about means that lie `shift` (k, d) from those of `scatter`."""
        return self.scatter_of_features(scatter, first, resp_sum, shift)

    # -- as numbers of any sign --------------------------------------------------------

    @staticmethod
    @abstractmethod
    def positive(factor: Array) -> Array:
        """Return a view of the entries of `factor` that must stay positive."""

    def information_scale(self, root_weights: Array) -> Array:
        """Return the scale of each unconstrained number of the factor, in its shape."""
        scale = np.ones_like(self.factor)
        if not self.shared_scatter:
            scale *= np.reshape(root_weights, (-1, *[1] * (scale.ndim - 1)))
        return scale

    @staticmethod
    @abstractmethod
    def log_dets(covariances: Array) -> Array:
        """Compute log |Sigma| of matrices (n, d, d) as far as the structure can hold them."""

    def take(self, components: list[int]) -> Self:
        """Return the covariances of some components."""
        return self if self.shared_scatter else type(self)(self.factor[components])

    # -- some columns ------------------------------------------------------------

    @abstractmethod
    def of_columns(self, columns: Sequence[int]) -> Self:
        """Return the covariances of some columns, in this order."""

    @abstractmethod
    def conditional(self, given: Sequence[int], asked: Sequence[int]) -> tuple[Self, Array]:
        """Return the covariances of the columns `asked` given others, and their regressions.

        Returns
        -------
        Covariance
            Of the q columns asked.
        (k, q, o) or (1, q, o) array
            Sigma_ao Sigma_oo^{-1}, of all components where they share it.
        """

    # -- in and out --------------------------------------------------------------

    def roots(self, k: int, d: int) -> Array:
        """Return R_k of |R_k^T (x - mu_k)|, the Mahalanobis distance, (k, d, d), or (k, d)."""
        root = self.precisions_cholesky
        if root.ndim == 3:
            return root
        if self.shared_scatter:
            return np.broadcast_to(root, (k, d, d))
        return np.broadcast_to(root.reshape(k, -1), (k, d))

    @abstractmethod
    def scaled(self, scale: Array) -> Self:
        """Return the structure after the linear map `scale` (d,) or lower triangular (d, d)."""

    @classmethod
    @abstractmethod
    def from_precisions(cls, precisions: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_`."""

    @classmethod
    @abstractmethod
    def from_precisions_cholesky(cls, precisions_cholesky: Array) -> Self:
        """Return the structure of scikit-learn's `precisions_cholesky_`.

        It is the inverse of the property `precisions_cholesky`.
        """

    @classmethod
    @abstractmethod
    def of_data(cls, covariance: Array, k: int) -> Self:
        """Return k components with the covariance (d, d) of all data, as far as it can be held."""

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not of these covariances.

        Nothing is inverted: the factor C and the file's C^{-T} must give the identity.
        """
        root = found["precisions_cholesky_"]
        largest = self.magnitude(self.covariances)
        require_close("covariances_", found["covariances_"], self.covariances, ROUNDING * largest)
        require_array("precisions_cholesky_", root, self.factor.shape)
        whitened, unit = self.whitened(root)
        require_close("precisions_cholesky_", whitened, unit, ROUNDING)
        precisions = self.squared(root)
        largest = self.magnitude(precisions)
        require_close("precisions_", found["precisions_"], precisions, ROUNDING * largest)

    @abstractmethod
    def whitened(self, root: Array) -> tuple[Array, Array]:
        """Return the product of `precisions_cholesky` and the factors, and the identity."""

    @staticmethod
    @abstractmethod
    def squared(root: Array) -> Array:
        """Return the precisions of such `precisions_cholesky`."""

    @staticmethod
    @abstractmethod
    def magnitude(covariances: Array) -> Array:
        """Return what rounding errors in covariances, or in precisions, are measured by."""

    @property
    @abstractmethod
    def covariances(self) -> Array:
        """scikit-learn's `covariances_`."""

    @property
    @abstractmethod
    def precisions_cholesky(self) -> Array:
        """scikit-learn's `precisions_cholesky_`."""

    @property
    @abstractmethod
    def precisions(self) -> Array:
        """scikit-learn's `precisions_`."""

    @abstractmethod
    def full(self, k: int, d: int) -> Array:
        """Return the covariances as (k, d, d) matrices."""

    @abstractmethod
    def variances(self, d: int) -> Array:
        """Compute the variance of each column, (k, d) or (1, d)."""

    @abstractmethod
    def traces(self, d: int) -> Array:
        """Compute the trace of each covariance, (k,) or (1,)."""

    @abstractmethod
    def tightness(self) -> Array:
        """Return a bound on the largest eigenvalue of each precision, (k,) or (1,)."""
