"""The job that looks at all that a fit needs before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from ..data.open import stored_source
from .checks.check import Check, attempt
from .checks.cluster import look_at_cluster
from .checks.data import describe_checksum, describe_chunks, describe_store
from .checks.machine import blas_here, describe_disk, extras_here, versions_here
from .cluster import ClusterOptions
from .files import FleetChoices
from .plan import count, fleet_of, reading_of


def examine(
    cluster: ClusterOptions,
    data: str | None = None,
    k: int | Sequence[int] = 8,
    covariance: str | Sequence[str] = "full",
    folder: str = ".",
    family: str | Sequence[str] = "gaussian",
    **reading: Unpack[FleetChoices],
) -> list[Check]:
    """Check everything that a fit of `data` would need, and what needs no data.

    Parameters
    ----------
    cluster : ClusterOptions
        A local one is started and stopped.
    data : str, optional
        Path or URL of stored rows.
    k, covariance
        The models that would be fitted: memory and disk depend on them.
    folder : str
        Folder of the checkpoints.
    family : str or sequence of str
        Names of registered classes of mixtures.
    **reading
        As `ReadOptions` has it, and what else decides how large models are.
    """
    checks = [
        attempt("versions", versions_here),
        attempt("extras", extras_here, data),
        attempt("BLAS", blas_here),
    ]
    source, fleet = None, fleet_of(k, covariance, family, **reading)
    options = reading_of(fleet)
    if data is not None:
        checks.append(attempt("store", describe_store, data, options))
        if checks[-1].ok:
            source = stored_source(data, options=options)
            checks.append(attempt("checksum", describe_checksum, source))
            checks.append(attempt("chunks", describe_chunks, source))
    planned = None if source is None else count(source, fleet, [])
    checks.append(attempt("checkpoint", describe_disk, folder, source, planned))
    checks += look_at_cluster(cluster, source, fleet)
    return checks


def exit_code(checks: Sequence[Check]) -> int:
    """Return the exit code of the first check for which a job fails, 0 if there is none."""
    return next((check.exit_code for check in checks if not check.ok), 0)
