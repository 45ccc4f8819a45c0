"""Fitted estimators: the attributes that a fit leaves, and how files hold them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.box import Box
from ..core.degenerate import Degenerate
from ..core.em import EMState, Status
from ..core.engine import Engine
from ..core.family import FamilyOptions
from ..core.mixture import Mixture
from ..core.objective import Objective
from ..core.responsibilities import Assignment
from ..core.validation import require, require_close
from ..data.options import ReadOptions
from ..fitting.checks import Columns
from ..fitting.driver import FittedModel
from ..fitting.kept_sample import KeptSample
from ..fitting.observers import PassRecord, n_reads
from .categories import WORDS, packed_categories, unpacked_categories
from .model_file import write_model
from .options import plain
from .registry import estimator_tag, family_name
from .saved import SavedModel, Stored

# Options on which no bit of a fit depends; `max_time` counts anew whenever one goes on.
UNIMPORTANT = ("callbacks", "checkpoint", "max_time", "verbose")
# Those that say where a fit starts and ends, and not how it goes on.
OF_THE_START = (
    *("algorithm", "init_params", "n_init", "random_state", "sample_size", "warm_start"),
    *("max_iter", "max_passes", "tol"),
)
GOING_ON = (
    *(Status.CONVERGED, Status.OUT_OF_ITERATIONS, Status.OUT_OF_PASSES, Status.OUT_OF_TIME),
)


class FittedEstimator(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """The half of a mixture estimator that a fit leaves behind it.

    Attributes
    ----------
    kind_option : str or None
        The option that tells kinds of components apart, over which sweeps choose.
    swept_options : tuple of str
        Others of which sweeps take several values, with each kind and number of components.
    array_options : tuple of str
        Options that are arrays, of a start but for the `prior_options`.
    prior_options : tuple of str
        Those that are parameters of a prior, whatever the number of components.
    local_options : tuple of str
        Options that are functions, or name places: no file holds them, and one that does is
        refused.
    size_option : str
        The option that is the number of components.
    assignment : {"soft", "hard"}
        Whether the E-step shares a row among the components, or gives it to the likeliest.
    takes_codes : bool
        Whether columns of words that have categories are read as the codes of these, see
        `ReadOptions.codes`; what they are is kept as `feature_categories_`.
    kept_sample_ : KeptSample or None
        Rows that stand for all that were read, where `fit` was told to keep some.
    """

    kind_option: ClassVar[str | None] = None
    swept_options: ClassVar[tuple[str, ...]] = ()
    size_option: ClassVar[str] = "n_components"
    array_options: ClassVar[tuple[str, ...]] = ("weights_init",)
    prior_options: ClassVar[tuple[str, ...]] = ()
    local_options: ClassVar[tuple[str, ...]] = ("callbacks", "checkpoint")
    assignment: ClassVar[Assignment] = "soft"
    takes_codes: ClassVar[bool] = False

    kept_sample_: KeptSample | None = None

    # Options of every mixture that files treat apart.
    random_state: Any
    device: Any
    warm_start: bool
    verbose: int

    @property
    def family(self) -> str:
        """The name of the class, as `dask-em fit --family` has it."""
        try:
            return family_name(estimator_tag(type(self)))
        except TypeError:
            # Nobody registered it, so no file and no shell names it.
            return type(self).__name__

    def family_options(self) -> FamilyOptions:
        """Return what the options say of the components."""
        raise NotImplementedError(f"{type(self).__name__} lacks family_options()")

    @property
    def read_options(self) -> ReadOptions:
        """How data are read."""
        raise NotImplementedError

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""

    def check_box(self, box: Box | None) -> None:
        """Raise `ValueError` where the noise of a mixture is not what the options ask for."""
        require("box", box, box is None)

    @property
    def public_arrays(self) -> tuple[str, ...]:
        """Names of the fitted attributes that are parameters."""
        return ("weights_", *self.state_.result.components.attribute_shapes())

    @property
    def objective_(self) -> Objective:
        """The objective that the fit raised or lowered, and the value that it reached."""
        return Objective.log_likelihood(self.lower_bound_)

    @property
    def n_reads_(self) -> int:
        """How often the data were read: records of `history_` but a survey kept beside them."""
        return n_reads(self.history_)

    @property
    def n_sample_passes_(self) -> float:
        """Work on the sample, in passes over the data that would compute as much."""
        return max(0.0, self.n_passes_ - self.n_reads_)

    @property
    def fitted_box(self) -> Box | None:
        """The box of the noise that the fit found; None where there is none, or no fit."""
        return self.state_.result.noise_box if hasattr(self, "state_") else None

    def fitted_options(self) -> dict[str, Any]:
        """Return the options that the fit was of, whatever was set since."""
        options: dict[str, Any] = {self.size_option: len(self.weights_)}
        if self.kind_option is not None:
            options[self.kind_option] = self.state_.result.components.kind
        return options

    def set_state(self, state: EMState, dtype: Any = np.float64) -> None:
        """Take the state at which a fit to data of some type ended, and make the attributes of it.

        Those of data in float32 are in float32, too, unless a square or its inverse is beyond
        it; the state keeps float64.
        """
        self.state_ = state
        self.status_ = state.status
        self.converged_ = state.status.converged
        self.n_iter_ = state.n_iter
        reached = self.bound_told(state.reported, state)
        self.lower_bound_ = reached if state.measured else -np.inf
        weights = state.result.shares
        self.set_arrays({"weights_": weights, **state.result.components.attributes()}, dtype)

    def bound_told(self, value: float, state: EMState) -> float:
        """Return what attributes tell of the passes of a fit, given what passes tell of a row."""
        return value

    def _bounds_of(self, records: Sequence[Mapping[str, Any]], state: EMState) -> list[float]:
        return [self.bound_told(b, state) for b in lower_bounds(records, state.reported)]

    def set_arrays(self, arrays: Mapping[str, Array], dtype: Any = np.float64) -> None:
        """Set fitted parameters, given in float64, as attributes of the type of the data."""
        real = real_type(dtype)
        if not all(fits_type(array, real) for array in arrays.values()):
            real = np.dtype(np.float64)
        # What is rounded for the user need not be for whoever computes with it.
        self._unrounded = {} if real == np.float64 else dict(arrays)
        for name, array in arrays.items():
            setattr(self, name, array.astype(real, copy=False))

    def fitted_array(self, name: str) -> Array:
        """Return a fitted parameter in float64: what a fit found, or a user has set since."""
        array = np.asarray(getattr(self, name))
        found = vars(self).get("_unrounded", {}).get(name)
        if found is not None and np.array_equal(array, found.astype(array.dtype)):
            return np.asarray(found)
        return np.asarray(array, dtype=np.float64)

    @property
    def parameters_dtype(self) -> np.dtype[Any]:
        """The type of the fitted parameters."""
        return np.result_type(*(np.asarray(getattr(self, n)).dtype for n in self.public_arrays))

    @property
    def may_go_on(self) -> bool:
        """Whether a fit of the same data may go on from the state, as if it had not ended.

        A fit that failed may not, nor one whose options or attributes were changed since.
        """
        made = {"weights_": self.state_.result.shares}
        made |= self.state_.result.components.attributes()
        return (
            self.state_.n_iter > 0
            and self.state_.status in GOING_ON
            and vars(self).get("_step_options") == self.step_options()
            and all(np.array_equal(self.fitted_array(name), made[name]) for name in made)
        )

    def step_options(self) -> dict[str, Any]:
        """Return the options that an iteration depends on."""
        apart = (*UNIMPORTANT, *OF_THE_START, *self.array_options)
        options = {n: v for n, v in self.get_params().items() if n not in apart}
        return options | self.told_names()

    def told_names(self) -> dict[str, Any]:
        """Return the options that are names of columns as lists, None where there are none."""
        told = self.read_options
        names = {"columns": list(told.columns) or None, "exclude": list(told.exclude) or None}
        return {name: names[name] for name in names.keys() & self.get_params().keys()}

    def set_fit(self, fitted: FittedModel, provenance: Mapping[str, Any]) -> None:
        """Take what a fit found, and where its data came from."""
        self.history_ = [history(record, fitted.rejected) for record in fitted.records]
        self.lower_bounds_ = self._bounds_of(self.history_, fitted.state)
        self.n_passes_ = fitted.n_passes
        self.n_dropped_ = int(provenance["n_dropped"])
        self._step_options = self.step_options()
        self.provenance_: dict[str, Any] = dict(provenance)
        self.set_state(fitted.state, provenance["dtype"])

    @property
    def degenerate_(self) -> list[Degenerate]:
        """The components that the data do not determine, as at a value of many rows."""
        return self.state_.degenerate

    @property
    def warnings_(self) -> list[str]:
        """The warnings of the fit: what is odd about its components, and what to do."""
        return self.state_.warnings(Columns(vars(self).get("feature_names_in_")).first)

    # -- files ------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the fitted model to one checksummed `.npz` file, whole or not at all.

        Raises
        ------
        OutputExistsError
            The file is there and `overwrite` is False; `LockedError` where another job writes it.
        UsageError
            There is no such folder, or nothing can be written to it.
        """
        check_is_fitted(self)
        write_model(path, self, overwrite)

    @classmethod
    def stored(cls) -> Stored:
        """Return which of the parameters files hold."""
        apart = {"self", *cls.array_options, *cls.local_options}
        options = frozenset(signature(cls.__init__).parameters.keys() - apart)
        return Stored(options, cls.array_options, cls.kind_option, cls.size_option)

    def to_saved(self) -> SavedModel:
        """Return what a model file holds of the fit.

        Raises
        ------
        ValueError
            Attributes were set since that do not go with each other.
        """
        state, arrays = self.fitted_state()
        options = {name: plain(getattr(self, name)) for name in sorted(self.stored().options)}
        # The file is of the fit, whatever was set since; no generator or module goes into it.
        options |= self.fitted_options() | self.told_names()
        options |= {"warm_start": bool(self.warm_start), "verbose": int(self.verbose)}
        if not isinstance(options["random_state"], int | None):
            options["random_state"] = None
        if not isinstance(self.device, str):
            options["device"] = "cpu"
        for name in self.array_options:
            if not isinstance(getattr(self, name), str | None):
                arrays[name] = np.asarray(getattr(self, name), dtype=np.float64)
        if hasattr(self, "feature_names_in_"):
            arrays["feature_names_in_"] = np.asarray(self.feature_names_in_, dtype=str)
        if hasattr(self, "feature_categories_"):
            arrays |= packed_categories(self.feature_categories_)
        made = self.history_, self.n_passes_, self.provenance_
        return SavedModel(
            estimator_tag(type(self)), options, state, *made, arrays, self.kept_sample_
        )

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted mixture, to be computed by `engine`."""
        raise NotImplementedError

    def fitted_state(self) -> tuple[EMState, dict[str, Array]]:
        """Return the state of the fitted attributes, which a user may have set, and them.

        Raises
        ------
        ValueError
            Those that were set do not go with each other.
        """
        arrays = {name: self.fitted_array(name) for name in self.public_arrays}
        state, weights = self.state_, arrays["weights_"]
        try:
            require_close("weights_", weights, state.result.shares, 1e-9)
            state.result.components.check_attributes(arrays)
        except ValueError:
            made = self.mixture(state.result.engine)
            log_weights = made.log_weights - np.log(made.weights.sum())
            result = replace(state.result, log_weights=log_weights, components=made.components)
            # It is no fit that could go on.
            state = replace(state, result=result, n_iter=0)
            result.components.check_attributes(arrays)
            arrays |= result.components.attributes()
        whole = 1.0 - state.result.noise_weight
        if abs(weights.sum() - whole) > 1e-13:
            arrays["weights_"] = weights / (weights.sum() / whole)
        return state, arrays

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return the fitted estimator that a model file held.

        Raises
        ------
        KeyError, TypeError, ValueError
            A part is missing, or does not go with the others.
        """
        found, state = saved.attributes, saved.state
        inits = {name: found[name] for name in cls.array_options if name in found}
        model = cls(**{**saved.options, **inits})
        model.check_options()
        label = model.family_options().kind
        for mixture in (state.mixture, state.result):
            kind = mixture.components.kind
            require(cls.kind_option or "components", kind, kind == label)
            require("assignment", mixture.assignment, mixture.assignment == cls.assignment)
            model.check_box(mixture.noise_box)
        model.set_state(state)
        arrays = {name: found[name] for name in model.public_arrays}
        model.set_arrays(arrays, saved.provenance["dtype"])
        model.n_features_in_ = state.result.components.n_features
        if "feature_names_in_" in found:
            model.feature_names_in_ = found["feature_names_in_"].astype(object)
        if WORDS in found:
            model.feature_categories_ = unpacked_categories(found)
        model.history_ = saved.history
        model._step_options = model.step_options()
        model.lower_bounds_ = model._bounds_of(saved.history, state)
        model.n_passes_, model.provenance_ = saved.n_passes, saved.provenance
        model.n_dropped_ = int(saved.provenance["n_dropped"])
        model.kept_sample_ = saved.sample
        return model


