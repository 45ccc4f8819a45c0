"""Rules for each part of the header of a model file: its type, its bounds, its length.

Whoever wrote the file is not known, so a part that is not named here is refused, and so is a value
that no `save` writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..core.device import DEVICE_NAMES
from ..core.validation import LARGEST, brief
from ..foreign import shown


class Part(Protocol):
    """A rule that a part of the header is held to."""

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` that names the part unless the value follows the rule."""


def _refuse(where: str, value: object, expected: str) -> ValueError:
    return ValueError(f"{where} is {brief(value)}, expected {expected}")


@dataclass(frozen=True)
class Number:
    """A number within bounds.

    Examples
    --------
    >>> Number(least=1, whole=True).check("n_init", 3)
    >>> Number(least=1, whole=True).check("n_init", 0)
    Traceback (most recent call last):
    ValueError: n_init is 0, expected an integer from 1 to 9.0072e+15
    """

    least: float = -LARGEST
    most: float = LARGEST
    whole: bool = False
    optional: bool = False
    infinite: bool = False

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a number within the bounds."""
        if value is None and self.optional:
            return
        # Floats hold all integers up to there; and Python counts True among the integers.
        most = min(self.most, 2.0**53) if self.whole else self.most
        if isinstance(value, int if self.whole else int | float) and not isinstance(value, bool):
            if self.least <= value <= most:
                return
            if self.infinite and isinstance(value, float) and not math.isfinite(value):
                return
        noun = "an integer" if self.whole else "a number"
        raise _refuse(where, value, f"{noun} from {self.least:g} to {most:g}")


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is one of both."""
        if not isinstance(value, bool):
            raise _refuse(where, value, "true or false")


@dataclass(frozen=True)
class FlagOr:
    """True or false, or what follows another rule.

    Examples
    --------
    >>> FlagOr(Number(0, 1)).check("noise", True)
    >>> FlagOr(Number(0, 1)).check("noise", 2)
    Traceback (most recent call last):
    ValueError: noise is 2, expected a number from 0 to 1
    """

    other: Part

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is one of both, or follows the other rule."""
        if not isinstance(value, bool):
            self.other.check(where, value)


@dataclass(frozen=True)
class Text:
    """A text of at most so many characters, which only ever is shown."""

    longest: int = 10_000

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a text, and no longer."""
        if not isinstance(value, str) or len(value) > self.longest:
            raise _refuse(where, value, f"a text of at most {self.longest} characters")


WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,99}")


@dataclass(frozen=True)
class Word:
    """A word that names no place: letters, digits, and + - _ between them.

    Examples
    --------
    >>> Word().check("init_params", "k-means++")
    >>> Word().check("init_params", "../x")
    Traceback (most recent call last):
    ValueError: init_params is '../x', expected a word of letters, digits, + - and _
    """

    choices: tuple[str, ...] = ()
    empty: bool = False

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a word, and of the choices where there are any."""
        if value == "" and self.empty:
            return
        if not isinstance(value, str) or not WORD.fullmatch(value):
            raise _refuse(where, value, "a word of letters, digits, + - and _")
        if self.choices and value not in self.choices:
            raise _refuse(where, value, f"one of {', '.join(self.choices)}")


@dataclass(frozen=True)
class OneOf:
    """One of some words, or what follows another rule.

    Examples
    --------
    >>> OneOf(("auto",), Number(1)).check("n_init", "auto")
    >>> OneOf(("auto",), Number(1)).check("n_init", 0)
    Traceback (most recent call last):
    ValueError: n_init is 0, expected a number from 1 to 1e+150
    """

    words: tuple[str, ...]
    other: Part | None = None

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is one of the words, or follows the other rule."""
        if isinstance(value, str) and value in self.words:
            return
        if self.other is None:
            raise _refuse(where, value, f"one of {', '.join(self.words)}")
        self.other.check(where, value)


