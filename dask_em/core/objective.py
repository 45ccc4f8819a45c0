"""Objectives of fits, raised or lowered, by the names that people and machines are given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from .codec import record

# What fits lower; all else is raised.
LOWERED = ("inertia",)


@record("objective")
@dataclass(frozen=True)
class Objective:
    """Name what a fit raises or lowers, and the value that it reached.

    Attributes
    ----------
    name : str
    value : float
    unit : str
        Of the value, in full and as lines of a terminal have it; empty where there is none.
    short : str
    change : float or None
        By which share of itself the value moved since the pass before, where that is known.

    Examples
    --------
    >>> Objective.log_likelihood(-2.5).line
    '-2.500000 nats/row'
    >>> before, now = Objective("inertia", 1250.0), Objective("inertia", 1234.5)
    >>> now.line, now.since(before).line
    ('inertia 1234.5', 'inertia 1234.5 (-1.2 %)')
    """

    name: str
    value: float
    unit: str = ""
    short: str = ""
    change: float | None = None

    @classmethod
    def log_likelihood(cls, value: float) -> Self:
        """Return the mean log-likelihood of a row, in nats."""
        return cls("log-likelihood", value, "nats per row", "nats/row")

    def since(self, before: Objective | None) -> Self:
        """Return the same with its change since a pass before, if there was one."""
        known = before is not None and before.name == self.name and before.value != 0
        return replace(self, change=self.value / before.value - 1) if before and known else self

    @property
    def rises(self) -> bool:
        """Whether fits raise it."""
        return self.name not in LOWERED

    @property
    def key(self) -> str:
        """The name as records and JSON have it."""
        return self.name.replace("-", "_").replace(" ", "_")

    @property
    def line(self) -> str:
        """The value as lines of a terminal have it."""
        if self.short:
            return f"{self.value:.6f} {self.short}"
        moved = "" if self.change is None else f" ({100 * self.change:+.2g} %)"
        return f"{self.name} {self.value:.10g}{moved}"

    @property
    def label(self) -> str:
        """The name with the unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name
