"""Generations of a model: the fit and the updates whose rows are in its sums."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from ..core.additive import Array
from ..core.protocols import Source
from ..errors import DataError, StoreError

# Weights of more components would make a long log.
MOST_NOTED = 64


@dataclass(frozen=True)
class Generation:
    """Describe a fit, or an update, and the rows that it read.

    Attributes
    ----------
    number : int
        From 1, the first fit.
    data : str
        The source's name for people.
    rows, dropped : int
        Rows that it read, those that were left out among them, and these.
    weight : float
        Sum of the weights of the others.
    kept : float
        What multiplied the sums of all generations before it: 1, less by `forget`, and 0 where all
        rows were read anew.
    log_likelihood : float or None
        Nats per row: of the model as it was before it had seen these rows, of the first
        generation of that which the fit ended with.
    seconds : float
        That the passes took.
    passes : int
    fitted : str
        When it ended, by ISO 8601.
    fingerprint : str
        Of what a survey sums of the rows.
    until : int
        Rows of the store that were there by then, those of earlier generations among them.
    stamp : str
        What tells these rows of the store without reading them; empty where nothing does.
    weights : tuple of float
        Mixing weights of the model once it had these rows; empty where nobody noted them, as of
        very many components.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> gm = GaussianMixture(1).fit([[0.0], [2.0]]).update([[4.0], [6.0], [8.0]])
    >>> [(one.number, one.rows) for one in generations_of(gm.provenance_, gm.history_, 0.0)]
    [(1, 2), (2, 3)]
    """

    number: int
    data: str
    rows: int
    dropped: int
    weight: float
    kept: float
    log_likelihood: float | None
    seconds: float
    passes: int
    fitted: str
    fingerprint: str
    until: int
    stamp: str
    weights: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        number: int,
        provenance: Mapping[str, Any],
        history: Sequence[Mapping[str, Any]],
        log_likelihood: float | None,
        kept: float = 1.0,
        first: int = 0,
        weights: Array | None = None,
    ) -> Self:
        """Return the generation of rows from number `first` of a store on, as provenance has it."""
        rows = int(provenance["n_rows"])
        return cls(
            number,
            provenance["source"],
            rows,
            int(provenance["n_dropped"]),
            float(provenance.get("weight", rows - provenance["n_dropped"])),
            kept,
            log_likelihood,
            float(sum(record["seconds"] for record in history)),
            sum(record["phase"] == "em" for record in history),
            provenance["fitted"],
            provenance["fingerprint"],
            first + rows,
            provenance.get("stamp", ""),
            tuple(weights.tolist()) if weights is not None and len(weights) <= MOST_NOTED else (),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        told = {**asdict(self), "weights": [*self.weights]}
        if not self.weights:
            del told["weights"]
        return told

    def seconds_until(self, now: datetime.datetime) -> float:
        """Return how long ago it ended.

        Raises
        ------
        ValueError
            Its time is none.
        """
        return (now - datetime.datetime.fromisoformat(self.fitted)).total_seconds()


def generations_of(
    provenance: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    log_likelihood: float | None,
    weights: Array | None = None,
) -> list[Generation]:
    """Return the generations of a model; of one that was never updated the fit is the only one.

    Parameters
    ----------
    provenance : mapping
    history : sequence of mapping
        Its passes.
    log_likelihood : float or None
        Nats per row that the fit reached.
    weights : (k,) array, optional
        That it ended with.
    """
    if "generations" in provenance:
        found = (dict(one) for one in provenance["generations"])
        return [Generation(**{**one, "weights": tuple(one.get("weights", ()))}) for one in found]
    return [Generation.of(1, provenance, history, log_likelihood, weights=weights)]


def stamp_of(source: Source, n_rows: int) -> str:
    """Return a sha256 of what tells the first rows of a source; empty where nothing does."""
    try:
        found = source.stamp_of(n_rows)
    except (OSError, StoreError):
        # Rows are read where nobody may list what is there.
        return ""
    return hashlib.sha256(found.encode()).hexdigest() if found else ""


def in_sums(generations: Sequence[Generation]) -> list[Generation]:
    """Return the generations whose rows are in the sums: from the last that read all anew on."""
    anew = [i for i, one in enumerate(generations) if one.kept == 0 and one.number > 1]
    return list(generations[anew[-1] if anew else 0 :])


def rows_seen(source: Source, generations: Sequence[Generation]) -> int:
    """Return how many of the first rows of a source are in a model: 0 where it is another.

    Raises
    ------
    DataError
        It is of the name of one that the model has read, whose rows are others now.
    """
    read, n = in_sums(generations), source.n_rows
    if n is None or not read:
        return 0
    for one in sorted(read, key=lambda one: -one.until):
        if one.stamp and one.until <= n and stamp_of(source, one.until) == one.stamp:
            return one.until
    same = [one for one in read if one.data == source.description]
    # Of rows in memory nothing is known but what a survey sums of them.
    if same and (any(one.stamp for one in same) or stamp_of(source, n)):
        raise DataError(
            f"the first {max(one.until for one in same):,} rows of {source.description}, which are "
            "in the model, were written since, or files were added before them, or the model is "
            "of an earlier dask_em: give the new rows alone, or pass exact=True to read everything "
            "again"
        )
    return 0
