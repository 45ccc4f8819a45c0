"""Registered classes of estimators, by the tags that name them in files and on the command line.

Another package offers its own through an entry point of the group "dask_em.estimators": its name
is the tag, and it points to the class, or to the module that registers it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, Self, TypeVar

from .saved import SavedModel

GROUP = "dask_em.estimators"


class StoredEstimator(Protocol):
    """A fitted estimator that model files may hold."""

    def to_saved(self) -> SavedModel:
        """Return what a model file holds of it."""

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return the fitted estimator; raise where its parts do not belong together."""


E = TypeVar("E", bound=type[StoredEstimator])

# This package's own classes: the module that registers each, and that of its family. They are
# imported when asked for, because scikit-learn takes longer to import than a file to read.
OWN = {"gaussian-mixture": (".gaussian", "..families.gaussian.family")}

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
        import_module(OWN[tag][0], __package__)
    if tag not in _estimators:
        for entry in entry_points(group=GROUP, name=tag):
            entry.load()
    if tag not in _estimators:
        raise ValueError(
            f"a model of the kind {tag!r:.60}, which this dask_em does not know: import the module "
            "that registers it, or use a newer dask_em"
        )
    return _estimators[tag]


def import_records(tag: str) -> None:
    """Import what registers the records that files of a class hold.

    Raises
    ------
    ValueError
        Nobody registers the tag.
    """
    if tag in OWN:
        import_module(OWN[tag][1], __package__)
    else:
        # Whoever registers the class registers the records of its state, too.
        estimator_of(tag)


def known_tags() -> list[str]:
    """Return the tags of all classes that can be had."""
    return sorted({*OWN, *_estimators, *(entry.name for entry in entry_points(group=GROUP))})
