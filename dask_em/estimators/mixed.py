"""Mixtures of columns of several types: products of families, independent given the component."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from ..core.additive import Array
from ..core.em import EMState
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.protocols import Source
from ..data.options import MissingChunks, Names, NonFinite, ReadOptions
from ..errors import UsageError
from ..families.product.family import Product
from ..families.product.options import Group, ProductOptions
from ..fitting.observers import Observer
from .base import MixtureEstimator
from .groups import GroupedColumns, groups_of, listed_groups, wanted_names
from .load import mixture_class
from .registry import family_name, known_tags, register_estimator

OWN_NAME = "mixed"


@register_estimator(OWN_NAME)
class MixedMixture(MixtureEstimator):
    """Mixture for tables whose columns are of several types, fitted by Expectation-Maximization.

    Given the component, groups of columns are independent, and each group has the
    distribution of its family: p(x | k) is the product of p_g(x_g | k) over the groups g. Within
    the Gaussian group columns may have any covariance; the other families take columns for
    independent (Hunt and Jorgensen 1999, "Mixture model clustering using the MULTIMIX program").

    Parameters
    ----------
    n_components : int, default=1
    columns : dict, "auto", or names of columns, optional
        For each family the names of its columns, or patterns of names, or their numbers where
        they have none: {"gaussian": ["amount_*"], "poisson": ["visits"]}. A family is one of
        `dask-em fit --family`. Columns in no group are not read, and the others are in the order
        of the groups. By default ("auto"), or of names without families, the types of the
        columns say it: floats are Gaussian, integers Poisson, booleans Bernoulli, categories
        categorical.
    covariance_type : {"full", "tied", "diag", "spherical", "EII", ..., "VVV"}, default="full"
        Of groups that have a covariance.
    reg_covar : float, default=1e-6
        Added to every variance of such groups, in squared units of the data.
    alpha : float, default=0.0
        Added to each count of an answer in categorical and Bernoulli groups.
    missing_values : {"error", "mar"}, default="error"
        What becomes of NaN in Gaussian, categorical and Bernoulli groups: "mar" leaves a missing
        answer out of the product, and takes the density of the observed columns of a Gaussian
        group, which is exact where values are missing at random.
    tol, max_iter, n_init, init_params, weights_init, algorithm, sample_size, max_passes, max_time
        As in `GaussianMixture`.
    fixed : {"weights"}, or mapping of str to sequence of int, optional
        Weights that stay as they start, as in `GaussianMixture`.
    nonfinite, missing_chunks, exclude, features, raw
        As in `GaussianMixture`.
    random_state, warm_start, callbacks, checkpoint, device, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    weights_ : (k,) array
    means_, covariances_, rates_, ...
        Those of the families of the groups, over the columns of the group. Names that two groups
        share begin with the group's: `bernoulli_probabilities_`.
    column_groups_ : dict
        The columns of each family: their names, or their numbers where they have none.
    converged_, status_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, warnings_, state_, provenance_
        As in `GaussianMixture`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> kind = rng.integers(2, size=300)
    >>> X = np.column_stack([rng.normal(6.0 * kind), rng.normal(-6.0 * kind)])
    >>> model = MixedMixture(2, columns={"gaussian": [0, 1]}, random_state=0).fit(X)
    >>> model.means_.shape, model.column_groups_
    ((2, 2), {'gaussian': [0, 1]})
    >>> bool(abs((model.predict(X) == kind).mean() - 0.5) > 0.49)
    True
    """

    kind_option = "covariance_type"
    takes_codes = True

    def __init__(
        self,
        n_components: int = 1,
        *,
        columns: Names | GroupedColumns = None,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        alpha: float = 0.0,
        missing_values: str = "error",
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: Any = None,
        fixed: Any = None,
        algorithm: str = "auto",
        sample_size: int | None = None,
        max_passes: int | None = None,
        max_time: float | None = None,
        nonfinite: NonFinite = "error",
        missing_chunks: MissingChunks = "error",
        exclude: Names = None,
        features: str | None = None,
        raw: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        callbacks: Sequence[Callable[[EMState], object] | Observer] | None = None,
        checkpoint: Any = None,
        device: Any = "cpu",
        verbose: int = 0,
    ) -> None:
        super().__init__(
            n_components, tol=tol, max_iter=max_iter, n_init=n_init, init_params=init_params,
            weights_init=weights_init, fixed=fixed, algorithm=algorithm, sample_size=sample_size,
            max_passes=max_passes, max_time=max_time, nonfinite=nonfinite,
            missing_chunks=missing_chunks, exclude=exclude, features=features,
            raw=raw, random_state=random_state, warm_start=warm_start, callbacks=callbacks,
            checkpoint=checkpoint, device=device, verbose=verbose,
        )  # fmt: skip
        self.columns = columns
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.alpha = alpha
        self.missing_values = missing_values

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        # Of groups that have such options; and where there is none, they are still such.
        self._options_of("gaussian")
        self._options_of("categorical")
        if isinstance(self.columns, Mapping):
            for family in listed_groups(self.columns):
                self._options_of(family)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing_values == "mar"
        return tags

    @property
    def read_options(self) -> ReadOptions:
        """How data are read: whatever is done with the model reads as its fit did."""
        return self._reading(wanted_names(self.columns))

    def told_names(self) -> dict[str, Any]:
        """Return the options that are names of columns, as files hold them."""
        told = super().told_names()
        if isinstance(self.columns, Mapping):
            told["columns"] = listed_groups(self.columns)
        return told

    def _take_columns(self, source: Source, columns: Any, reset: bool) -> None:
        """Keep number, names and families of the columns, or hold them to those of the fit."""
        super()._take_columns(source, columns, reset)
        if reset:
            self._groups = groups_of(self.columns, source)

    def params_of_rows(self) -> dict[str, Any]:
        """Return the parameters that differ for rows without names, of the columns taken."""
        return {**super().params_of_rows(), "columns": self._groups}

    @property
    def column_groups_(self) -> dict[str, list[Any]]:
        """The columns of each family: their names, or their numbers where they have none."""
        names = vars(self).get("feature_names_in_")
        return {
            family: [j if names is None else str(names[j]) for j in numbers]
            for family, numbers, _ in self._product
        }

    def given_options(self) -> dict[str, Any]:
        """Return the options of `from_parameters`, the columns of each family among them."""
        return {**super().given_options(), "columns": self.column_groups_}

    def n_columns_given(self, arrays: Mapping[str, Array]) -> int:
        """Return how many columns the rows have: those of all groups."""
        if not isinstance(self.columns, Mapping):
            raise UsageError(
                f"columns={self.columns!r}: parameters need the columns of each family, such as "
                'columns={"gaussian": [0, 1], "poisson": [2]}'
            )
        return sum(map(len, listed_groups(self.columns).values()))

    @property
    def _product(self) -> Product:
        components: Any = self.state_.result.components
        found: Product = components
        return found

    # -- the families of the groups ---------------------------------------------------------

    def family_options(self) -> ProductOptions:
        """Return what the options say of the components; without groups before data are seen."""
        groups: Mapping[str, Sequence[int]] = vars(self).get("_groups", {})
        return ProductOptions(
            tuple(
                Group(family, tuple(numbers), self._options_of(family).family_options())
                for family, numbers in groups.items()
            ),
            self.covariance_type,
        )

    def _options_of(self, family: str) -> MixtureEstimator:
        """Return an estimator of one family, with those options that it has, checked."""
        try:
            make = mixture_class(family)
        except ValueError as e:
            raise UsageError(
                f"columns has a group of the family {family!r}, expected one of "
                f"{', '.join(map(family_name, known_tags()))}"
            ) from e
        if issubclass(make, MixedMixture) or make.assignment != self.assignment:
            raise UsageError(
                f"columns has a group of the family {family!r}, which describes no group of "
                "columns: expected such as gaussian or poisson"
            )
        # What passes share is this estimator's own.
        shared = signature(MixtureEstimator.__init__).parameters.keys()
        own = signature(type(self).__init__).parameters.keys() - shared
        names = own & signature(make.__init__).parameters.keys()
        found = make(self.n_components, **{name: getattr(self, name) for name in names})
        found.check_options()
        return found

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last result as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        mixture = super().earlier_mixture(moments)
        before, now = self._product, self.family_options().of_data(moments, self.n_components)
        if (before.names, before.columns, before.kind) != (now.names, now.columns, now.kind):
            raise ValueError(
                "warm_start=True, but the last fit was of other groups of columns or another "
                "covariance_type: set warm_start=False"
            )
        return mixture

    @classmethod
    def from_saved(cls, saved: Any) -> MixedMixture:
        """Return the fitted estimator that a model file held.

        Raises
        ------
        KeyError, TypeError, ValueError
            A part is missing, or does not go with the others.
        """
        model = super().from_saved(saved)
        model._groups = {family: tuple(numbers) for family, numbers, _ in model._product}
        return model
