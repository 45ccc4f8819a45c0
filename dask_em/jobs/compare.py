"""The job that compares two saved models, and what they say of data."""

from __future__ import annotations

from typing import Any, Unpack

from ..data.open import names_column, stored_source
from ..errors import UsageError
from ..fitting.progress import reporter
from ..report.comparison import write_comparison
from ..report.page import check_can_draw
from ..storage.outputs.writer import check_output_file
from .arguments import check_apart, check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, load_to_read


def compare(
    first: str,
    second: str,
    cluster: ClusterOptions,
    data: str | None = None,
    weights: str | None = None,
    page: str | None = None,
    overwrite: bool = False,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Compare two saved models; the rows at `data`, if they are given, take one pass.

    With `page` all of it is written there as an HTML page, too.

    Data are read as those of the first model's fit, unless the options say otherwise.

    Raises
    ------
    UsageError
        There are weights without data, or the columns of the models differ and rows were given.
    OutputExistsError
        Something is at `page` that may not be replaced.
    """
    if page is not None:
        check_output_file(page, overwrite)
        check_apart(page, first, "model")
        check_apart(page, second, "model")
        if data is not None:
            check_apart(page, data, "data")
        check_can_draw()
    for path in (first, second):
        check_model(path, "A B")
    if data is not None:
        check_data(data, "--data")
    elif weights is not None:
        raise UsageError("--weights are of rows: pass --data DATA too")
    if weights is not None and not names_column(weights):
        check_data(weights, "--weights")
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.compare import compare as compared

    a, b = (load_to_read(path, **reading) for path in (first, second))
    if data is None:
        found = compared(a, b)
    else:
        a.set_params(callbacks=[reporter()])
        source = stored_source(data, weights, a.read_options)
        with workers_for(cluster, source.nbytes):
            found = compared(a, b, data, sample_weight=weights)
    told = found.as_dict()
    paths = zip((first, second), told["models"], strict=True)
    told["models"] = [{"model": path, **one} for path, one in paths]
    if page is not None:
        write_comparison(page, told, overwrite)
    return {**told, "page": page}