@dataclass(frozen=True)
class Simple:
    """A number, a word, true, false or nothing; or a list of them where there may be several."""

    several: bool = False

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` where it is anything else."""
        if self.several and isinstance(value, list | tuple):
            for inner in value:
                Simple().check(where, inner)
        elif isinstance(value, str):
            Word().check(where, value)
        elif not isinstance(value, bool):
            Number(optional=True).check(where, value)


@dataclass(frozen=True)
class RealType:
    """The name of one of NumPy's types of real numbers."""

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless NumPy has a type of this name."""
        try:
            if isinstance(value, str) and len(value) < 20 and np.dtype(value).kind in "biuf":
                return
        except (TypeError, ValueError, SyntaxError):
            pass
        raise _refuse(where, value, "a type of real numbers")


@dataclass(frozen=True)
class Anything:
    """A value that another part of the reader looks at."""

    def check(self, where: str, value: object) -> None:
        """Accept it."""


@dataclass(frozen=True)
class Each:
    """A list whose every part follows one rule."""

    part: Part

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a list of such parts."""
        if not isinstance(value, list):
            raise _refuse(where, value, "a list")
        for i, inner in enumerate(value):
            self.part.check(f"{where}[{i}]", inner)


@dataclass(frozen=True)
class Object:
    """An object of named parts.

    Attributes
    ----------
    parts : mapping of str to Part
    lacking : set of str
        Names that may be absent.
    others : Part or None
        The rule of parts of other names, which are words; None where there are none.
    """

    parts: Mapping[str, Part]
    lacking: frozenset[str] = frozenset()
    others: Part | None = None

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` that names what is missing, unknown or wrong."""
        if not isinstance(value, dict):
            raise _refuse(where or "the header", value, "an object")
        prefix = f"{where}." if where else ""
        missing = self.parts.keys() - value.keys() - self.lacking
        if missing:
            raise ValueError(f"{prefix}{min(missing)} is missing")
        for name, inner in value.items():
            part = self.parts.get(name, self.others)
            if part is None:
                raise ValueError(
                    f"{prefix}{shown(name, 60)} is unknown to this dask_em: use the one that "
                    "wrote the file"
                )
            part.check(f"{prefix}{shown(name, 60)}", inner)


@dataclass(frozen=True)
class Names:
    """Names of columns, or patterns of them, which are only compared and shown; or nothing.

    Or an object of lists of such names, or of numbers of columns: those of each family.
    """

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a list of texts that are not empty, or nothing."""
        if value is None:
            return
        if isinstance(value, dict):
            for family, inner in value.items():
                Word().check(where, family)
                numbers = isinstance(inner, list) and any(type(one) is int for one in inner)
                Each(COUNT if numbers else Text()).check(f"{where}.{family}", inner)
            return
        Each(Text()).check(where, value)
        if not value or "" in value:  # type: ignore[operator]
            raise _refuse(where, value, "names, or null")


@dataclass(frozen=True)
class OneColumn:
    """A column by its name or its number, or nothing."""

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a text that is not empty, a number, or nothing."""
        if isinstance(value, str) and value:
            Text().check(where, value)
        else:
            Number(0, whole=True, optional=True).check(where, value)


@dataclass(frozen=True)
class Optional:
    """A part that may be null."""

    part: Part

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is null, or follows the rule."""
        if value is not None:
            self.part.check(where, value)


