"""Read a fitted model of any registered class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from .model_file import read_model
from .registry import estimator_of, family_name, known_tags, register_estimator, tag_named

if TYPE_CHECKING:
    from .base import MixtureEstimator

__all__ = [
    "estimator_of", "family_name", "known_tags", "load", "mixture_class", "register_estimator",
]  # fmt: skip


def mixture_class(name: str) -> type[MixtureEstimator]:
    """Return the class of mixtures that is registered under a tag, with or without "-mixture".

    Raises
    ------
    ValueError
        There is none.

    Examples
    --------
    >>> mixture_class("gaussian").__name__, mixture_class("gaussian-mixture").__name__
    ('GaussianMixture', 'GaussianMixture')
    """
    found = estimator_of(tag_named(name))
    # scikit-learn takes longer to import than it takes to refuse a tag or a file.
    from .base import MixtureEstimator

    if not issubclass(found, MixtureEstimator):
        raise ValueError(f"{name!r} is no mixture")
    return found


def load(path: str | os.PathLike[str]) -> MixtureEstimator:
    """Read a fitted model that `save` wrote. Nothing in the file is executed.

    The file names the class by a tag that is looked up among those of `register_estimator`.

    Parameters
    ----------
    path : path or URL
        Of a local file, or in an object store: s3://bucket/model.npz.

    Returns
    -------
    estimator
        Fitted: its parameters are those that were saved, to the bit.

    Raises
    ------
    ModelFileError
        Not one of ours, damaged, or of a class that is not registered; `ModelNotFoundError`
        where there is no such file.
    StoreError
        The object store cannot be reached.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.npz")
    ...     GaussianMixture(1).fit(X).save(path)
    ...     load(path).n_components
    1
    """
    return cast("MixtureEstimator", read_model(path))
