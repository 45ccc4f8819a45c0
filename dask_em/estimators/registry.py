"""Registered classes of estimators, by the tags that name them in files and on the command line.

Another package offers its own through an entry point of the group "dask_em.estimators": its name
is the tag, and it points to the class, or to the module that registers it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, Self, TypeVar

from .saved import SavedModel, Stored
from .schema import OPTIONS

GROUP = "dask_em.estimators"

# What the tags of mixtures end with, and nobody types.
SUFFIX = "-mixture"


class StoredEstimator(Protocol):
    """A fitted estimator that model files may hold."""

    def to_saved(self) -> SavedModel:
        """Return what a model file holds of it."""

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return the fitted estimator; raise where its parts do not belong together."""

    @classmethod
    def stored(cls) -> Stored:
        """Return which of its parameters files hold."""


E = TypeVar("E", bound=type[StoredEstimator])


@dataclass(frozen=True)
class _Own:
    """A class of this package: the module that registers it, that of its family, its files.

    They are imported when asked for: scikit-learn takes longer to import than a file to read.
    A class `of_others` has components that are made of those of other classes.
    """

    module: str
    family: str
    stored: Stored
    of_others: bool = False


# Options of every mixture.
COMMON = frozenset(OPTIONS)

# That of mixtures of which parameters may be held.
FIXED = frozenset({"fixed"})

# Those of mixtures that may have noise.
NOISE = frozenset({"noise", "noise_volume"})

OWN = {
    "gaussian-mixture": _Own(
        ".gaussian",
        "..families.gaussian.missing",
        Stored(
            COMMON
            | {"reg_covar", "covariance_type", "prior", "max_ratio", "missing_values"}
            | FIXED
            | NOISE,
            ("weights_init", "means_init", "precisions_init"),
            "covariance_type",
        ),
    ),
    "bayesian-gaussian-mixture": _Own(
        ".bayesian_gaussian",
        "..families.bayesian_gaussian.family",
        Stored(
            COMMON
            | {"reg_covar", "covariance_type", "weight_concentration_prior_type"}
            | {"weight_concentration_prior", "mean_precision_prior", "degrees_of_freedom_prior"},
            ("mean_prior", "covariance_prior"),
            "covariance_type",
        ),
    ),
    "mixed": _Own(
        ".mixed",
        "..families.product.family",
        Stored(
            COMMON | FIXED | {"reg_covar", "covariance_type", "alpha", "missing_values"},
            ("weights_init",),
            "covariance_type",
        ),
        of_others=True,
    ),
    "poisson-mixture": _Own(
        ".counts",
        "..families.poisson",
        Stored(COMMON | FIXED | {"exposure", "fractions"}, ("weights_init", "rates_init")),
    ),
    "multinomial-mixture": _Own(
        ".counts",
        "..families.multinomial",
        Stored(COMMON | FIXED | {"fractions"}, ("weights_init",)),
    ),
    "exponential-mixture": _Own(
        ".amounts", "..families.exponential", Stored(COMMON | FIXED, ("weights_init",))
    ),
    "gamma-mixture": _Own(
        ".amounts",
        "..families.gamma",
        Stored(COMMON | FIXED | {"detection_limit"}, ("weights_init",)),
    ),
    "student-t": _Own(
        ".student_t",
        "..families.student_t.family",
        Stored(
            COMMON | FIXED | NOISE | {"reg_covar", "covariance_type", "df", "shared_df"},
            ("weights_init", "means_init"),
            "covariance_type",
        ),
    ),
    "factor": _Own(
        ".factor",
        "..families.factor.family",
        Stored(
            COMMON | FIXED | NOISE | {"reg_covar", "factor_constraint", "n_factors"},
            ("weights_init", "means_init"),
            "factor_constraint",
        ),
    ),
    "kmeans": _Own(
        ".kmeans",
        "..families.centers.family",
        Stored(
            COMMON - {"n_components", "init_params", "device"}
            | {"n_clusters", "init", "spherical"},
            ("init",),
            None,
            "n_clusters",
        ),
    ),
    "bernoulli": _Own(
        ".categorical",
        "..families.categorical.family",
        Stored(COMMON | FIXED | {"alpha", "missing_values", "binarize"}, ("weights_init",)),
    ),
    "categorical": _Own(
        ".categorical",
        "..families.categorical.family",
        Stored(COMMON | FIXED | {"alpha", "missing_values"}, ("weights_init",)),
    ),
}

_estimators: dict[str, type[StoredEstimator]] = {}


def register_estimator(tag: str) -> Callable[[E], E]:
    """Register a class of estimators under the tag that names it in model files.

    Parameters
    ----------
    tag : str
        Stays when the class is renamed.

    Raises
    ------
    ValueError
        Another class has the tag.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> @register_estimator("doc-mixture")
    ... class Mine(GaussianMixture):
    ...     pass
    >>> estimator_tag(Mine)
    'doc-mixture'
    """

    def register(kind: E) -> E:
        known = _estimators.get(tag, kind)
        # A cell of a notebook that is run again defines the class again.
        if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
            raise ValueError(f"tag {tag!r}: {known.__module__}.{known.__qualname__} has it")
        _estimators[tag] = kind
        return kind

    return register


def estimator_tag(kind: type[StoredEstimator]) -> str:
    """Return the tag of a class, or of the registered class that it is derived from."""
    tags = {registered: tag for tag, registered in _estimators.items()}
    for base in kind.__mro__:
        if base in tags:
            return tags[base]
    raise TypeError(f"{kind.__name__} has no tag: decorate it with register_estimator")


def estimator_of(tag: str) -> type[StoredEstimator]:
    """Return the class that is registered under a tag, by this process or an entry point.

    Raises
    ------
    ValueError
        Nobody registers the tag.
    """
    if tag in OWN:
        import_module(OWN[tag].module, __package__)
    if tag not in _estimators:
        for entry in entry_points(group=GROUP, name=tag):
            entry.load()
    if tag not in _estimators:
        raise ValueError(
            f"a model of the kind {tag!r:.60}, which this dask_em does not know: import the module "
            "that registers it, or use a newer dask_em"
        )
    return _estimators[tag]


def stored_of(tag: str) -> Stored:
    """Return what files of a class hold; the records of its state are then registered.

    Raises
    ------
    ValueError
        Nobody registers the tag.

    Examples
    --------
    >>> stored_of("gaussian-mixture").kind_option
    'covariance_type'
    """
    if tag in OWN:
        own = OWN[tag]
        for one in OWN.values() if own.of_others else [own]:
            import_module(one.family, __package__)
        # Of mixtures that hold parameters, or have noise.
        import_module("..core.noise", __package__)
        return own.stored
    # Whoever registers the class registers the records of its state, too.
    return estimator_of(tag).stored()


def known_tags() -> list[str]:
    """Return the tags of all classes that can be had."""
    return sorted({*OWN, *_estimators, *(entry.name for entry in entry_points(group=GROUP))})


def family_name(tag: str) -> str:
    """Return the name of a class for people: its tag without "-mixture".

    Examples
    --------
    >>> family_name("gaussian-mixture"), family_name("mixed")
    ('gaussian', 'mixed')
    """
    return tag.removesuffix(SUFFIX)


def tag_named(name: str) -> str:
    """Return the tag of a class by its name, with or without "-mixture"; any other as it is.

    Examples
    --------
    >>> tag_named("gaussian"), tag_named("gaussian-mixture"), tag_named("zipf")
    ('gaussian-mixture', 'gaussian-mixture', 'zipf')
    """
    longer = f"{name}{SUFFIX}"
    return longer if longer in known_tags() else name
