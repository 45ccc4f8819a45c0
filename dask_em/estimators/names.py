"""Names of the columns of a pandas table, as scikit-learn's contract has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from ..data.frames import is_pandas
from ..data.options import ReadOptions
from ..errors import DataError
from ..foreign import shown


class ColumnNamesError(DataError):
    """Names of columns are not those of the fit: said in our words, and in scikit-learn's lines.

    Examples
    --------
    >>> print(ColumnNamesError("X lacks 'b'", "The names should match.\\nMissing: b"))
    X lacks 'b'. The names should match.
    Missing: b
    """

    def __init__(self, ours: str, theirs: str) -> None:
        super().__init__(ours, theirs)
        self.ours, self.theirs = ours, theirs

    def __str__(self) -> str:
        return f"{shown(self.ours)}. " + "\n".join(map(shown, self.theirs.split("\n")))


@contextmanager
def checked_names(
    model: BaseEstimator, X: Any, options: ReadOptions, reset: bool
) -> Iterator[None]:
    """Hold the names of a pandas table to what scikit-learn asks of them, and say it in its words.

    Columns are found by name; but those of a table that has them in another order than the fit
    are refused as scikit-learn does, unless the model was told which columns are its own.

    Parameters
    ----------
    model : estimator
    X : object
        Anything else than such a table is left alone.
    options : ReadOptions
    reset : bool
        Whether X is to be fitted.

    Raises
    ------
    DataError
        In the block, or for the order of the columns.
    """
    if not is_pandas(X):
        yield
        return
    told = bool(options.columns or options.exclude)
    named = all(isinstance(name, str) for name in X.columns)
    try:
        yield
    except DataError as e:
        _say_theirs_too(model, X, reset, str(e))
        raise
    if reset or not (told or (named and options.fitted)):
        # It warns of names on one side alone, and refuses names of several types.
        validate_data(model, X, reset=reset, skip_check_array=True)
    in_order = [name for name in X.columns if name in options.fitted] == [*options.fitted]
    if named and options.fitted and not (told or in_order):
        ours = (
            "X has the columns of the model in another order: pass X[model.feature_names_in_], or "
            "fit with columns=[...], which finds them by name wherever they are"
        )
        _say_theirs_too(model, X, reset, ours)
        raise DataError(ours)


def _say_theirs_too(model: BaseEstimator, X: Any, reset: bool, ours: str) -> None:
    """Raise with scikit-learn's words, where it has some."""
    if reset:
        return
    try:
        validate_data(model, X, reset=False, skip_check_array=True)
    except ValueError as theirs:
        raise ColumnNamesError(ours, str(theirs)) from None
