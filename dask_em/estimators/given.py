"""Fitted estimators of parameters that somebody gave: no data are read for them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Self

import numpy as np

from ..core.additive import Array
from ..core.codec import digest
from ..core.columns import Column
from ..core.em import EMState, Status
from ..core.engine import NUMPY
from ..core.family import Family
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.parts import MixtureStatistics
from ..core.validation import brief, require
from ..data.memory import ArraySource
from ..errors import UsageError
from ..version import __version__
from .predictions import Predictions
from .registry import stored_of
from .saved import SavedModel

# Where provenance names the data of a fit.
SOURCE = "given parameters"


class GivenParameters(Predictions):
    """An estimator that can be made of its parameters."""

    @classmethod
    def from_parameters(
        cls,
        weights: Any,
        *,
        feature_names: Sequence[str] | None = None,
        feature_categories: Sequence[Sequence[str]] | None = None,
        **given: Any,
    ) -> Self:
        """Return a fitted estimator of these parameters: nothing is read, and nothing fitted.

        It predicts, scores, draws, is saved and exported as any. A fit starts from it with
        `warm_start=True`. Its `status_` is GIVEN.

        Parameters
        ----------
        weights : (k,) array
            Not negative; they sum to one.
        feature_names : sequence of str, optional
            Of the columns, by which predictions find those of tables.
        feature_categories : sequence of sequences of str, optional
            The words of each column in the order of their codes; none where it holds numbers.
        **given
            The parameters, by the names of the fitted attributes without their "_"; and options
            of the estimator, by their names.

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            A parameter is missing, unknown, or none of those allowed; or an option.

        Examples
        --------
        >>> from dask_em import PoissonMixture
        >>> model = PoissonMixture.from_parameters([0.25, 0.75], rates=[[1.0, 9.0], [6.0, 2.0]])
        >>> model.predict(np.array([[0, 8], [7, 1]])).tolist(), model.status_.name
        ([0, 1], 'GIVEN')
        """
        known = signature(cls.__init__).parameters.keys()
        options = {name: value for name, value in given.items() if name in known}
        arrays = {name: _numbers(name, value) for name, value in given.items() if name not in known}
        found = _weights(weights)
        told = options.get(cls.size_option, len(found))
        if told != len(found):
            raise ValueError(
                f"{cls.size_option} is {told!r:.40}, and there are {len(found)} weights"
            )
        model = cls(**{cls.size_option: len(found), **options})
        model.check_options()
        model._take_parameters(found, arrays, feature_names, feature_categories)
        return model

    def given_options(self) -> dict[str, Any]:
        """Return the options with which `from_parameters` makes this model of its parameters."""
        saved = self.to_saved()
        starts = {n: a for n, a in saved.attributes.items() if n in self.array_options}
        return {**saved.options, **starts}

    def given_parameters(self) -> dict[str, Array]:
        """Return the parameters of which `from_parameters` makes this model, without weights.

        Raises
        ------
        UsageError
            The model has noise beside its components.
        """
        mixture = self.fitted_state()[0].result
        if mixture.noise_box is not None:
            raise UsageError("parameters of components alone do not make a model with noise")
        return mixture.components.parameters()

    def n_columns_given(self, arrays: Mapping[str, Array]) -> int:
        """Return how many columns the rows of a model of such parameters have."""
        k = self.n_components
        found = [a.shape[1] for a in arrays.values() if a.ndim > 1 and len(a) == k]
        found += [a.shape[1] for a in arrays.values() if a.ndim == 2]
        if not found:
            raise ValueError(
                f"{type(self).__name__} has no parameter of {k} components among "
                f"{', '.join(sorted(arrays)) or 'none'}: its parameters are arrays (k, d, ...)"
            )
        return int(found[0])

    def _take_parameters(
        self,
        weights: Array,
        arrays: Mapping[str, Array],
        names: Sequence[str] | None,
        categories: Sequence[Sequence[str]] | None,
    ) -> None:
        """Become the model of these parameters, after they were checked as those of a file are."""
        d = self.n_columns_given(arrays)
        self.take_columns(ArraySource(np.zeros((1, d)), named=_columns(d, names, categories)))
        try:
            with np.errstate(all="ignore"):
                self.set_given(self._given_state(weights, arrays, d), arrays)
                header, parts = self.to_saved().parts()
                SavedModel.from_parts(header, parts, stored_of(header["estimator"]))
        except (ArithmeticError, IndexError, np.linalg.LinAlgError) as e:
            raise ValueError(f"these are no parameters of a {type(self).__name__}: {e}") from e

    def _given_state(self, weights: Array, arrays: Mapping[str, Array], d: int) -> EMState:
        k, options = len(weights), self.family_options()
        template = options.of_data(Moments.unit(d), k)
        _check_names(type(self).__name__, template, arrays)
        rough = template.with_parameters(arrays)
        # What is shared by all of the data is made anew, of the moments that these have.
        components = options.of_data(moments_of(weights, rough), k).with_parameters(arrays)
        plain = Mixture(np.log(weights), components, NUMPY, self.assignment)
        mixture = plain.holding(components)
        if not np.allclose(mixture.weights, weights, rtol=0, atol=1e-6):
            raise ValueError("weights are not those that follow from the other parameters")
        sums = MixtureStatistics(0, 1.0, 0.0, weights, components.kernel().statistics())
        return EMState(mixture, sums, 0, (), Status.GIVEN, mixture)

    def set_given(self, state: EMState, arrays: Mapping[str, Array]) -> None:
        """Take the state of parameters that were given, as a fit's is taken by `set_fit`."""
        self.history_: list[dict[str, Any]] = []
        self.lower_bounds_: list[float] = []
        self.n_passes_, self.n_dropped_ = 0.0, 0
        self._step_options = self.step_options()
        self.provenance_ = {
            "source": SOURCE,
            "n_rows": 0,
            "n_dropped": 0,
            "n_features": state.result.components.n_features,
            "dtype": "float64",
            "fingerprint": digest([state.statistics.resp_sum, *arrays.values()]),
            "fitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "dask_em": __version__,
        }
        self.set_state(state)


