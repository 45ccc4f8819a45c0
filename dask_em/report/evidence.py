"""Evidence of a page beside the model: a sample of the rows, and one pass over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ..core.additive import Array
from ..core.protocols import Source
from ..estimators.describe import FittedMixture
from .drift import ChunkDensities, source_densities


@dataclass(frozen=True)
class Evidence:
    """Evidence of a report beside the model.

    Attributes
    ----------
    rows : (n, d) array or None
        A sample of the data, None where there is none.
    densities : ChunkDensities or None
        Of one pass over the data.
    origin : mapping of str to str
        Names and values that tell the reader where it all comes from.
    missing : sequence of str
        Parts that were left out, why, and how to get them.

    Examples
    --------
    >>> import numpy as np
    >>> evidence = Evidence(rows=np.zeros((5, 2)), missing=["no densities: pass the data"])
    >>> evidence.rows.shape, evidence.densities is None
    ((5, 2), True)
    """

    rows: Array | None = None
    densities: ChunkDensities | None = None
    origin: Mapping[str, str] | None = None
    missing: Sequence[str] = ()


def evidence_of(
    model: FittedMixture,
    source: Source,
    rows: Array,
    drift: bool,
    without_drift: str,
    origin: Mapping[str, str] | None = None,
    callbacks: Sequence[Any] = (),
    within: AbstractContextManager[object] | None = None,
) -> Evidence:
    """Return rows as evidence, with the log-density of every part of their source if `drift`.

    Parameters
    ----------
    model : fitted mixture
    source : Source
        Data, opened as those of the fit were.
    rows : (n, d) array
        Drawn from them.
    drift : bool
    without_drift : str
        Said on the page where there is no drift, and how to get it.
    origin : mapping, optional
        As in `Evidence`.
    callbacks : sequence, optional
        Observers of the pass.
    within : context manager, optional
        Entered for the pass, as workers that make it.

    Raises
    ------
    DataError
        A row that the model does not describe, which it was not told to leave out.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> from dask_em.data.open import as_source
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> found = evidence_of(GaussianMixture(1).fit(X), as_source(X), X[:9], True, "")
    >>> found.rows.shape, len(found.densities.means), found.missing
    ((9, 2), 1, [])
    """
    if not drift:
        return Evidence(rows, None, origin, [without_drift])
    missing: list[str] = []
    with within or nullcontext():
        densities = source_densities(model, source, callbacks)
    if n := int(densities.n_dropped.sum()):
        missing.append(f"{n:,} rows that hold NaN or infinity: no picture and no density has them.")
    return Evidence(rows, densities, origin, missing)
