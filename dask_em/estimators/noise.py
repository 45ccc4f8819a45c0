"""Mixtures of densities that may have noise beside their components."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.box import Box
from ..core.engine import NUMPY
from ..core.validation import require
from ..fitting.noise import NoiseOptions
from ..fitting.starts import StartOptions
from .base import MixtureEstimator
from .options import check_above, check_n_samples


class NoisyEstimator(MixtureEstimator):
    """The part of an estimator that knows of noise; its subclasses have the two parameters."""

    noise: bool | float
    noise_volume: float | None

    def check_noise(self) -> None:
        """Raise `ValueError` where the options of noise are none of those allowed."""
        share = self.noise
        if not isinstance(share, bool | np.bool_):
            number = isinstance(share, int | float | np.integer | np.floating)
            if not number or not 0 < share < 1:
                raise ValueError(
                    f"noise={share!r}: expected True or False, or the share of the rows that are "
                    "noise at first, a number above 0 and below 1"
                )
        if self.noise_volume is None:
            return
        check_above("noise_volume", self.noise_volume, 0)
        if not self.noise:
            raise ValueError(
                f"noise_volume={self.noise_volume!r} is that of noise, of which there is none: "
                "pass noise=True"
            )

    def start_options(self) -> StartOptions:
        """Return how the mixture is to start, and whether there is noise."""
        found = super().start_options()
        if not self.noise:
            return found
        share = None if isinstance(self.noise, bool | np.bool_) else float(self.noise)
        volume = None if self.noise_volume is None else float(self.noise_volume)
        return replace(found, noise=NoiseOptions(volume, share))

    @property
    def n_labels(self) -> int:
        """How many numbers labels of rows may have: noise has the one behind the components'."""
        return super().n_labels + bool(self.noise)

    def check_box(self, box: Box | None) -> None:
        """Raise `ValueError` where the noise of a mixture is not what the options ask for."""
        require("noise", self.noise, (box is not None) == bool(self.noise))
        if box is not None:
            volume = self.noise_volume
            expected = Box.of(box.low, box.high, None if volume is None else float(volume))
            apart = abs(box.log_volume - expected.log_volume)
            require("log_volume", box.log_volume, apart <= 1e-9 * (1 + abs(box.log_volume)))

    @property
    def noise_weight_(self) -> float:
        """Share of the rows that are noise; with `weights_` it sums to one."""
        return self.state_.result.noise_weight

    @property
    def noise_volume_(self) -> float | None:
        """The volume in which noise has its constant density, in the units of the data."""
        box = self.fitted_box
        return None if box is None else box.volume

    def fitted_options(self) -> dict[str, Any]:
        """Return the options that the fit was of, whatever was set since."""
        box, noise = self.fitted_box, self.noise or True
        if box is None:
            return {**super().fitted_options(), "noise": False, "noise_volume": None}
        told = None if self.noise_volume is None else float(self.noise_volume)
        volume = None if box.log_volume == Box.of(box.low, box.high).log_volume else box.volume
        if box.log_volume == Box.of(box.low, box.high, told).log_volume:
            # To the digit, as it was given.
            volume = told
        return {**super().fitted_options(), "noise": noise, "noise_volume": volume}

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows (n, d) and their components (n,) from the fitted mixture.

        Noise is drawn uniformly from the box of all rows of the fit, and has the label -1.
        """
        box = self.fitted_box
        if box is None:
            return super().sample(n_samples)
        check_n_samples(n_samples)
        seed = self.random_state if isinstance(self.random_state, int) else None
        rng = np.random.default_rng(seed)
        mixture = self.mixture(NUMPY)
        k = len(mixture.log_weights)
        shares = np.exp(mixture.log_prior)
        counts = rng.multinomial(n_samples, shares / shares.sum())
        rows = [mixture.components.sample(i, int(n), rng) for i, n in enumerate(counts[:k])]
        drawn = np.concatenate([*rows, box.sample(int(counts[k]), rng)])
        return drawn, np.repeat([*range(k), -1], counts)
