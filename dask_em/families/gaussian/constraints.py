"""Constraints on the covariances: the M-step of each, one function a constraint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from ...core.additive import Array
from ...errors import UsageError
from .covariance import Covariance
from .diagonals import Diagonal, Spherical
from .matrices import Full, Tied
from .structures import (
    NAMES,
    SCIKIT_LEARN,
    equal,
    equal_axes,
    equal_axes_and_volume,
    equal_eigenvalues,
    equal_volume_diagonals,
    equal_volume_matrices,
    n_covariance_parameters,
    proportional_diagonals,
    proportional_eigenvalues,
    proportional_matrices,
)
from .whitening import WhiteningKind

Estimate = Callable[[Array, Array], Array]
"""(weights (k,), covariances about the new means) -> the covariances that the M-step allows."""

Improve = Callable[[Array, Array, Array], Array]
"""(weights (k,), covariances about the new means, current ones) -> those that the M-step allows."""


@dataclass(frozen=True)
class Constraint:
    """Hold the M-step of the covariances under a constraint, and how the E-step stores them.

    Attributes
    ----------
    name : str
        As `covariance_type` has it.
    storage : type of Covariance
        What the E-step stores and sums: matrices, diagonals, one variance, one shared matrix.
    n_parameters : callable
        (k, d) -> free parameters of the covariances.
    estimate : callable, optional
        (weights (k,), covariances) -> covariances of the same shape, those of the largest
        likelihood that the constraint allows. What it is given are the unconstrained
        estimates, `reg_covar` added: (k, d, d) of `Full`, (k, d) of `Diagonal`.
    improve : callable, optional
        In place of `estimate` where there is no closed form: (weights, covariances, current) ->
        covariances that the constraint allows, of no smaller likelihood than the current ones,
        from which the iterations begin.
    whitening : {"scalar", "diagonal", "matrix"}, optional
        The largest group of linear maps that leaves the constraint as it is; by default the
        storage's.
    clipped : bool
        Whether what the constraint allows stays so, and the likeliest, where all eigenvalues are
        held between two numbers, as `max_ratio` does.

    Examples
    --------
    One matrix for all components, stored as K of them:

    >>> import numpy as np
    >>> def pooled(weights, covariances):
    ...     mean = np.einsum("k,kij->ij", weights, covariances) / weights.sum()
    ...     return np.broadcast_to(mean, covariances.shape)
    >>> same = Constraint("same", Full, lambda k, d: d * (d + 1) // 2, pooled)
    >>> same.estimate(np.ones(2), np.stack([np.eye(2), 3 * np.eye(2)]))[0]
    array([[2., 0.],
           [0., 2.]])
    """

    name: str
    storage: type[Covariance]
    n_parameters: Callable[[int, int], int]
    estimate: Estimate | None = None
    whitening: WhiteningKind | None = None
    improve: Improve | None = None
    clipped: bool = True

    @property
    def joins(self) -> bool:
        """Whether the covariances of components are not estimated each from its own rows."""
        return self.estimate is not None or self.improve is not None

    def allowed(self, weights: Array, covariances: Array, current: Array) -> Array:
        """Return the likeliest covariances that are allowed, given the unconstrained ones."""
        if self.improve is not None:
            return self.improve(weights, covariances, current)
        return covariances if self.estimate is None else self.estimate(weights, covariances)

    @property
    def module(self) -> str:
        """The module that registers it where it is not known yet, as on a worker."""
        return self.n_parameters.__module__

    @property
    def whitening_kind(self) -> WhiteningKind:
        """The largest group of linear maps that leaves the constraint as it is."""
        return self.whitening or self.storage.whitening_kind


GROUP = "dask_em.constraints"
"""Entry points by which another package offers modules that register constraints."""

CONSTRAINTS: dict[str, Constraint] = {}
"""Every constraint by its name: what `covariance_type` may be."""


def register_constraint(constraint: Constraint) -> Constraint:
    """Make a constraint known by its name, to estimators, files and the command line."""
    known = CONSTRAINTS.setdefault(constraint.name, constraint)
    if known is not constraint:
        raise ValueError(f"covariance_type {constraint.name!r} is registered already")
    return constraint


def constraint_of(name: str) -> Constraint:
    """Return the constraint of this name, of this process or of an entry point.

    Raises
    ------
    UsageError
        None is registered under it.

    Examples
    --------
    >>> constraint_of("tied").n_parameters(5, 3)
    6
    """
    if name not in CONSTRAINTS:
        for entry in entry_points(group=GROUP, name=name):
            entry.load()
    if name not in CONSTRAINTS:
        raise UsageError(f"covariance_type={name!r}: expected one of {', '.join(CONSTRAINTS)}")
    return CONSTRAINTS[name]


def known_constraints() -> list[str]:
    """Return the names of all constraints that are available.

    Examples
    --------
    >>> known_constraints()[:4]
    ['full', 'tied', 'diag', 'spherical']
    """
    return list(dict.fromkeys([*CONSTRAINTS, *entry_points(group=GROUP).names]))


def _register(
    name: str,
    storage: type[Covariance],
    whitening: WhiteningKind,
    estimate: Estimate | None = None,
    improve: Improve | None = None,
    clipped: bool = False,
) -> None:
    count = n_covariance_parameters(name)
    register_constraint(Constraint(name, storage, count, estimate, whitening, improve, clipped))


register_constraint(Constraint("full", Full, lambda k, d: k * d * (d + 1) // 2))
register_constraint(Constraint("tied", Tied, lambda k, d: d * (d + 1) // 2))
register_constraint(Constraint("diag", Diagonal, lambda k, d: k * d))
register_constraint(Constraint("spherical", Spherical, lambda k, d: k))

# A volume is equal in any coordinates, eigenvalues and orthogonal axes under one scale alone.
_register("EII", Spherical, "scalar", equal, clipped=True)
_register("EEI", Diagonal, "diagonal", equal, clipped=True)
_register("VEI", Diagonal, "diagonal", improve=proportional_diagonals)
_register("EVI", Diagonal, "diagonal", equal_volume_diagonals)
_register("VEE", Full, "matrix", improve=proportional_matrices)
_register("EVE", Full, "scalar", improve=equal_axes_and_volume)
_register("VVE", Full, "scalar", improve=equal_axes)
_register("EEV", Full, "scalar", equal_eigenvalues, clipped=True)
_register("VEV", Full, "scalar", improve=proportional_eigenvalues)
_register("EVV", Full, "matrix", equal_volume_matrices)

for name in NAMES:
    # In mclust's order, four of them by another name.
    known = CONSTRAINTS[SCIKIT_LEARN.get(name, name)]
    CONSTRAINTS.pop(name, known)
    CONSTRAINTS[name] = known
