"""Read a fitted model of any registered class."""

from __future__ import annotations

import os
from typing import cast

from .gaussian import GaussianMixture
from .model_file import read_model, register_estimator

__all__ = ["load", "register_estimator"]


def load(path: str | os.PathLike[str]) -> GaussianMixture:
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
        No such file, not one of ours, damaged, or of a class that is not registered.
    StoreError
        The object store cannot be reached.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "model.npz")
    ...     GaussianMixture(1).fit(X).save(path)
    ...     load(path).n_components
    1
    """
    return cast(GaussianMixture, read_model(path))
