"""The answers of a model as a formula, for whoever writes it in another language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..core.additive import Array
from ..core.engine import NUMPY, Engine
from ..core.family import Family
from ..core.formula import Formula, Operators, V
from ..core.mixture import Mixture
from ..core.support import Support
from ..errors import UsageError


class Exported(Protocol):
    """A fitted mixture, as it is written in other languages."""

    @property
    def n_features_in_(self) -> int:
        """Number of columns."""

    @property
    def family(self) -> str:
        """The name of the family."""

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted mixture, to be computed by `engine`."""


@dataclass(frozen=True)
class ModelFormula:
    """Hold what the answers of a model are made of.

    Attributes
    ----------
    components : Family
    log_prior : (k,) array
        What is added to the log-density of each component; -inf of one without weight.
    hard : bool
        Whether each row is of one component: answers are then distances, not probabilities.
    unit : float
        Of a hard assignment the length by which distances are counted.
    names : sequence of str or None
        Of the columns.
    categories : sequence of sequences of str
        The words of each column in the order of their codes; none of a column of numbers.
    """

    components: Family[Any]
    log_prior: Array
    hard: bool
    unit: float
    names: Sequence[str] | None
    categories: Sequence[Sequence[str]]

    @classmethod
    def of(cls, model: Exported) -> ModelFormula:
        """Return the formula of a fitted model.

        Raises
        ------
        UsageError
            It has noise beside its components.
        """
        mixture = model.mixture(NUMPY)
        if mixture.noise_box is not None:
            raise UsageError("a model with noise has no formula for other programs")
        components, known = mixture.components, vars(model)
        names = known.get("feature_names_in_")
        hard = mixture.assignment == "hard"
        # What people are told of a row is its squared distance.
        unit = components.reported_objective(-1.0, 1.0).value ** 0.5 if hard else 1.0
        return cls(
            components,
            np.asarray(mixture.log_prior),
            hard,
            unit,
            None if names is None else [str(name) for name in names],
            known.get("feature_categories_", ((),) * model.n_features_in_),
        )

    @property
    def support(self) -> Support:
        """Which numbers rows hold that have an answer, of every column apart."""
        d, found = self.n_features, self.components.formula_support
        parts = {name: values * (d // len(values)) for name, values in vars(found).items()}
        return Support(**parts)

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return len(self.categories)

    def write(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write log p(x | k) plus the log priors, and what is common to all components.

        Raises
        ------
        UsageError
            The family has no formula.
        """
        try:
            found = self.components.formula(operators, rows)
        except NotImplementedError as e:
            raise UsageError(
                f"a model of {type(self.components).__name__} components cannot be written as a "
                "formula, for its family lacks one: export it as JSON"
            ) from e
        return found


def column_names(formula: ModelFormula) -> list[str]:
    """Return the names of the columns, "x0", "x1", ... where they have none.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import KMeans
    >>> column_names(ModelFormula.of(KMeans.from_parameters([[0.0, 1.0]])))
    ['x0', 'x1']
    """
    if formula.names is None:
        return [f"x{j}" for j in range(formula.n_features)]
    return list(formula.names)
