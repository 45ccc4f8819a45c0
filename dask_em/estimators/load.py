"""TODO estimators.load."""

from __future__ import annotations

import os

from ..errors import ModelFileError
from ..storage.npz import read_arrays
from .gaussian import GaussianMixture, _lower_bounds
from .model_file import INIT_ARRAYS, PUBLIC_ARRAYS, check_model, read_state


def load(path: str | os.PathLike[str]) -> GaussianMixture:
    """Read a fitted model that `save` wrote. Nothing in the file is executed.

    Parameters
    ----------
    path : path or URL
        Of a local file, or in an object store: s3://bucket/model.npz.

    Returns
    -------
    GaussianMixture
        Fitted: its parameters are those that were saved, to the bit.

    Raises
    ------
    ModelFileError
        No such file, not one of ours, or damaged.
    """
    header, arrays = read_arrays(path)
    try:
        check_model(header, arrays)
        options = dict(header["options"])
        options |= {name: arrays[name] for name in INIT_ARRAYS if name in arrays}
        model = GaussianMixture(**options)
        model._check_options()
        model._set_state(read_state(header["state"], arrays))
        for name in PUBLIC_ARRAYS:
            setattr(model, name, arrays[name])
        if "feature_names_in_" in arrays:
            model.feature_names_in_ = arrays["feature_names_in_"].astype(object)
        model.n_features_in_ = model.means_.shape[1]
        model.history_ = header["history"]
        model.lower_bounds_ = _lower_bounds(model.history_)
        model.n_passes_ = header["n_passes"]
        model.provenance_ = header["provenance"]
        model.n_dropped_ = int(header["provenance"].get("n_dropped", 0))
    except (KeyError, TypeError, ValueError, ArithmeticError, MemoryError) as e:
        raise ModelFileError(
            f"{path}: a part of the model is missing or wrong ({e!r}): restore it from a copy, or "
            "fit again"
        ) from e
    return model
