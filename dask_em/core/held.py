"""Mixtures of which some parameters are held: no M-step and no accelerated step changes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from .additive import Additive, Array
from .codec import record
from .engine import Engine
from .family import Family
from .mixture import Mixture
from .responsibilities import Assignment
from .validation import require

WEIGHTS = "weights"


@record("held")
@dataclass(frozen=True)
class Held:
    """Say which parameters of which components are held.

    Attributes
    ----------
    parts : tuple of (str, tuple of int)
        Names of parameters, "weights" among them, each with its components.

    Examples
    --------
    >>> Held.of({"means": [0], "weights": None}, 2)
    Held(parts=(('means', (0,)), ('weights', (0, 1))))
    """

    parts: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, held: Mapping[str, Sequence[int] | None], k: int) -> Self:
        """Return what is held of k components; None stands for all of them."""
        parts = {n: range(k) if of is None else sorted({*map(int, of)}) for n, of in held.items()}
        return cls(tuple((name, tuple(parts[name])) for name in sorted(parts)))

    def __getitem__(self, name: str) -> list[int]:
        return list(dict(self.parts).get(name, ()))

    @property
    def of_family(self) -> dict[str, list[int]]:
        """Components by the names of the family's parameters."""
        return {name: list(of) for name, of in self.parts if name != WEIGHTS and of}

    def take(self, components: Sequence[int]) -> Held:
        """Return what is held of some components, in another order."""
        places = {c: i for i, c in enumerate(components)}
        return Held.of(
            {name: [places[c] for c in of if c in places] for name, of in self.parts},
            len(components),
        )


@record("held-mixture")
@dataclass(frozen=True)
class HeldMixture(Mixture):
    """Hold a mixture whose M-step leaves some parameters as they are.

    Attributes
    ----------
    held : Held

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normals = GaussianOptions().of_data(Moments.unit(1), 2)
    >>> two = HeldMixture(np.log([0.5, 0.5]), normals, held=Held.of({"weights": None}, 2))
    >>> fold = two.fold()
    >>> fold.update(0, np.array([[1.0], [3.0]]), None)
    >>> after, _ = two.m_step(fold.result())
    >>> after.weights.tolist(), after.components.means.round(3).tolist(), two.n_parameters
    ([0.5, 0.5], [[2.0], [2.0]], 4)
    """

    held: Held = field(default_factory=Held)

    @property
    def n_parameters(self) -> int:
        """Free parameters, those that are held not counted."""
        return super().n_parameters - n_held(self.held, self.components, len(self.weights))

    @property
    def n_own(self) -> Array:
        """Parameters that the rows of each component estimate, without its weight, (k,)."""
        held = [self.components.n_held(self.held.take([i]).of_family) for i in range(self._k)]
        return np.asarray(super().n_own - np.array(held))

    @property
    def _k(self) -> int:
        return len(self.log_weights)

    @property
    def movable(self) -> bool:
        """Whether components may be split and merged: not where some are known."""
        return False

    def _maximized(self, resp_sum: Array, sums: Additive) -> tuple[Self, tuple[int, ...]]:
        held = self.held.of_family
        found, collapsed = self.components.maximize_holding(resp_sum, sums, held)
        return replace(self.with_shares(resp_sum), components=found), tuple(collapsed)

    def with_shares(self, resp_sum: Array) -> Self:
        """Return the weights that are held, and the others in proportion to these sums (k,)."""
        held = self.held[WEIGHTS]
        free = np.setdiff1d(np.arange(self._k), held)
        if not held:
            return super().with_shares(resp_sum)
        total = resp_sum[free].sum()
        if not len(free) or not total > 0:
            return self
        log_weights = self.log_weights.copy()
        left = max(1 - float(self.weights[held].sum()), 0.0)
        shares = np.maximum(left * resp_sum[free] / total, np.finfo(np.float64).tiny)
        log_weights[free] = np.log(shares)
        return replace(self, log_weights=log_weights)

    def validate_held(self) -> None:
        """Raise `ValueError` where what is held in a file are no parameters of these components."""
        known = {WEIGHTS, *self.components.holdable}
        for name, of in self.held.parts:
            there = name in known and all(0 <= component < self._k for component in of)
            require("held", self.held.parts, there)

    def take(self, components: Sequence[int]) -> Self:
        """Return a mixture of some components in equal shares."""
        return replace(super().take(components), held=self.held.take(components))

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the mixture of such a vector, with the parameters that are held."""
        found = super().from_unconstrained(vector)
        components = found.components.holding(self.components, self.held.of_family)
        weights = self.with_shares(found.weights) if self.held[WEIGHTS] else found
        return replace(found, components=components, log_weights=weights.log_weights)


def mixture_holding(
    parts: Mapping[str, Sequence[int] | None] | None,
    log_weights: Array,
    components: Family[Any],
    engine: Engine,
    assignment: Assignment = "soft",
) -> Mixture:
    """Return the mixture of these values, of which parts are held where there are any.

    Examples
    --------
    >>> from dask_em.core.engine import NUMPY
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = GaussianOptions().of_data(Moments.unit(1), 1)
    >>> type(mixture_holding(None, np.zeros(1), normal, NUMPY)).__name__
    'Mixture'
    >>> mixture_holding({"means": None}, np.zeros(1), normal, NUMPY).n_parameters
    1
    """
    if parts is None:
        return Mixture(log_weights, components, engine, assignment)
    held = Held.of(parts, len(log_weights))
    return HeldMixture(log_weights, components, engine, assignment, held)


def n_held(held: Held, components: Family[Any], k: int) -> int:
    """Count the free parameters of a mixture of k components that are held.

    Parameters
    ----------
    held : Held
    components : Family
        Of any number of components.
    k : int
    """
    n_weights = min(len(held[WEIGHTS]), k - 1)
    return n_weights + components.n_held(held.of_family)