@dataclass(frozen=True)
class HeldParameters:
    """Names of parameters that are held, or an object of components by these names."""

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` unless it is a list of words, or such an object, or nothing."""
        of = OneOf(("weights", "means", "covariances", "rates"))
        if isinstance(value, str):
            of.check(where, value)
        elif isinstance(value, dict):
            for name, inner in value.items():
                of.check(where, name)
                if inner is not None:
                    rule = Each(COUNT) if isinstance(inner, list) else COUNT
                    rule.check(f"{where}.{name}", inner)
        elif value is not None:
            Each(of).check(where, value)


COUNT = Number(0, whole=True)
MEASURED = Number(optional=True, infinite=True)

# The options of mixtures; a class may have more, which are `Simple`.
OPTIONS: Mapping[str, Part] = {
    "n_components": Number(1, whole=True),
    "tol": Number(0),
    "max_iter": COUNT,
    "n_init": OneOf(("auto",), Number(1, whole=True)),
    "init_params": Word(),
    "algorithm": Word(("auto", "em", "lloyd")),
    "sample_size": Number(1, whole=True, optional=True),
    "max_passes": Number(2, whole=True, optional=True),
    "max_time": Number(0, optional=True),
    "nonfinite": Word(("error", "drop")),
    "missing_chunks": Word(("error", "fill")),
    "columns": Names(),
    "exclude": Names(),
    "features": Optional(Text(1000)),
    "raw": Flag(),
    "random_state": Number(0, 2**32 - 1, whole=True, optional=True),
    "warm_start": Flag(),
    "device": Word(DEVICE_NAMES),
    "verbose": Number(-(2**31), 2**31, whole=True),
}

# Those of some mixtures.
OTHER_OPTIONS: Mapping[str, Part] = {
    "reg_covar": Number(0),
    "exposure": OneColumn(),
    "fractions": Word(("error", "round")),
    "detection_limit": Number(0, optional=True),
    "alpha": Number(0),
    "n_factors": Number(1, whole=True),
    "fixed": HeldParameters(),
    "noise": FlagOr(Number(0, 1)),
    "noise_volume": Number(0, optional=True),
    "missing_values": Word(("error", "mar")),
    "n_clusters": Number(1, whole=True),
    "init": OneOf(("auto", "k-means++", "k-means||", "random")),
    "spherical": Flag(),
    "weight_concentration_prior_type": Word(("dirichlet_process", "dirichlet_distribution")),
    "weight_concentration_prior": Number(0, optional=True),
    "mean_precision_prior": Number(0, optional=True),
    "degrees_of_freedom_prior": Number(0, optional=True),
}

# One pass, as `fitting.observers.PassRecord` has it.
RECORD = Object(
    {
        "phase": Word(),
        "number": COUNT,
        "seconds": Number(0),
        "rows": COUNT,
        "bytes": COUNT,
        "log_likelihood": MEASURED,
        "retries": COUNT,
        "lost_workers": COUNT,
        "accepted": Flag(),
        "inertia": MEASURED,
        "variational_bound": MEASURED,
    },
    frozenset({"accepted", "inertia", "variational_bound"}),
)

# One model of a sweep, as `fitting.criteria.Row` has it; its kind is under the option's name.
CANDIDATE = Object(
    {
        "n_components": Number(1, whole=True),
        "n_parameters": COUNT,
        "n_passes": COUNT,
        "status": Word(),
        "n_factors": Number(1, whole=True),
        **dict.fromkeys(("log_likelihood", "aic", "bic", "icl", "holdout", "inertia"), MEASURED),
    },
    frozenset({"inertia", "n_factors"}),
    others=Word(empty=True),
)

SWEEP = Object(
    {
        "criterion": Word(("bic", "aic", "icl", "holdout")),
        "holdout": Number(0, 1),
        "table": Each(CANDIDATE),
    }
)

# From which model, and how, as `adapt` has it.
ADAPTED = Object(
    {
        "fingerprint": Word(),
        "relevance": Number(0, float(np.finfo(np.float64).max)),
        "n_passes": Number(1, whole=True),
    }
)

# Rows that a model has read, as `estimators.generations.Generation` has it.
GENERATION = Object(
    {
        "number": Number(1, whole=True),
        "data": Text(),
        "rows": COUNT,
        "dropped": COUNT,
        "weight": Number(0, float(np.finfo(np.float64).max)),
        "kept": Number(0, 1),
        "log_likelihood": MEASURED,
        "seconds": Number(0),
        "passes": COUNT,
        "fitted": Text(100),
        "fingerprint": Word(),
        "until": COUNT,
        "stamp": Word(empty=True),
        "weights": Each(Number(0, 1)),
    },
    frozenset({"weights"}),
)

PROVENANCE = Object(
    {
        "source": Text(),
        "n_rows": COUNT,
        "n_dropped": COUNT,
        "n_features": Number(1, whole=True),
        "weight": Number(0, float(np.finfo(np.float64).max)),
        "dtype": RealType(),
        "decoding": Text(),
        "fingerprint": Word(),
        "fitted": Text(100),
        "dask_em": Text(100),
        "sweep": SWEEP,
        "fit": Object({"id": Word(), "identity": Word()}),
        "adapted": ADAPTED,
        "stamp": Word(),
        "generations": Each(GENERATION),
        "labels": Object({"rows": COUNT, "fixed": Flag()}),
        "noise_covariance": Word(("variances", "covariances")),
        "tuning": Object({}, others=Simple(several=True)),
    },
    frozenset(
        {
            "weight",
            "decoding",
            "sweep",
            "fit",
            "adapted",
            "stamp",
            "generations",
            "labels",
            "noise_covariance",
            "tuning",
        }
    ),
)


def header_of(options: frozenset[str], size_option: str = "n_components") -> Object:
    """Return the rule of the header of a model whose class has these options."""
    required = options & {size_option, "random_state", "warm_start", "verbose", "device"}
    known = {**OPTIONS, **OTHER_OPTIONS}
    parts: dict[str, Part] = {name: known.get(name, Simple()) for name in options}
    return Object(
        {
            "estimator": Word(),
            "options": Object(parts, options - required),
            "history": Each(RECORD),
            "n_passes": Number(0),
            "provenance": PROVENANCE,
            "engine": Object({"name": Word(("numpy", "numba")), "single": Flag()}),
            "state": Anything(),
            "sample": Anything(),
        },
        frozenset({"sample"}),
    )
