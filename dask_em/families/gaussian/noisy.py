"""Gaussian components of rows whose noise is known, each row's its own: extreme deconvolution.

A row is x = v + e, e ~ N(0, S) with its own S, and the mixture is that of v: Bovy, Hogg and Roweis
(Annals of Applied Statistics 5, 2011). What the E-step sums are the means and covariances of v
given x (`noisy_rows`), so the M-step, its constraints and priors are those of rows without noise.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Self

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import register_family
from .completed import CompletedGaussian
from .family import Gaussian
from .noisy_kernel import NoisyKernel
from .regularized import RegularizedGaussian


@register_family("gaussian-noisy")
@dataclass(frozen=True)
class GaussianNoisy(CompletedGaussian):
    """Hold Gaussian components of rows without their noise; beside each row stands its covariance.

    Rows X are (n, d + s): the s numbers of the noise are d variances, or the lower triangle of a
    matrix, d (d + 1) / 2, row by row. Rows (n, d) have no noise.

    Examples
    --------
    >>> import numpy as np
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> one = GaussianNoisy(np.zeros((1, 2)), Full(np.eye(2)[None]), unit)
    >>> one.log_prob(np.array([[0.0, 0.0, 0.0, 3.0]])).round(4).tolist()
    [[-2.531]]
    >>> one.log_prob(np.array([[0.0, 0.0]])).round(4).tolist()
    [[-1.8379]]
    """

    @property
    def structure(self) -> str:
        """The constraint in words, and that the noise of rows is known."""
        return f"{super().structure}, without the known noise of rows"

    def join_key(self, engine: Engine) -> Hashable:
        """Return the key that families to be `joined` share; None if this one is computed alone."""
        key = super().join_key(engine)
        return None if key is None else ("noisy", key)

    def kernel(self, engine: Engine = NUMPY) -> NoisyKernel:
        """Return a kernel of zero sums: the plain one, and beside it that of rows with noise."""
        # Fits and answers of rows with noise ask for no other device.
        assert engine.device == "cpu"
        return NoisyKernel(self, self.kernel_of_all(engine))

    def near(self, X: Array, resp: Array) -> Self:
        """Return components with the means of the rows X (n, d + s) under `resp` (n, k)."""
        return super().near(X[:, : self.n_features], resp)

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d + s) in whitened coordinates, their noise left out."""
        return super().coordinates(X[:, : self.n_features])


@register_family("gaussian-regularized-noisy")
@dataclass(frozen=True)
class RegularizedGaussianNoisy(GaussianNoisy, RegularizedGaussian):
    """Hold such components with a conjugate prior, a bound on eigenvalues, or both.

    Examples
    --------
    >>> RegularizedGaussianNoisy.linear, issubclass(RegularizedGaussianNoisy, Gaussian)
    (False, True)
    """


def with_noise(components: Gaussian) -> Gaussian:
    """Return the components as those of rows beside which their noise stands.

    Examples
    --------
    >>> from .options import GaussianOptions
    >>> from ...core.moments import Moments
    >>> type(with_noise(GaussianOptions().of_data(Moments.unit(2), 1))).__name__
    'GaussianNoisy'
    """
    own = {f.name: getattr(components, f.name) for f in fields(components)}
    if isinstance(components, RegularizedGaussian):
        return RegularizedGaussianNoisy(**own)
    return GaussianNoisy(**own)
