"""The registry of what holds rows: each kind is recognised and made a source by its opener.

A new source is one file, and one entry in `OPENERS` (and in `SUFFIXES`, where it has files), or
a call of `register_source` from outside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.beside import LABELS, NOISE
from ..core.columns import Column
from ..core.protocols import Source, StoredSource
from ..errors import DataError
from ..storage.urls import is_url
from .arrow.files import SUFFIXES as TABLE_SUFFIXES
from .arrow.opening import holds_tables, is_stored_table, open_table, stored_table_source
from .beside import LabelCheck, NoiseCheck
from .cell_labels import has_cells, labels_of_cells
from .checks import check_array
from .columns import WeightColumn, check_nameless
from .dask import (
    DaskSource,
    cells_source,
    checked_array,
    checked_rows,
    dask_source,
    is_dask,
    is_dask_array,
    zarr_behind,
)
from .frames import is_table, table_source
from .given_beside import R, field_beside, one_for_all
from .grids import Cells
from .memory import ArraySource, array_source, cells_in_memory, is_sliced
from .npy import flat_npy_source, is_npy, npy_source, open_npy
from .options import ReadOptions
from .sparse import is_sparse, refuse_sparse
from .tables import (
    feature_blocks,
    frame_features,
    is_frame,
    is_lazy_frame,
    refuse_lazy_frame,
    weight_blocks,
)
from .xarray import Labelled, in_dims, is_xarray, unlabelled
from .zarr.opening import check_path, is_zarr, matrix_source, open_node, require_array, zarr_source


@dataclass(frozen=True)
class Opener:
    """One kind of rows.

    Attributes
    ----------
    accepts : callable
        Tells of any object whether it is of this kind; it imports nothing.
    source : callable
        Such an object, weights of any kind or None, and the options -> its source.
    named : bool
        Whether columns have names, so that weights may be a `WeightColumn`, which `choose` takes.
    stored : callable, optional
        The same as `source`, where the rows lie in files that any process reads by itself:
        jobs of the command line take only these.
    """

    accepts: Callable[[object], bool]
    source: Callable[[Any, Any, ReadOptions], Source]
    named: bool = False
    stored: Callable[[Any, Any, ReadOptions], StoredSource] | None = None


def as_source(
    X: object, sample_weight: object = None, options: ReadOptions | None = None
) -> Source:
    """Make a source of whatever holds rows.

    Parameters
    ----------
    X : NumPy array, Dask array or DataFrame, zarr.Array, or path or URL of a Zarr array
        (n, d), numeric; anything else with a shape, a dtype and slices by rows, such as an
        h5py.Dataset; or of a kind that was registered.
    sample_weight : the same, (n,), optional
        Or the name of a column of X, where there is no such path.
    options : ReadOptions, optional
        What missing chunks are taken for, and which columns are read.

    Raises
    ------
    DataError
        Wrong number of dimensions, no rows, a dtype that is not numeric, or
        weights of another length.

    Examples
    --------
    >>> as_source([[0.0, 1.0], [2.0, 3.0]]).description
    'NumPy array (2, 2) float64'
    """
    given, X = sample_weight, _opened(X)
    options = ReadOptions() if options is None else options
    opener = next((one for one in OPENERS if one.accepts(X)), ARRAY)
    source = opener.source(X, _weights_of(opener, sample_weight), options)
    _check_names(source, given, options)
    return source


def _check_names(source: Source, weights: object, options: ReadOptions) -> None:
    """Refuse names of columns where there are none, and weights that two things are called."""
    if source.columns is None:
        check_nameless(options)
    elif isinstance(weights, str) and weights in [column.name for column in source.columns]:
        raise DataError(
            f"the weights {weights!r} are a path, and a column of X, too: give './{weights}' for "
            "the path, or call the column something else"
        )


def with_columns_beside(options: ReadOptions, labels: object, noise: object = None) -> ReadOptions:
    """Return how rows are read of which columns may be their labels or noise, and no features.

    Examples
    --------
    >>> with_columns_beside(ReadOptions(), "species", ["var_x", "var_y"]).beside
    ('species', 'var_x', 'var_y')
    >>> with_columns_beside(ReadOptions(), [0, 1]).beside
    ()
    """
    column = (labels,) if isinstance(labels, str) and names_column(labels) else ()
    names = (*column, *columns_named(noise))
    return replace(options, beside=names) if names else options


def columns_named(given: object) -> tuple[str, ...]:
    """Return the names of the columns that are given for an array; none where it is no names.

    In a string commas stand between them.

    Examples
    --------
    >>> columns_named("var_x,var_y"), columns_named(["var_x"]), columns_named("noise.zarr")
    (('var_x', 'var_y'), ('var_x',), ())
    """
    if isinstance(given, str):
        return tuple(given.split(",")) if names_column(given) else ()
    if isinstance(given, list | tuple) and given and all(isinstance(one, str) for one in given):
        return tuple(given)
    return ()


def labels_beside(source: R, X: object, labels: Any, k: int, options: ReadOptions) -> R:
    """Return the source of X with labels of any kind beside its rows.

    Parameters
    ----------
    source : Source
    X : object
        What it was made of.
    labels : array, Dask array, zarr.Array, path or URL, or the name of a column of X
        Components (n,) from 0 to k - 1, -1 where unknown; or responsibilities (n, k). Of the cells
        of a grid (*shape,), or (*shape, k); those of xarray may have other orders of dimensions.
    k : int
    options : ReadOptions

    Raises
    ------
    DataError
        They are not one a row.
    """
    found = _beside(X, unlabelled(in_dims(labels, source.grid)), LABELS, options)
    of_kind = labels_of_cells if has_cells(source) else field_beside
    field = of_kind(source, found, LabelCheck(k), options)
    return source.with_beside(replace(source.beside, labels=field))


def noise_beside(source: R, X: object, noise: Any, options: ReadOptions) -> R:
    """Return the source of X with the covariances of its rows' noise beside them.

    Parameters
    ----------
    source : Source
    X : object
        What it was made of.
    noise : array, Dask array, zarr.Array, path or URL, or names of columns of X
        Variances (n, d), or covariances (n, d, d); in memory (d,) or (d, d) too, for all rows.
    options : ReadOptions

    Raises
    ------
    DataError
        They are not one a row, or of other columns.
    """
    check = NoiseCheck(source.n_features, options.nonfinite == "drop")
    found = _beside(X, noise, NOISE, options)
    d, shape = source.n_features, tuple(np.shape(found))
    if shape == (d,) or (shape == (d, d) and source.n_rows != d):
        field = one_for_all(source, np.asarray(found)[None], check)
    else:
        found = flat_npy_source(found) if is_npy(found) else found
        field = field_beside(source, found, check, options)
    # Of another shape than noise has, it is refused before rows are read.
    _ = field.width
    return source.with_beside(replace(source.beside, noise=field))


def _beside(X: object, given: Any, name: str, options: ReadOptions) -> Any:
    """Return an array or a source of what is given to stand beside the rows of X."""
    columns = columns_named(given)
    if name == LABELS:
        columns = (str(given),) if names_column(given) else ()
    if columns:
        read = replace(options, columns=columns, exclude=(), fitted=(), codes=True, beside=())
        return as_source(X, None, read)
    found: Any = _opened(given)
    if is_frame(found):
        return weight_blocks(found) if name == LABELS else as_source(found)
    if is_table(found) or is_stored_table(found):
        return as_source(found, None, replace(ReadOptions(), codes=True))
    if is_dask_array(found):
        behind = zarr_behind(found, name)
        return found if behind is None else behind
    return require_array(found, name) if is_zarr(found) else found


def is_opened(X: object) -> bool:
    """Tell whether something opens X here; what nothing does is scikit-learn's to check.

    Examples
    --------
    >>> is_opened("points.zarr"), is_opened([[0.0, 1.0]])
    (True, False)
    """
    path = isinstance(X, str | os.PathLike)
    return path or any(opener.accepts(X) for opener in OPENERS)


def is_stored(X: object) -> bool:
    """Tell whether `stored_source` opens X: its rows lie where every process reads them.

    Examples
    --------
    >>> is_stored([[0.0, 1.0]])
    False
    """
    X = _opened(X)
    return any(opener.stored is not None and opener.accepts(X) for opener in OPENERS)


def stored_source(
    path: str | os.PathLike[str],
    weights: str | None = None,
    options: ReadOptions | None = None,
) -> StoredSource:
    """Make the source of stored rows at a path or URL, with weights of another, or of a column.

    Raises
    ------
    DataError
        Nothing that is known here opens them, or they cannot be used.

    Examples
    --------
    >>> import tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/points.zarr"
    ...     _ = zarr.create_array(path, shape=(6, 2), chunks=(3, 2), dtype="f8")
    ...     stored_source(path).n_rows
    6
    """
    X, options = _opened(path), options or ReadOptions()
    for opener in OPENERS:
        if opener.stored is not None and opener.accepts(X):
            source = opener.stored(X, _weights_of(opener, weights), options)
            _check_names(source, weights, options)
            return source
    raise DataError(
        f"{os.fspath(path)} is opened as {type(X).__name__}, whose rows are not known to lie where "
        "every process reads them: pass it to the estimators in Python"
    )


def register_source(
    opener: Opener, suffix: str = "", open_path: Callable[[str], object] | None = None
) -> None:
    """Add a kind of rows, which is asked before those that are known.

    Parameters
    ----------
    opener : Opener
    suffix : str, optional
        That of its files' names, such as ".parquet".
    open_path : callable, optional
        A path or URL with that suffix -> an object that `opener` accepts.
    """
    OPENERS.insert(0, opener)
    if suffix and open_path is not None:
        SUFFIXES[suffix] = open_path


def _opened(X: object) -> object:
    """The object behind a path or URL; anything else as it is."""
    if not isinstance(X, str | os.PathLike):
        return X
    path = os.fspath(X)
    known = [suffix for suffix in SUFFIXES if path.rstrip("/").endswith(suffix)]
    if known:
        return SUFFIXES[max(known, key=len)](path)
    if holds_tables(path):
        return open_table(path)
    try:
        return open_node(path)
    except DataError:
        # What a store holds below a URL only its listing tells.
        if is_url(path) and holds_tables(path, listing=True):
            return open_table(path)
        raise


def is_table_path(path: str) -> bool:
    """Tell whether a path or URL is opened as a table of Parquet or Arrow.

    Examples
    --------
    >>> is_table_path("s3://bucket/points.parquet"), is_table_path("points.zarr")
    (True, False)
    """
    return path.rstrip("/").endswith(TABLE_SUFFIXES) or holds_tables(path)


def names_column(weights: object) -> bool:
    """Tell whether weights are the name of a column: a string that is no path, and ends like none.

    Examples
    --------
    >>> names_column("exposure"), names_column("weights.zarr"), names_column([1.0, 2.0])
    (True, False, False)
    """
    if not isinstance(weights, str) or weights.rstrip("/").endswith(tuple(SUFFIXES)):
        return False
    try:
        check_path(weights)
    except DataError:
        return True
    return False


def _weights_of(opener: Opener, sample_weight: Any) -> Any:
    """Weights of any kind, for the rows of an opener."""
    found = _weights(sample_weight)
    if isinstance(found, WeightColumn) and not opener.named:
        check_path(found.name)
    return found


def _weights(sample_weight: Any) -> Any:
    """Weights of any kind: those that are nothing but a view of a Zarr array are that."""
    if names_column(sample_weight):
        return WeightColumn(sample_weight)
    sample_weight = _opened(sample_weight)
    if is_frame(sample_weight):
        return weight_blocks(sample_weight)
    behind = zarr_behind(sample_weight, "sample_weight") if is_dask_array(sample_weight) else None
    return sample_weight if behind is None else behind


def _of_memory(X: Any, sample_weight: Any, options: ReadOptions) -> Source:
    """Rows in memory, or sliced."""
    return array_source(X, _weights_here(sample_weight, options), options)


def _of_table(X: Any, sample_weight: Any, options: ReadOptions) -> Source:
    """A table in memory."""
    return table_source(X, _weights_here(sample_weight, options), options)


def _of_labelled(X: Any, sample_weight: Any, options: ReadOptions) -> Source:
    """The array in a DataArray."""
    labelled = Labelled.of(X, options)
    assert labelled is not None
    return as_source(labelled.data, unlabelled(labelled.weights(sample_weight)), options)


def _of_npy(X: Any, sample_weight: Any, options: ReadOptions) -> StoredSource:
    """A `.npy` file."""
    return npy_source(X, _weights_here(sample_weight, options), options)


def _of_stored_table(X: Any, sample_weight: Any, options: ReadOptions) -> StoredSource:
    """A table in files; weights that are no column of it are held in memory."""
    return stored_table_source(X, _weights_here(sample_weight, options), options)


def _weights_here(sample_weight: Any, options: ReadOptions) -> Any:
    """Weights that are held in memory: those in a store are read once, as rows would be."""
    if not is_zarr(sample_weight):
        return sample_weight
    stored = require_array(sample_weight, "sample_weight")
    return checked_rows(stored, options, "sample_weight")[:]


def _of_dask(X: Any, sample_weight: Any, options: ReadOptions) -> Source:
    """A Dask array; one that is nothing but a view of a Zarr array is read as that."""
    if not is_dask_array(X):
        raise DataError(
            f"X is a {type(X).__module__}.{type(X).__name__}: pass a Dask array or DataFrame of it"
        )
    behind = zarr_behind(X, options=options) if len(X.shape) == 2 else None
    if behind is not None:
        return _of_zarr(behind, sample_weight, options, X.chunks[0])
    return dask_source(X, sample_weight, options)


def _of_frame(X: Any, sample_weight: Any, options: ReadOptions) -> Source:
    """A Dask DataFrame, as the Dask array of its partitions."""
    named = isinstance(sample_weight, WeightColumn)
    features = frame_features(X, options, sample_weight if named else None)
    if features.weight is not None:
        sample_weight = weight_blocks(X, features.weight)
    source = dask_source(feature_blocks(X, features), sample_weight, options)
    return replace(source, columns=features.columns)


def _of_zarr(
    X: Any, sample_weight: Any, options: ReadOptions, blocks: Sequence[int] | None = None
) -> Source:
    """A Zarr array or a grid; weights that are a Dask array make an array one, too."""
    if blocks is not None and not is_dask(sample_weight):
        return replace(matrix_source(X, sample_weight, options), blocks=blocks)
    from .zarr.groups import array_in
    from .zarr.variables import is_matrix

    if not is_dask(sample_weight) or not is_matrix(array_in(X), sample_weight, options):
        return zarr_source(X, sample_weight, options)
    X = array_in(X)
    check_array("X", X, 2)
    from .zarr.source import ZarrSource

    lazy = checked_array(X, ZarrSource(X).chunk_rows, options, "X")
    return dask_source(lazy, sample_weight, options)


def _of_cells(X: Cells, sample_weight: Any, options: ReadOptions) -> Source:
    """A grid, or rows whose columns have names, that xarray holds."""
    numbers, columns, sample_weight = X.chosen(sample_weight, options)
    matrix = X.matrix(numbers)
    if matrix is not None:
        # Columns and dimensions are chosen by now.
        plain = replace(options, features="", columns=(), exclude=(), fitted=())
        return _named((_of_dask if X.lazy else _of_memory)(matrix, sample_weight, plain), columns)
    make = cells_source if X.lazy or is_dask(sample_weight) else cells_in_memory
    return _named(make(X, numbers, _weights_here(sample_weight, options), options), columns)


def _named(source: Source, columns: tuple[Column, ...] | None) -> Source:
    """Give the columns of a source their names."""
    from .zarr.source import ZarrSource

    if isinstance(source, ArraySource):
        return replace(source, named=columns)
    if isinstance(source, DaskSource | ZarrSource):
        return replace(source, columns=columns)
    return source


# What nothing else accepts.
ARRAY = Opener(lambda X: True, _of_memory)

# Asked in this order.
OPENERS = [
    Opener(lambda X: isinstance(X, Cells), _of_cells, named=True),
    Opener(is_frame, _of_frame, named=True),
    Opener(is_dask, _of_dask),
    Opener(is_zarr, _of_zarr, named=True, stored=zarr_source),
    Opener(is_stored_table, _of_stored_table, named=True, stored=_of_stored_table),
    Opener(is_npy, _of_npy, stored=_of_npy),
    Opener(is_sparse, refuse_sparse),
    Opener(is_lazy_frame, refuse_lazy_frame),
    Opener(is_xarray, _of_labelled),
    Opener(is_table, _of_table, named=True),
    Opener(is_sliced, _of_memory),
]

# Suffix of a path or URL -> what opens it; paths of any other name are of Zarr.
SUFFIXES: dict[str, Callable[[str], object]] = {
    ".zarr": open_node,
    ".npy": open_npy,
    **dict.fromkeys(TABLE_SUFFIXES, open_table),
}
