"""The base of the estimators of exponential families: their numbers start at zero."""

from __future__ import annotations

from typing import Any

from .cpu import CpuMixture


class CanonicalMixture(CpuMixture):
    """A mixture of an exponential family, which NumPy computes in float64."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        # That is how scikit-learn says that numbers are whole.
        tags.input_tags.categorical = self.family_options().support.whole == (True,)
        return tags
