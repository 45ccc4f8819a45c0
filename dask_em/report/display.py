"""A fitted mixture over rows of data as a display in scikit-learn's habit, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from ..core.additive import Array
from ..errors import UsageError
from ..estimators.describe import FittedMixture
from .answers import plot_answers
from .axes import column_number, shortened
from .marginals import plot_marginal
from .plots import plot_components
from .rows import drawn_rows
from .separation import telling_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Columns = int | str | Sequence[int | str] | None
"""One column or two, by name or number; None where they are to be chosen."""


class MixtureDisplay:
    """Show a fitted mixture of any family over rows of data, in one or two of its columns.

    Two columns are drawn as rows in the colours of their likeliest components, with ellipses at 1
    and 2 standard deviations; one as densities over a histogram of the rows, or where it holds
    categories as the probability of each. Made by `from_estimator`.

    Parameters
    ----------
    estimator : fitted mixture
    rows : (n, d) array
        A few thousand rows; all of them are drawn.
    columns : tuple of int
        One column or two.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Once it is drawn.
    figure_ : matplotlib Figure
        Once it is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> from matplotlib.figure import Figure
    >>> X = np.random.default_rng(0).normal(size=(300, 3)) + 9 * np.eye(3)[np.arange(300) % 2]
    >>> gm = GaussianMixture(2, random_state=0).fit(X)
    >>> display = MixtureDisplay.from_estimator(gm, X, ax=Figure().subplots())
    >>> display.columns, display.ax_.get_xlabel(), len(display.ax_.patches)
    ((0, 1), 'column 0', 4)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, estimator: FittedMixture, rows: Array, columns: Sequence[int]) -> None:
        self.estimator = estimator
        self.rows = rows
        self.columns = (*columns,)

    @classmethod
    def from_estimator(
        cls,
        estimator: FittedMixture,
        X: Any,
        columns: Columns = None,
        ax: Axes | None = None,
        *,
        n_rows: int = 5000,
        random_state: int = 0,
    ) -> Self:
        """Draw a fitted mixture over rows that are sampled from data.

        Parameters
        ----------
        estimator : fitted mixture
        X : NumPy array, Dask array, zarr.Array, table, or path or URL
            (n, d), whatever `fit` takes. Of stored rows at most 64 chunks are read.
        columns : int or str, or two of them, optional
            By number or name. By default the two columns of numbers that separate the components
            best, or where there are no two, the column that does.
        ax : matplotlib Axes, optional
            By default those of a new figure.
        n_rows : int, default=5000
            Rows that are drawn, at most.
        random_state : int, default=0
            Which rows.

        Returns
        -------
        MixtureDisplay
            Drawn.

        Raises
        ------
        NotFittedError
            The estimator is not fitted.
        UsageError
            A column that the model does not have, or that does not go with another; or matplotlib
            is not installed.
        DataError
            Rows that the model does not describe.
        """
        chosen = shown_columns(estimator, columns)
        if isinstance(n_rows, bool) or not isinstance(n_rows, int) or n_rows < 1:
            raise UsageError(f"n_rows is {n_rows!r}, expected a number of rows, at least 1")
        return cls(estimator, drawn_rows(estimator, X, n_rows, random_state), chosen).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw it, into a new figure unless Axes are given.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        MixtureDisplay
        """
        first, *others = self.columns
        if others:
            self.ax_ = plot_components(self.estimator, self.rows, (first, others[0]), ax)
        elif first in self.estimator.describe().answers:
            self.ax_ = plot_answers(self.estimator, first, self.rows, ax)
        else:
            self.ax_ = plot_marginal(self.estimator, first, self.rows, ax)
        self.figure_ = self.ax_.figure
        return self


def shown_columns(model: FittedMixture, columns: Columns = None) -> tuple[int, ...]:
    """Return the numbers of the one or two columns that are to be drawn.

    Raises
    ------
    UsageError
        A column that the model does not have, more than two, or one of categories beside another.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> gm = GaussianMixture(1).fit(np.random.default_rng(0).normal(size=(90, 3)) * [1, 1, 0.1])
    >>> shown_columns(gm), shown_columns(gm, -1), shown_columns(gm, ["column 1", 0])
    ((0, 1), (2,), (1, 0))
    """
    components = model.describe()
    names, d = [*components.columns], len(components.columns)
    if columns is None:
        numbers = [j for j in range(d) if j not in components.answers]
        among = numbers if len(numbers) > 1 else None
        return (*telling_columns(model, 2 if among else 1, among),)
    asked = [columns] if isinstance(columns, int | str) else [*columns]
    found = []
    for one in asked:
        if isinstance(one, str) and one not in names:
            raise UsageError(
                f"columns names {one!r}: the model has "
                f"{', '.join(map(shortened, names[:8]))}{', ...' if d > 8 else ''}"
            )
        found.append(names.index(one) if isinstance(one, str) else column_number(one, d))
    if len(found) not in (1, 2):
        raise UsageError(f"columns is {columns!r}, expected one column, or two, by number or name")
    coded = [names[j] for j in found if j in components.answers]
    if coded and found[1:]:
        raise UsageError(f"column {coded[0]!r} holds categories: it is drawn alone")
    return (*found,)
