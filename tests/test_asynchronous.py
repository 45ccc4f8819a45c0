"""Asynchronous clients: rows in memory need none, and what needs one says what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import helpers
import numpy as np
import pytest
import zarr
from helpers import blobs, digest, write_zarr

from dask_em import GaussianMixture, select
from dask_em.errors import UsageError

X = blobs(803, 2, 2, apart=9.0)[0]
OPTIONS: dict[str, Any] = {"random_state": 0, "init_params": "k-means++"}


def fit(rows: Any) -> GaussianMixture:
    return GaussianMixture(2, **OPTIONS).fit(rows)


beside_a_client = partial(helpers.beside_a_client, limit=120)


@pytest.fixture
def path(tmp_path: Path) -> str:
    write_zarr(tmp_path / "x.zarr", X, 101)
    return str(tmp_path / "x.zarr")


@pytest.mark.parametrize("configured", [None, "threads", "synchronous", "distributed"])
def test_rows_in_memory_need_no_client(configured: str | None) -> None:
    expected = fit(X)

    async def work() -> list[Any]:
        with dask.config.set(scheduler=configured):
            model = fit(X)
            chosen = select(X, [1, 2], **OPTIONS).best
            answers = model.predict(X), model.predict_proba(X), model.score_samples(X)
            return [digest(model), chosen.n_components, model.score(X), model.bic(X), *answers]

    found = beside_a_client(work)
    assert found[:2] == [digest(expected), 2]
    assert found[2:4] == [expected.score(X), expected.bic(X)]
    for a, b in zip(
        found[4:], [expected.predict(X), expected.predict_proba(X), expected.score_samples(X)],
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def needs_a_client(path: str) -> list[Callable[[], Any]]:
    model = fit(X)
    return [
        lambda: fit(path),
        lambda: fit(zarr.open_array(path)),
        lambda: fit(da.from_zarr(path) + 0),
        lambda: select(path, [1, 2], **OPTIONS),
        lambda: model.score(path),
    ]


def test_what_needs_a_client_says_what_to_do(path: str) -> None:
    calls = needs_a_client(path)

    async def work() -> list[str]:
        said = []
        for call in calls:
            with pytest.raises(UsageError, match="asynchronous") as caught:
                call()
            said.append(str(caught.value))
        return said

    (said,) = set(beside_a_client(work))
    # Both ways are named, and each of them works as it is written.
    assert re.search(r"await asyncio\.to_thread\(model\.fit, X\)", said)
    assert 'dask.config.set(scheduler="threads")' in said
    expected = digest(fit(path))

    async def in_another_thread() -> str:
        model = GaussianMixture(2, **OPTIONS)
        await asyncio.to_thread(model.fit, path)
        return digest(model)

    async def in_threads() -> str:
        with dask.config.set(scheduler="threads"):
            return digest(fit(path))

    assert beside_a_client(in_another_thread) == beside_a_client(in_threads) == expected
