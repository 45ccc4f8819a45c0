"""Models as JSON documents, for programs in other languages and for people, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..core.additive import Array
from ..core.validation import require
from ..errors import ModelFileError
from ..estimators.load import mixture_class
from ..estimators.registry import family_name, stored_of, tag_named
from ..estimators.saved import groups_in
from ..estimators.schema import (
    PROVENANCE,
    Anything,
    Each,
    Number,
    Object,
    Optional,
    Text,
    Word,
    header_of,
)

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator

FORMAT, VERSION = "dask-em-model", 1

# What a reader of a document is told of its fit, beside the parameters.
FIT = Object(
    {
        "status": Word(),
        "iterations": Number(0, whole=True),
        "objective": Word(),
        "value": Number(optional=True),
    }
)

DOCUMENT = Object(
    {
        "format": Word((FORMAT,)),
        "version": Number(VERSION, VERSION, whole=True),
        "family": Word(),
        "structure": Text(),
        "columns": Each(Object({"name": Optional(Text()), "categories": Each(Text())})),
        "weights": Each(Number(0, 1)),
        "parameters": Object({}, others=Anything()),
        "options": Object({}, others=Anything()),
        "fit": FIT,
        "provenance": PROVENANCE,
    }
)


def to_json(model: MixtureEstimator) -> dict[str, Any]:
    """Return a fitted model as a document of JSON.

    It holds the family by name, the columns with the words of their categories, the weights, the
    parameters in the units of the data, the options, among them how data are read, and where the
    model came from. `json_schema` describes it to other programs.

    Parameters
    ----------
    model : fitted estimator

    Returns
    -------
    dict
        Of what JSON has, for `json.dumps`. Numbers keep all their digits.

    Raises
    ------
    ValueError
        An option or attribute was set since the fit to what no model file holds.

    Examples
    --------
    >>> from dask_em import PoissonMixture, from_json, to_json
    >>> model = PoissonMixture.from_parameters([0.25, 0.75], rates=[[1.0, 9.0], [6.0, 2.0]])
    >>> document = to_json(model)
    >>> document["family"], [*document["parameters"]], document["weights"]
    ('poisson', ['rates'], [0.25, 0.75])
    >>> from_json(document).rates_.round(9).tolist()
    [[1.0, 9.0], [6.0, 2.0]]
    """
    saved, d = model.to_saved(), model.n_features_in_
    names = vars(model).get("feature_names_in_", (None,) * d)
    categories = vars(model).get("feature_categories_", ((),) * d)
    objective, family = model.objective_, saved.state.result.components
    return {
        "format": FORMAT,
        "version": VERSION,
        "family": family_name(saved.estimator),
        "structure": family.structure,
        "columns": [
            {"name": None if name is None else str(name), "categories": [*words]}
            for name, words in zip(names, categories, strict=True)
        ],
        "weights": saved.attributes["weights_"].tolist(),
        "parameters": {name: a.tolist() for name, a in model.given_parameters().items()},
        "options": {name: _plain(value) for name, value in model.given_options().items()},
        "fit": {
            "status": saved.state.status.name,
            "iterations": saved.state.n_iter,
            "objective": objective.key,
            "value": float(objective.value) if math.isfinite(objective.value) else None,
        },
        "provenance": saved.provenance,
    }


def from_json(document: Mapping[str, Any]) -> MixtureEstimator:
    """Return the fitted model of a document that `to_json` made, or another program.

    Whoever wrote it is not trusted: parts that are unknown, of another type, or beyond their
    bounds are refused, and nothing of it is executed. What the model tells of its fit is that its
    parameters were given.

    Parameters
    ----------
    document : mapping
        As `json.loads` returns it.

    Raises
    ------
    ModelFileError
        It is no such document.

    Examples
    --------
    >>> from_json({"format": "dask-em-model"})
    Traceback (most recent call last):
    dask_em.errors.ModelFileError: this is no document of a model: columns is missing: ...
    """
    try:
        DOCUMENT.check("", document)
        return _made(document)
    except (
        LookupError, TypeError, ValueError, ArithmeticError, MemoryError, RecursionError,
    ) as e:  # fmt: skip
        raise ModelFileError(
            f"this is no document of a model: {e}: write it anew by dask-em export MODEL --json"
        ) from e


def _made(document: Mapping[str, Any]) -> MixtureEstimator:
    tag = tag_named(document["family"])
    kind = mixture_class(tag)
    stored, options = stored_of(tag), document["options"]
    for name in groups_in({"options": options}):
        stored_of(tag_named(name))
    rules = header_of(stored.options, stored.size_option).parts["options"]
    # Those that are arrays: of a start, and of a prior.
    given = {
        name: _numbers(f"options.{name}", options[name])
        for name in stored.arrays
        if name in options and not isinstance(options[name], str)
    }
    told = {name: value for name, value in options.items() if name not in given}
    rules.check("options", told)
    parameters = {
        name: _numbers(f"parameters.{name}", value)
        for name, value in document["parameters"].items()
    }
    # An option under the name of a parameter would pass by the rules of options.
    known = signature(kind.__init__).parameters.keys()
    require("parameters", [*parameters], not parameters.keys() & known)
    columns = document["columns"]
    names = [column["name"] for column in columns]
    words = [column["categories"] for column in columns]
    named: dict[str, Any] = {}
    if any(name is not None for name in names):
        named["feature_names"] = names
        named["feature_categories"] = words if any(words) else None
    named |= {**parameters, **told, **given}
    model = kind.from_parameters(weights=_numbers("weights", document["weights"]), **named)
    require("columns", columns, model.n_features_in_ == len(columns))
    return model


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the documents of models.

    Examples
    --------
    >>> json_schema()["title"]
    'A fitted mixture model of dask_em'
    """
    place = resources.files(__package__).joinpath("model.schema.json")
    return cast("dict[str, Any]", json.loads(place.read_text(encoding="utf-8")))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _numbers(where: str, value: object) -> Array:
    """Return nested lists of numbers as an array."""
    rule = _Numbers()
    rule.check(where, value)
    try:
        return np.asarray(value, dtype=np.float64)
    except ValueError as e:
        raise ValueError(f"{where} holds lists of several lengths, expected those of one") from e


class _Numbers:
    """Numbers, or lists of them however deep, of which none is a text."""

    def check(self, where: str, value: object) -> None:
        """Raise `ValueError` where it holds anything else."""
        if isinstance(value, list):
            for inner in value:
                self.check(where, inner)
        else:
            Number(-np.finfo(np.float64).max, np.finfo(np.float64).max).check(where, value)
