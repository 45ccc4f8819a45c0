"""Labels, noise and samples beside rows: what a fit refuses of them before any row is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ..core.family import FamilyOptions
from ..core.responsibilities import Assignment
from ..errors import UsageError
from .options import check_number


class Starting(Protocol):
    """Describe what is asked of an estimator whose fit starts from labels."""

    warm_start: bool
    max_passes: int | None

    @property
    def n_components(self) -> int:
        """Number of components."""

    @property
    def n_labels(self) -> int:
        """How many numbers labels of rows may have: noise has one of its own."""


@dataclass(frozen=True)
class KnownLabels:
    """Labels or responsibilities of the rows of a fit, and whether they are kept.

    Attributes
    ----------
    values : object
        As `fit` takes `labels_init`.
    fixed : bool
        Whether rows keep their labels in every E-step, and not in the first M-step alone.

    Examples
    --------
    >>> KnownLabels.of([0, 1, -1], True)
    KnownLabels(values=[0, 1, -1], fixed=True)
    >>> KnownLabels.of(None, False) is None
    True
    """

    values: Any
    fixed: bool = False

    @classmethod
    def of(cls, labels_init: Any, labels_fixed: bool) -> Self | None:
        """Return what a fit was told; None where it was told nothing.

        Raises
        ------
        ValueError
            Labels are to be kept and there are none.
        """
        if not isinstance(labels_fixed, bool):
            raise ValueError(f"labels_fixed={labels_fixed!r}: expected True or False")
        if labels_init is None:
            if labels_fixed:
                raise ValueError("labels_fixed=True keeps the labels of labels_init: give them")
            return None
        return cls(labels_init, labels_fixed)

    def check(self, estimators: Sequence[Starting]) -> None:
        """Raise `ValueError` where options of the estimators do not go with labels."""
        ks = sorted({one.n_components for one in estimators})
        if len(ks) > 1:
            raise ValueError(
                f"labels_init names components of one K, and models of {', '.join(map(str, ks))} "
                "are to be fitted: give one n_components"
            )
        if len({one.n_labels for one in estimators}) > 1:
            raise ValueError(
                "labels_init names components and noise, and of the models that are to be fitted "
                "some have noise and others none: fit them apart"
            )
        lead = estimators[0]
        if lead.warm_start:
            raise ValueError(
                "warm_start=True starts from the last result, and labels_init from labels: set "
                "warm_start=False, or leave labels_init out"
            )
        if lead.max_passes is not None and lead.max_passes < 3:
            raise ValueError(
                f"max_passes={lead.max_passes}: a fit that starts from labels_init reads the data "
                "three times at least, for the survey, the first M-step and a log-likelihood"
            )


def check_noise_covariance(components: FamilyOptions, device: Any) -> None:
    """Check that components can be told from the known noise of rows.

    Raises
    ------
    UsageError
        They cannot.
    ValueError
        They would be computed on another device than the CPU.

    Examples
    --------
    >>> from ..families.gaussian.options import GaussianOptions
    >>> check_noise_covariance(GaussianOptions(), "cpu")
    """
    components.of_noisy_rows()
    if device not in ("cpu", "auto"):
        raise ValueError(
            f"device={getattr(device, '__name__', device)!r} with noise_covariance: rows of known "
            'noise are computed on the CPU; pass device="cpu"'
        )


def check_keep_sample(
    keep_sample: Any, labels: KnownLabels | None, noise: Any, assignment: Assignment = "soft"
) -> None:
    """Check that rows may be kept with a model, of a fit that was given labels and noise or none.

    Raises
    ------
    ValueError
        It is no number of rows, or the rows mean nothing without what stands beside them.
    UsageError
        The model knows no use of them.

    Examples
    --------
    >>> check_keep_sample(1000, None, None)
    >>> check_keep_sample(1000, KnownLabels([0, 1], True), None)
    Traceback (most recent call last):
    ValueError: keep_sample=1000 keeps rows without their labels, and labels_fixed=True ...
    """
    check_number("keep_sample", keep_sample, int, 0)
    if keep_sample and labels is not None and labels.fixed:
        raise ValueError(
            f"keep_sample={keep_sample} keeps rows without their labels, and labels_fixed=True "
            "fits rows with them: leave keep_sample out"
        )
    if keep_sample and noise is not None:
        raise ValueError(
            f"keep_sample={keep_sample} keeps rows without their noise, and noise_covariance was "
            "given: leave keep_sample out"
        )
    if keep_sample and assignment == "hard":
        raise UsageError(
            f"keep_sample={keep_sample} keeps rows that say how responsibilities change, and "
            "clusters have none: leave keep_sample out"
        )
