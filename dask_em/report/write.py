"""The page of a report, written from Python: of models and of sweeps, over data of any kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..errors import UsageError
from ..estimators.describe import FittedMixture
from ..storage.outputs.writer import check_output_file
from .comparison import write_comparison
from .evidence import Evidence, evidence_of
from .page import check_can_draw, write_page
from .rows import opened_rows

WITHOUT_ROWS = (
    "Pictures of rows and the drift over chunks, for which no data were given. "
    "Pass X to write_report."
)
WITHOUT_DRIFT = "The drift over chunks: write_report with drift=True makes the pass."


@runtime_checkable
class Sweep(Protocol):
    """Models of which one was chosen, as `select` returns them."""

    @property
    def best(self) -> FittedMixture:
        """The winner, fitted."""


@runtime_checkable
class ComparedModels(Protocol):
    """Two models beside each other, as `compare` returns them."""

    @property
    def same_data(self) -> bool | None:
        """Whether both were fitted to the same data, None where nobody knows."""

    def as_dict(self) -> dict[str, Any]:
        """Return all that is known of both, as JSON has it."""


def write_report(
    model: FittedMixture | Sweep | ComparedModels,
    path: str | os.PathLike[str],
    X: Any = None,
    *,
    n_rows: int = 5000,
    drift: bool = True,
    overwrite: bool = False,
    random_state: int = 0,
    callbacks: Sequence[Any] = (),
) -> None:
    """Write one HTML page about a fitted mixture or a sweep, which opens anywhere, offline.

    Five sentences in words, what tells each component from the rest, pictures, tables that sort
    and download as CSV, drift, data quality and provenance, as `dask-em report` does of files.

    Parameters
    ----------
    model : fitted mixture, Selection, or Comparison
        Of any family, K-means too. Of a sweep, what `select` returned, the page is about the
        winner, and shows how the others did; of what `compare` returned about both models, and
        takes no X.
    path : path, or URL of an object store
        Where the page is written, whole or not at all.
    X : NumPy array, Dask array, zarr.Array, table, or path or URL, optional
        (n, d), whatever `fit` takes, read as its rows were. Rows are drawn from it, and one pass
        finds parts that are unlike the model; without it the page lacks both, and says so.
    n_rows : int, default=5000
        Rows that are drawn, at most.
    drift : bool, default=True
        Make the pass over all rows, on the Dask scheduler in force.
    overwrite : bool, default=False
        Replace the file that is there.
    random_state : int, default=0
        Which rows are drawn.
    callbacks : sequence, optional
        Observers of the pass, as those of a fit.

    Raises
    ------
    NotFittedError
        The model is not fitted.
    OutputExistsError
        The file is there and `overwrite` is False, or it is a folder.
    UsageError
        matplotlib is not installed, nothing can be written there, or `model` is no model.
    DataError
        X has other columns than the model, or a row that the model does not describe.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(300, 2)) + 9 * np.eye(2)[np.arange(300) % 2]
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(model, f"{folder}/page.html", X, n_rows=200)
    ...     "two groups" in Path(f"{folder}/page.html").read_text()
    True
    """
    if isinstance(model, ComparedModels):
        if X is not None:
            raise UsageError("X goes to compare(a, b, X), whose result holds what both say of it")
        write_comparison(path, model.as_dict(), overwrite)
        return
    one = _one_of(model)
    check_output_file(path, overwrite)
    check_can_draw()
    if isinstance(n_rows, bool) or not isinstance(n_rows, int) or n_rows < 1:
        raise UsageError(f"n_rows is {n_rows!r}, expected a number of rows, at least 1")
    evidence = Evidence(missing=[WITHOUT_ROWS])
    if X is not None:
        source, rows = opened_rows(one, X, n_rows, random_state)
        origin = {"rows from": source.description}
        evidence = evidence_of(one, source, rows, drift, WITHOUT_DRIFT, origin, callbacks)
    write_page(path, one, evidence, overwrite)


def _one_of(model: FittedMixture | Sweep) -> FittedMixture:
    """Return the mixture that a page is about; raise where there is none, or it is not fitted."""
    if isinstance(model, str | os.PathLike):
        raise UsageError(
            f"model is {os.fspath(model)!r}, expected a fitted mixture, or what select returned: "
            "the order is write_report(model, path, X), and load(path) reads a model file"
        )
    one = model.best if isinstance(model, Sweep) else model
    one.describe()
    return one