def fits_type(array: Array, real: np.dtype[Any]) -> bool:
    """Return whether no finite number of an array is infinite in a type of real numbers.

    Examples
    --------
    >>> fits_type(np.array([1e30]), np.dtype("f4")), fits_type(np.array([1e84]), np.dtype("f4"))
    (True, False)
    """
    finite = np.abs(array[np.isfinite(array)])
    return bool(finite.max(initial=0.0) <= np.finfo(real).max)


def real_type(dtype: Any) -> np.dtype[Any]:
    """Return the type of what is told of data of some type: float32 of float32, else float64.

    Examples
    --------
    >>> real_type(">f4"), real_type(np.uint8)
    (dtype('float32'), dtype('float64'))
    """
    given = np.dtype(dtype)
    single = given.kind == "f" and given.itemsize == 4
    return np.dtype(np.float32 if single else np.float64)


def history(record: PassRecord, rejected: Sequence[int]) -> dict[str, Any]:
    """Return a pass for `history_`; of one that served this model, whether it was accepted."""
    if record.phase != "em":
        return record.as_dict()
    return {**record.as_dict(), "accepted": record.number not in rejected}


def lower_bounds(records: Sequence[Mapping[str, Any]], reached: float) -> list[float]:
    """Return the log-likelihood after each pass of EM: of the best where one was rejected.

    Where a warm start found nothing better, that is what it had `reached` before.
    """
    passes = [record for record in records if record["phase"] == "em"]
    accepted = [record.get("accepted", True) for record in passes]
    bounds: list[float] = []
    for record, taken in zip(passes, accepted, strict=True):
        before = bounds[-1] if bounds else record["log_likelihood"]
        # A last bit that a warm start did not move for is none.
        bounds.append(min(record["log_likelihood"] if taken else before, reached))
    return bounds if any(accepted) else [reached] * len(bounds)
