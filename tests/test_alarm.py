"""Drift against the rows of a fit: false alarms at the stated rate, and what is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import write_zarr

from dask_em import GaussianMixture
from dask_em.cli.main import main
from dask_em.core.scoring import Predict
from dask_em.report.alarm import Baseline, drift_told
from dask_em.report.drift import ChunkDensities, Densities

CENTERS = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
LEVEL = 0.05


def drawn(
    rng: np.random.Generator, n: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)
) -> np.ndarray:
    return np.asarray(rng.normal(size=(n, 2)) + CENTERS[rng.choice(3, n, p=shares)])


def fitted(rng: np.random.Generator) -> GaussianMixture:
    return GaussianMixture(3, means_init=CENTERS, algorithm="em", tol=1e-3).fit(drawn(rng, 4000))


def parts_of(model: GaussianMixture, X: np.ndarray) -> ChunkDensities:
    """Four parts."""
    answer = Predict(model.state_.mixture, ("log_density", "proba"))
    fold = Densities(answer, 3, 2, False).fold()
    for number, rows in enumerate(np.array_split(X, 4)):
        fold.update(number, rows, None)
    return fold.result()


def alarms(n: int) -> float:
    """The share of alarms over sets that are as the rows of the fits, of which each has its own."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(n):
        model = fitted(rng)
        found += drift_told(Baseline.of(model), parts_of(model, drawn(rng, 4000)), LEVEL)["alarm"]
    return found / n


def test_false_alarms_come_at_the_stated_rate() -> None:
    assert 0.005 <= alarms(200) <= 0.1


@pytest.mark.slow
def test_false_alarms_of_a_thousand_sets() -> None:
    assert 0.03 <= alarms(1000) <= 0.065


def test_parts_add_up_to_all_rows() -> None:
    rng = np.random.default_rng(1)
    model, X = fitted(rng), drawn(rng, 4000) + 1e6
    answer = Predict(model.state_.mixture, ("log_density", "proba"))
    fold = Densities(answer, 3, 2, False).fold()
    fold.update(0, X, None)
    one, whole = fold.result(), parts_of(model, X).whole
    np.testing.assert_allclose(whole.means, one.means, rtol=1e-12)
    np.testing.assert_allclose(whole.scatters, one.scatters, rtol=1e-9)
    np.testing.assert_allclose(whole.column_means[0], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.column_scatters[0], X.var(axis=0) * len(X), rtol=1e-6)
    np.testing.assert_allclose(whole.share_scatters, one.share_scatters, atol=1e-9)


def test_a_drift_is_found_where_it_is() -> None:
    """In a quarter of the rows a mean moves by 0.3, or a tenth changes its component."""
    rng = np.random.default_rng(2)
    model = fitted(rng)
    found = []
    for _ in range(40):
        X = drawn(rng, 4000)
        X[2000:3000, 1] += 0.3
        told = drift_told(Baseline.of(model), parts_of(model, X), LEVEL)
        found.append(any(part["first_row"] == 2000 for part in told["parts"]))
    assert np.mean(found) > 0.7
    X[2000:3000] = drawn(rng, 1000, (0.6, 0.3, 0.1))
    told = drift_told(Baseline.of(model), parts_of(model, X), LEVEL)
    assert ("weight", 2000) in {(part["what"], part["first_row"]) for part in told["parts"]}


def test_the_command_ends_with_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    fitted(rng).save("m.npz")
    X = drawn(rng, 4000)
    write_zarr("same.zarr", X, 1000)
    write_zarr("other.zarr", X + np.array([0.3, 0.0]), 1000)
    asked = ["--drift", "m.npz", "--metrics-file", "m.prom", "--json"]
    ends = {}
    for name, value in (("same", 0), ("other", 1)):
        done = CliRunner().invoke(main, ["score", "m.npz", f"{name}.zarr", *asked])
        ends[name] = done.exit_code
        assert json.loads(done.stdout)["drift"]["alarm"] == bool(value)
        assert f"dask_em_drift_alarm {value}\n" in Path("m.prom").read_text()
    assert ends == {"same": 0, "other": 3}
    lines = CliRunner().invoke(main, ["score", "m.npz", "other.zarr", "--drift", "m.npz"]).stdout
    assert "drift           ALARM" in lines
    assert "mean column 0" in lines