def moments_of(weights: Array, components: Family[Any]) -> Moments:
    """Return mean and covariance of a mixture, as if of one row.

    A variance that is infinite adds nothing.

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> one = GaussianOptions().of_data(Moments.unit(2), 1)
    >>> moments_of(np.ones(1), one).covariance.round(3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    means, variances = components.moments()
    means = np.where(np.isfinite(means), means, 0.0)
    widths = np.sqrt(np.where(np.isfinite(variances), np.maximum(variances, 0.0), 0.0))
    mean = weights @ means
    apart = means - mean
    covariance = (apart.T * weights) @ apart
    columns = range(means.shape[1])
    for k in np.flatnonzero(weights).tolist():
        within = components.correlations(k, columns) * np.outer(widths[k], widths[k])
        covariance += weights[k] * np.where(np.isfinite(within), within, 0.0)
    low, high = (means - widths).min(axis=0), (means + widths).max(axis=0)
    return Moments(1.0, mean, (covariance + covariance.T) / 2, low, high)


def _numbers(name: str, value: Any) -> Array:
    """Return what was given as finite numbers in float64."""
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{name} is {brief(value)}, expected an array of numbers") from e
    if found.size == 0 or found.ndim == 0:
        raise ValueError(f"{name} has shape {found.shape}, expected numbers of each component")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} holds NaN or infinity, expected finite numbers")
    # What the caller changes later is not the model's.
    return found.copy()


def _weights(given: Any) -> Array:
    found = _numbers("weights", given)
    total = float(found.sum())
    if found.ndim != 1 or (found < 0).any() or not abs(total - 1) < 1e-6:
        raise ValueError(
            f"weights are {found!r:.80}, expected one number for each component, none below 0, "
            "that sum to 1"
        )
    # As M-steps have it: the logarithm of none is a number.
    return np.asarray(np.maximum(found / total, np.finfo(np.float64).tiny))


def _check_names(model: str, template: Family[Any], given: Mapping[str, Array]) -> None:
    """Raise `ValueError` where parameters are missing, unknown, or of the wrong shape."""
    expected = template.parameters()
    needed = [name for name in expected if name not in template.optional_parameters]
    missing = [name for name in needed if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing or unknown:
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]!r:.60} is unknown"
        raise ValueError(
            f"{what}: parameters of a {model} are {', '.join(['weights', *expected])}, and all "
            "others are options of it"
        )
    for name, array in given.items():
        shape = expected[name].shape
        if array.ndim != len(shape) or array.shape[:2] != shape[:2]:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {shape} for these weights and options"
            )


def _columns(
    d: int, names: Sequence[str] | None, categories: Sequence[Sequence[str]] | None
) -> list[Column] | None:
    """Return what the columns are; None where they have no names."""
    if names is None:
        require("feature_categories without feature_names", categories, categories is None)
        return None
    told = [*names]
    words = [()] * d if categories is None else [tuple(map(str, one)) for one in categories]
    right = all(isinstance(name, str) and name for name in told) and len({*told}) == len(told)
    if not right or len(told) != d or len(words) != d:
        raise ValueError(
            f"feature_names are {told!r:.80}, expected {d} names that differ, and as many lists of "
            "categories where there are some"
        )
    return [
        Column(name, "categorical" if inner else "continuous", inner)
        for name, inner in zip(told, words, strict=True)
    ]
