"""The job that fills the missing values of data by a saved model, and writes the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from ..core.additive import Array
from ..core.mixture import Mixture
from ..core.scoring import RowAnswers
from ..errors import UsageError
from .cluster import ClusterOptions
from .files import ModelChoices
from .predict import Destination, identity_of, is_table, opened, write_answers


@dataclass(frozen=True)
class FilledRows:
    """Fill rows in one way or several: the function that a pass maps over chunks.

    Attributes
    ----------
    ways : tuple of RowAnswers
        Each returns the rows filled.
    names : tuple of str
        What each is called; where they become a table, of their columns.
    columns : tuple of str
        Of a table; empty for arrays (n, d).
    """

    ways: tuple[RowAnswers, ...]
    names: tuple[str, ...]
    columns: tuple[str, ...] = ()

    @property
    def mixture(self) -> Mixture:
        """The mixture that is asked."""
        return self.ways[0].mixture

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the arrays, or of the columns of the table."""
        if not self.columns:
            return self.names
        ends = [f"_{i}" for i in range(len(self.ways))] if len(self.ways) > 1 else [""]
        return tuple(f"{column}{end}" for end in ends for column in self.columns)

    @property
    def no_label(self) -> int:
        """The label of a row without an answer."""
        return self.ways[0].no_label

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of the rows."""
        return self.ways[0].dtype(answer)

    def width(self, answer: str) -> int | None:
        """Return the number of columns; None for a column of a table."""
        return None if self.columns else self.ways[0].width(answer)

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the filled rows by their names, or column by column."""
        filled = [way(X)["imputed"] for way in self.ways]
        if self.columns:
            filled = [column for rows in filled for column in rows.T]
        return dict(zip(self.answers, filled, strict=True))


def impute(
    model_path: str,
    data: str,
    destination: str,
    cluster: ClusterOptions,
    draws: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = True,
    keep: Sequence[str] = (),
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Write the rows of `data` with their missing values filled, all in one pass.

    A Zarr group has the array `imputed`, or `imputed_0`, `imputed_1`, ... for so many `draws`;
    a destination that ends in .parquet becomes a folder of Parquet of the columns of the model.
    What an interrupted call left is finished by the next one, as by `predict`.

    Raises
    ------
    UsageError
        The model cannot fill anything, or an option is not one of those allowed.
    """
    model, source = opened(model_path, data, destination, overwrite, keep, **reading)
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.imputation import ImputingMixture

    if not isinstance(model, ImputingMixture):
        raise UsageError(f"a {type(model).__name__} fills nothing: give a Gaussian mixture")
    seeds = [None] if draws is None else [seed] * draws
    ways = tuple(model.imputer(s, i, source.dtype, source.n_rows) for i, s in enumerate(seeds))
    names = ("imputed",) if draws is None else tuple(f"imputed_{i}" for i in range(draws))
    columns: tuple[str, ...] = ()
    if is_table(destination):
        known = vars(model).get("feature_names_in_")
        width = range(model.n_features_in_)
        columns = tuple(f"imputed_{j}" for j in width) if known is None else tuple(map(str, known))
    filled = FilledRows(ways, names, columns)
    kinds = {a: (filled.width(a), filled.dtype(a)) for a in filled.answers}
    identity = {**identity_of(model_path, source, filled, model), "draws": draws, "seed": seed}
    to = Destination(destination, kinds, keep, overwrite, resume)
    drop = model.read_options.nonfinite == "drop"
    return write_answers(source, filled, to, identity, cluster, "impute", drop)
