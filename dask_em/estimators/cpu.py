"""The base of the estimators whose components NumPy computes, on no other device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core.engine import Engine
from .base import MixtureEstimator


class CpuMixture(MixtureEstimator):
    """A mixture that is computed on the CPU: other devices are refused by name."""

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        if self.device not in ("cpu", "auto"):
            raise ValueError(f"device={self.device!r}: {type(self).__name__} computes on the CPU")

    def engine(self, dtype: Any = np.float64, n_rows: int | None = None) -> Engine:
        """Return what computes, here and on every worker, for data of this type and size."""
        return replace(super().engine(dtype, n_rows), device="cpu")
