"""Imputation: mixtures that fill what rows lack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.protocols import Source
from ..core.scoring import RowAnswers
from ..data.xarray import is_xarray
from ..errors import UsageError
from ..families.gaussian.imputation import Impute
from .base import MixtureEstimator
from .fitted import real_type
from .options import MissingValues, check_number


class ImputingMixture(MixtureEstimator):
    """The part of a Gaussian mixture that fills what rows lack."""

    missing_values: MissingValues

    def impute(self, X: Any, draws: int | None = None, as_frame: bool = False) -> Any:
        """Fill the missing values of rows, given what is observed; lazy unless X is in memory.

        Parameters
        ----------
        X : the same kinds as in `fit`, (n, d)
            NaN is a missing value; all others stay as they are.
        draws : int, optional
            By default missing values are filled with their conditional means: those of the
            components, weighed by the responsibilities. They vary less than values do, so pass
            a number for as many draws instead (multiple imputation: Rubin 1987), each a component
            by the responsibilities, then its conditional normal distribution.
        as_frame : bool, default=False
            Return those of a table in memory as a DataFrame of its library, with the index of X.

        Returns
        -------
        array, (n, d), or a list of `draws` of them
            As `predict` has them, see there. Draws are those of `random_state` and of the rows of
            each chunk, so the same again; with random_state=None others whenever they are asked
            for.

        Raises
        ------
        UsageError
            The model takes no missing values: `set_params(missing_values="mar")` first.

        Examples
        --------
        >>> from dask_em import GaussianMixture
        >>> x = np.arange(50.0)
        >>> X = np.column_stack([x, 2 * x])
        >>> X[9, 1] = np.nan
        >>> model = GaussianMixture(missing_values="mar", reg_covar=1e-6).fit(X)
        >>> model.impute(X)[9].round(3).tolist()
        [9.0, 18.0]
        >>> [filled[9].round(1).tolist() for filled in model.impute(X, draws=2)]
        [[9.0, 18.0], [9.0, 18.0]]
        """
        check_is_fitted(self)
        if draws is None:
            return self._imputed(X, self.imputer(), as_frame)
        check_number("draws", draws, int, 1)
        seed = self._seed_of_draws()
        return [self._imputed(X, self.imputer(seed, i), as_frame) for i in range(draws)]

    def _seed_of_draws(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        made = self.random_state or np.random
        return int(made.randint(np.iinfo(np.int32).max))

    def imputer(
        self,
        seed: int | None = None,
        number: int = 0,
        dtype: Any = np.float64,
        n_rows: int | None = None,
    ) -> Impute:
        """Return a picklable function from rows (n, d) of this type to a dict of filled ones."""
        check_is_fitted(self)
        if self.missing_values != "mar":
            raise UsageError(
                "this model takes no missing values, which could be filled: pass "
                'missing_values="mar" (a fitted model is told by set_params(missing_values="mar"))'
            )
        reals = np.result_type(self.parameters_dtype, real_type(dtype))
        drop = self.read_options.nonfinite == "drop"
        return Impute(self.mixture(self._answering_engine(n_rows)), seed, number, drop, reals)

    def _imputed(self, X: Any, imputer: Impute, as_frame: bool) -> Any:
        def make(source: Source) -> RowAnswers:
            reals = np.result_type(self.parameters_dtype, real_type(source.dtype))
            return replace(imputer, reals=reals)

        names = vars(self).get("feature_names_in_")
        labelled = self._answered(X, make, "imputed", as_frame)
        if is_xarray(X):
            return labelled.rename({labelled.dims[-1]: "feature"}).drop_vars("feature")
        return labelled if names is None or not as_frame else with_names(labelled, list(names))


def with_names(table: Any, names: list[str]) -> Any:
    """Return a table in memory with these names of its columns."""
    if hasattr(table, "rename_columns"):
        return table.rename_columns(names)
    table.columns = names
    return table
