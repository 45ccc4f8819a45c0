"""Degenerate components: those whose width is the regularization's, not the data's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Degenerate:
    """Describe one component whose rows do not vary, or hardly, in some columns.

    Attributes
    ----------
    component : int
    columns : tuple of int
        Where the rows lie at one value, as counts and zeros do.
    values : tuple of float
        The mean in each of `columns`.
    combined : tuple of int
        Further columns, of which the rows lie in a plane though each of them varies.
    equal : tuple of int
        Later components that have the same parameters.
    rows : float or None
        How many rows it has, where they are fewer than its parameters.
    bounded : bool
        Whether the likelihood is bounded there all the same, as it is where a probability is zero:
        models that have such components can be compared.

    Examples
    --------
    >>> found = Degenerate(2, (0,), (3.0,)).as_dict()
    >>> found["component"], found["columns"], found["values"]
    (2, [0], [3.0])
    """

    component: int
    columns: tuple[int, ...]
    values: tuple[float, ...]
    combined: tuple[int, ...] = ()
    equal: tuple[int, ...] = ()
    rows: float | None = None
    bounded: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the description for JSON."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(self).items()}
