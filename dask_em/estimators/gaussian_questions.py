"""Questions to a Gaussian mixture: of some of its columns, of its parameters' errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.engine import NUMPY
from ..core.held import WEIGHTS, Held
from ..data.labels import row_map, with_labels
from ..data.lazy import gridded
from ..data.tables import is_frame
from ..errors import UsageError
from ..families.gaussian.conditional import Regression, conditional, marginal
from ..families.gaussian.information import KINDS, Information, standard_errors
from .answers import answer_rows
from .chosen_columns import column_numbers
from .derived import derived
from .fitted import real_type
from .gaussian_parameters import GaussianParameters
from .normal_questions import NormalMixture, normals_of


@dataclass(frozen=True)
class Predicted:
    """Hold what a regression says of each row.

    Attributes
    ----------
    mean : array, (n,) or (n, q)
        E[y | x].
    std : array, (n,) or (n, q)
        Standard deviation of y given x: what a single y is from its mean.
    """

    mean: Any
    std: Any


class GaussianQuestions(GaussianParameters, NormalMixture):
    """The part of `GaussianMixture` that answers questions about some of its columns."""

    def _columns(self, option: str, asked: Any) -> list[int]:
        check_is_fitted(self)
        names = vars(self).get("feature_names_in_")
        return column_numbers(option, asked, names, self.means_.shape[1])

    def marginal(self, columns: Any) -> Self:
        """Return the mixture of some of the columns, whatever the others are.

        Parameters
        ----------
        columns : name or number of a column, or several
            In the order that the new model has.

        Returns
        -------
        GaussianMixture
            Fitted: it predicts, is saved and asked as any. Its rows have these columns alone; of a
            table they are found by their names. Its `status_` is GIVEN. Structures of
            `covariance_type` that columns share together are `full` or `diag` in it.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3]
        >>> model = GaussianMixture(1).fit(X).marginal([2, 0])
        >>> np.sqrt(np.diagonal(model.covariances_[0])).round().tolist()
        [3.0, 1.0]
        """
        self._without_noise("marginal")
        chosen = self._columns("columns", columns)
        mixture = self.mixture(NUMPY)
        return derived(self, mixture.log_weights, marginal(normals_of(mixture), chosen), chosen)

    def conditional(self, given: Mapping[str | int, float]) -> Self:
        """Return the mixture of the other columns given the values of some.

        Its weights are the responsibilities of the components for these values.

        Parameters
        ----------
        given : mapping of name or number of a column to its value

        Returns
        -------
        GaussianMixture
            Fitted, as `marginal` has it.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> x = np.random.default_rng(0).normal(size=(500, 1))
        >>> model = GaussianMixture(1).fit(np.hstack([x, 3 * x]))
        >>> model.conditional({0: 2.0}).means_.round(2).tolist()
        [[6.0]]
        """
        self._without_noise("conditional")
        if not isinstance(given, Mapping):
            raise UsageError(f"given is {given!r:.100}, expected a mapping of columns to values")
        chosen = self._columns("given", list(given))
        rest = [j for j in range(self.means_.shape[1]) if j not in chosen]
        if not rest:
            raise UsageError("given has all columns of the model, and no other is left")
        values = np.asarray([given[column] for column in given], dtype=np.float64)
        if not np.isfinite(values).all():
            raise UsageError(f"given has values {values.tolist()}, expected finite numbers")
        mixture = self.mixture(NUMPY)
        found, log_prob = conditional(normals_of(mixture), chosen, values)
        joint = mixture.log_weights + log_prob
        log_weights = joint - np.logaddexp.reduce(joint)
        # The weight of a component that the values exclude is no zero, whose logarithm is none.
        log_weights = np.maximum(log_weights, np.log(np.finfo(np.float64).tiny))
        return derived(self, log_weights, found, rest)

    def regress(self, y_columns: Any, X: Any) -> Predicted:
        """Compute mean and standard deviation of some columns given the others, for each row of X.

        E[y | x] is the mean of the regressions of the components, weighed by their responsibilities
        for x: a curve, not a line (Ghahramani and Jordan 1994).

        Parameters
        ----------
        y_columns : name or number of a column, or several
        X : the same kinds as in `fit`, (n, d - q)
            All other columns of the model, in its order; of a table they are found by their names,
            and it may hold y, too. Where values may be missing, y is told by those that are there.

        Returns
        -------
        Predicted
            `mean` and `std`, (n,) of one column, or (n, q) of a list. NumPy where X is in memory,
            else lazy, of the chunks that `predict` has.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(2000, 1))
        >>> model = GaussianMixture(1).fit(np.hstack([x, 3 * x + rng.normal(size=x.shape)]))
        >>> found = model.regress(1, np.array([[1.0], [2.0]]))
        >>> found.mean.round(1).tolist(), found.std.round(1).tolist()
        ([3.0, 6.0], [1.0, 1.0])
        """
        asked = self._columns("y_columns", y_columns)
        given = [j for j in range(self.means_.shape[1]) if j not in asked]
        if not given:
            raise UsageError("y_columns has all columns of the model, and no other tells of them")
        of_x = self.marginal(given)
        source = of_x.source(X)
        normals = normals_of(self.mixture(NUMPY))
        drop = self.read_options.nonfinite == "drop"
        reals = np.result_type(self.parameters_dtype, real_type(source.dtype))
        mixture = of_x.mixture(of_x._answering_engine(source.n_rows))
        # The same components, whatever rounding a model of its own would add.
        mixture = replace(mixture, components=marginal(normals, given))
        work = Regression(mixture, normals, tuple(given), tuple(asked), drop, reals)
        found = answer_rows(source, work, row_map(X, source, of_x.read_options, "regression"))
        one = isinstance(y_columns, str | int | np.integer)
        parts = {"mean": range(len(asked)), "std": range(len(asked), 2 * len(asked))}
        if is_frame(X):
            chosen = {n: found.iloc[:, part[0] if one else list(part)] for n, part in parts.items()}
            return Predicted(**chosen)
        told = {}
        for name, part in parts.items():
            values = found[:, part[0]] if one else found[:, part[0] : part[-1] + 1]
            values = values if source.grid is None else gridded(values, source.grid)
            told[name] = with_labels(X, values, name, options=of_x.read_options)
        return Predicted(**told)

    def standard_errors(self, X: Any, sample_weight: Any = None) -> dict[str, Array]:
        """Compute standard errors of `weights_`, `means_` and `covariances_`, in one pass over X.

        They are of the empirical information, the sum of the outer products of the rows' scores
        (McLachlan and Peel, Finite Mixture Models, 2000, section 2.15.3), by the delta method. A
        prior is not counted.

        Parameters
        ----------
        X : as in `fit`
            The data of the fit: at other parameters than their maximum the errors are none. Where
            values are missing, the information is that of what is observed.
        sample_weight : the same kinds, (n,), or the name of a column of X, optional
            A row of weight w counts as w rows.

        Returns
        -------
        dict
            Arrays of the shapes of the attributes: 0 for what is held by `fixed`, NaN for all where
            the parameters are not identified.

        Raises
        ------
        UsageError
            The covariances are of another structure than full, tied, diag, spherical, EII or EEI,
            or `max_ratio` bounds them.

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(10_000, 1))
        >>> found = GaussianMixture(1).fit(X).standard_errors(X)
        >>> found["means_"].round(3).tolist(), found["covariances_"].round(3).tolist()
        ([[0.01]], [[[0.014]]])
        """
        self._without_noise("standard_errors")
        if "noise_covariance" in self.provenance_:
            raise UsageError("standard errors are of rows that were fitted without known noise")
        if self._fitted_kind not in KINDS or self.max_ratio is not None:
            bound = "max_ratio bounds these" if self.max_ratio is not None else self._fitted_kind
            raise UsageError(
                f"standard errors are of covariances of the structures {', '.join(KINDS)}, without "
                f"a bound on their eigenvalues, and not of this model's: {bound}"
            )
        source = self.source(X, sample_weight)
        mixture = self.mixture(self._answering_engine(source.n_rows))
        normals = normals_of(mixture)
        found = self.sums(source, Information(mixture, normals), "information").sums
        k = len(self.weights_)
        held = Held.of(self.held_parts(k) or {}, k)
        known = {**held.of_family, WEIGHTS: held[WEIGHTS]}
        return standard_errors(mixture, normals, found.products, known)
