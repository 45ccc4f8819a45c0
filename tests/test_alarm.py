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
from dask_em.data.times import Period
from dask_em.errors import DataError, UsageError
from dask_em.report.alarm import Baseline, drift_of, drift_told, timed_told
from dask_em.report.drift import ChunkDensities, Densities
from dask_em.report.periods import PeriodDensities, TimedDensities

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


def power(moved: float, n_rows: int, n: int) -> float:
    """The share of alarms over sets of which a mean moved by so many standard deviations."""
    rng, found = np.random.default_rng(10), 0
    for _ in range(n):
        model, X = fitted(rng), drawn(rng, n_rows)
        X[:, 1] += moved * X[:, 1].std()
        found += drift_told(Baseline.of(model), parts_of(model, X), LEVEL)["alarm"]
    return found / n


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moved", "n_rows", "least"), [(0.05, 4000, 0.2), (0.1, 4000, 0.9), (0.2, 1000, 0.9)]
)
def test_power_stays_above_what_is_stated(moved: float, n_rows: int, least: float) -> None:
    assert power(moved, n_rows, 200) >= least


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


# -- by periods of time ------------------------------------------------------------------


def timed(model: GaussianMixture, X: np.ndarray, periods: np.ndarray, n: int) -> TimedDensities:
    """Densities of rows in n parts, whose sums come from two workers."""
    work = Densities(Predict(model.state_.mixture, ("log_density", "proba")), 3, 2, False)
    folds = [PeriodDensities(work).fold() for _ in range(2)]
    rows = np.hstack([X, periods[:, None].astype(float)])
    for number, part in enumerate(np.array_split(rows, n)):
        folds[number >= n // 2].update(number, part, None)
    return folds[0].result() + folds[1].result()


def false_alarms_of_periods(n: int) -> float:
    rng, found = np.random.default_rng(4), 0
    for _ in range(n):
        model, X, nights = fitted(rng), drawn(rng, 4000), np.repeat(np.arange(8), 500)
        cells = timed(model, X, rng.permutation(nights), 4)
        found += timed_told(Baseline.of(model), cells, Period(), LEVEL)["alarm"]
    return found / n


def test_false_alarms_of_eight_periods_come_at_the_stated_rate() -> None:
    assert false_alarms_of_periods(40) <= 0.15


@pytest.mark.slow
def test_false_alarms_of_periods_in_a_thousand_sets() -> None:
    assert 0.03 <= false_alarms_of_periods(1000) <= 0.065


def test_periods_are_those_of_their_rows_wherever_they_lie() -> None:
    rng = np.random.default_rng(5)
    model, X, nights = fitted(rng), drawn(rng, 3000), np.arange(3000) % 5
    found = timed(model, X, nights, 6)
    np.testing.assert_array_equal(found.numbers, range(5))
    # The sums of a part are those without periods.
    plain = parts_of(model, X).whole
    for name, value in vars(found.parts.whole).items():
        np.testing.assert_allclose(value, vars(plain)[name], rtol=1e-9, atol=1e-9)
    for night in range(5):
        rows = X[nights == night]
        told = Predict(model.state_.mixture, ("log_density", "proba"))(rows)
        log_density = told["log_density"]
        assert found.periods.n_rows[night] == len(rows)
        assert found.periods.means[night] == pytest.approx(log_density.mean())
        assert found.periods.scatters[night] == pytest.approx(log_density.var() * len(rows))
        np.testing.assert_allclose(found.periods.column_means[night], rows.mean(axis=0))
        shares = told["proba"].mean(axis=0)
        np.testing.assert_allclose(found.periods.shares[night], shares)


def test_a_night_that_drifted_is_named_though_its_rows_lie_everywhere() -> None:
    rng = np.random.default_rng(6)
    model, X, nights = fitted(rng), drawn(rng, 4000), np.arange(4000) % 8
    X[nights == 5, 1] += 0.4
    found = drift_of(model, X, LEVEL, nights)
    assert [one["period"] for one in found["by_period"] if one["alarm"]] == ["5"]
    assert {one["period"] for one in found["periods"]} == {"5"}
    assert ("mean", "column 1") in {(one["what"], one["of"]) for one in found["periods"]}
    without = drift_of(model, X, LEVEL)
    assert "periods" not in without
    assert found["n_tests"] == without["n_tests"] + 8 * 6


@pytest.mark.parametrize(
    ("period", "labels"),
    [
        ("hour", ["2024-02-28T23", "2024-02-29T00", "2024-03-04T12"]),
        (None, ["2024-02-28", "2024-02-29", "2024-03-04"]),
        ("week", ["2024-02-26", "2024-03-04"]),
        ("month", ["2024-02", "2024-03"]),
        ("year", ["2024"]),
    ],
)
def test_dates_are_cut_by_the_calendar(period: str | None, labels: list[str]) -> None:
    when = np.array(["2024-02-28T23:59", "2024-02-29T00:00", "2024-03-04T12:30"], dtype="M8[m]")
    rng = np.random.default_rng(7)
    model = fitted(rng)
    found = drift_of(model, drawn(rng, 3000), time=np.repeat(when, 1000), period=period)
    assert [one["period"] for one in found["by_period"]] == labels


def test_times_that_are_none() -> None:
    rng = np.random.default_rng(8)
    model, X = fitted(rng), drawn(rng, 300)
    for time, period, error, said in (
        (np.full(300, np.nan), None, DataError, "time is nan at row 0, expected one of every row"),
        (np.zeros(299), None, DataError, "time has 299 entries and X has 300 rows"),
        (np.zeros((300, 2)), None, DataError, "expected one time a row"),
        (np.zeros(300), "day", UsageError, "of numbers expected its width, above 0"),
        (np.zeros(300, dtype="M8[s]"), "7", UsageError, "expected hour, day, week, month or year"),
    ):
        with pytest.raises(error, match=said):
            drift_of(model, X, time=time, period=period)
    many = np.arange(20_000)
    with pytest.raises(DataError, match="pass a longer period"):
        drift_of(model, drawn(rng, 20_000), time=many)


def test_the_command_tells_the_periods_of_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(9)

    def table(X: np.ndarray, days: np.ndarray) -> object:
        when = np.datetime64("2024-01-01T12:00") + days.astype("m8[D]")
        return pa.table({"x": X[:, 0], "y": X[:, 1], "when": when.astype("M8[us]")})

    X, days = drawn(rng, 6000), np.arange(6000) % 3
    GaussianMixture(3, means_init=CENTERS, columns=["x", "y"]).fit(numbers_of(table(X, days))).save(
        "m.npz"
    )
    X = drawn(rng, 6000)
    X[days == 1, 0] += 0.3
    parquet.write_table(table(X, days), "x.parquet")
    asked = ["score", "m.npz", "x.parquet", "--drift", "m.npz", "--time", "when"]
    done = CliRunner().invoke(main, [*asked, "--metrics-file", "m.prom", "--json"])
    assert done.exit_code == 3, done.output
    told = json.loads(done.stdout)["drift"]["by_period"]
    assert [(one["period"], one["alarm"]) for one in told] == [
        ("2024-01-01", False), ("2024-01-02", True), ("2024-01-03", False)
    ]  # fmt: skip
    gauges = Path("m.prom").read_text()
    assert 'dask_em_drift_period_rows{period="2024-01-02"} 2000\n' in gauges
    assert 'dask_em_drift_period_p_value{period="2024-01-03"} ' in gauges
    lines = CliRunner().invoke(main, asked).stdout
    assert "periods         1 of 3 past the limit" in lines
    assert "2,000 rows of 2024-01-02: +" in lines
    year = CliRunner().invoke(main, [*asked, "--period", "year", "--json"])
    assert [one["n_rows"] for one in json.loads(year.stdout)["drift"]["by_period"]] == [6000]
    for words, said in (
        ([*asked[:3], "--time", "when"], "and there is no --drift"),
        ([*asked[:5], "--period", "day"], "and there is no --time"),
    ):
        refused = CliRunner().invoke(main, words)
        assert (refused.exit_code, said in refused.stderr) == (2, True)


def numbers_of(table: object) -> object:
    """The columns of a table of Arrow that are no dates."""
    return table.select(["x", "y"])  # type: ignore[attr-defined]
