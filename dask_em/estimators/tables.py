"""Results as pandas DataFrames; pandas is imported when one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from .describe import FittedMixture

if TYPE_CHECKING:
    import pandas as pd

OfModel = Literal["components", "history"]
OfSelection = Literal["table", "history"]


def records_frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Make a DataFrame of records, one row each.

    Raises
    ------
    UsageError
        pandas is not installed.

    Examples
    --------
    >>> records_frame([{"n_components": 2, "bic": 5.0}]).columns.tolist()
    ['n_components', 'bic']
    """
    return _pandas().DataFrame([*records])


def components_frame(model: FittedMixture) -> pd.DataFrame:
    """Make a DataFrame of the components, one row each.

    Columns have two levels: `frame["weight"]` is a column, and so is `frame["size"]`, the sum of
    the responsibilities at the best pass, where there was one; each profile of the family is a
    block, such as `frame["Means"]`, with a second of standard deviations where it has these.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> frame = components_frame(GaussianMixture(1).fit([[-1.0], [1.0]]))
    >>> frame["weight"].tolist(), frame["Means, standard deviations"]["column 0"].round(3).tolist()
    ([1.0], [1.0])
    """
    pandas, components = _pandas(), model.describe()
    found: dict[tuple[str, str], Any] = {("weight", ""): model.weights_}
    if model.state_.measured:
        found["size", ""] = model.state_.statistics.resp_sum
    for profile in components.profiles:
        blocks = {profile.title: profile.values}
        if profile.widths is not None:
            blocks[f"{profile.title}, standard deviations"] = profile.widths
        for title, values in blocks.items():
            names = profile.names(components.columns)
            found |= {(title, name): column for name, column in zip(names, values.T, strict=True)}
    frame = pandas.DataFrame(found)
    frame.index.name = "component"
    return frame


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as e:
        raise UsageError(
            "a table of results is a pandas.DataFrame, and pandas is not installed: "
            "pip install pandas"
        ) from e
    return pandas
