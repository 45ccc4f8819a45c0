"""The base of the estimators of exponential families: their numbers start at zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core.engine import Engine
from .base import MixtureEstimator


class CanonicalMixture(MixtureEstimator):
    """A mixture of an exponential family, which NumPy computes in float64."""

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        if self.device not in ("cpu", "auto"):
            raise ValueError(f"device={self.device!r}: {type(self).__name__} computes on the CPU")

    def engine(self, dtype: Any = np.float64, n_rows: int | None = None) -> Engine:
        """Return what computes, here and on every worker, for data of this type and size."""
        return replace(super().engine(dtype, n_rows), device="cpu")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        # That is how scikit-learn says that numbers are whole.
        tags.input_tags.categorical = self.family_options().support.whole == (True,)
        return tags
