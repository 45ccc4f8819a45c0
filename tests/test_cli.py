"""The program as its users meet it: real clusters, real exit codes, and for each way that it
starts and ends a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result
from distributed import Client, LocalCluster
from distributed.comm import CommClosedError
from helpers import HANG, PATIENT, SMALL_READ, Tune, read_until, start_cluster
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from zarr.codecs import Crc32cCodec

import dask_em
from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.cli.options import (
    CHOICE,
    CLUSTER,
    COVARIANCE,
    COVARIANCE_TYPES,
    ESTIMATOR,
    FACTOR_CONSTRAINTS,
    N_COMPONENTS,
    Option,
)
from dask_em.data.open import stored_source
from dask_em.estimators.base import MixtureEstimator
from dask_em.estimators.registry import OWN, family_name
from dask_em.families.factor.constraints import NAMES as FACTOR_NAMES
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.fitting.criteria import Criterion
from dask_em.jobs.cluster import ClusterOptions, Worker
from dask_em.jobs.fit import FitRequest, fit_of
from dask_em.jobs.plan import count, fleet_of

SMALL = ["--workers", "1", "--memory-limit", "1GiB"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "dask_em.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster that runs already, of one worker."""
    with start_cluster(1) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def there(address: str) -> Callable[..., Result]:
    """The program in this process, on that cluster."""

    def run(*arguments: object) -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            return CliRunner().invoke(main, [*map(str, arguments), "--scheduler", address])

    return run


def refused(*arguments: object) -> tuple[int, str]:
    """Exit code and standard error of a command that is refused before a cluster starts."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stderr


def store(path: Path, values: np.ndarray, **options: Any) -> Path:
    options = {"chunks": (max(1, len(values) // 7), *values.shape[1:]), **options}
    array = zarr.create_array(path, shape=values.shape, dtype=values.dtype, **options)
    array[...] = values
    return path


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 3)) + 8 * rng.integers(0, 3, (5000, 1))
    return store(tmp_path_factory.mktemp("data") / "points.zarr", rows)


@pytest.fixture(scope="module")
def model(points: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.npz"
    GaussianMixture(3, random_state=0).fit(str(points)).save(path)
    return path


def test_fit_score_predict_inspect_is_one_story(
    points: Path, tmp_path: Path, there: Callable[..., Result]
) -> None:
    saved, answers = tmp_path / "m.npz", tmp_path / "a.zarr"

    fitted = run("fit", points, "-k", 3, "-o", saved, "--seed", 0, "--json", *SMALL)
    assert fitted.returncode == 0, fitted.stderr
    summary = json.loads(fitted.stdout)
    assert summary["status"] == "CONVERGED"
    assert "em pass 1: 5000 rows" in fitted.stderr

    # The command line and the library give the same bits.
    library = GaussianMixture(3, random_state=0).fit(str(points))
    np.testing.assert_array_equal(load(saved).means_, library.means_)

    written = run("predict", saved, points, answers, "--proba", "--log-density", *SMALL)
    assert written.returncode == 0, written.stderr
    rows = zarr.open_array(points)[:]
    group = zarr.open_group(answers, mode="r")
    reference: SklearnGaussianMixture = library.to_sklearn()
    np.testing.assert_array_equal(group["labels"][:], reference.predict(rows))
    np.testing.assert_allclose(group["proba"][:], reference.predict_proba(rows), atol=1e-9)
    np.testing.assert_allclose(group["log_density"][:], reference.score_samples(rows), rtol=1e-9)

    scored = json.loads(there("score", saved, points, "--json").stdout)
    assert scored["bic"] == pytest.approx(reference.bic(rows))
    assert scored["aic"] == pytest.approx(reference.aic(rows))

    inspected = json.loads(run("inspect", saved, "--json").stdout)
    assert inspected["provenance"]["source"] == str(points)
    assert inspected["provenance"]["n_rows"] == 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "m.npz"]


def test_a_running_scheduler_is_used_and_left_running(
    points: Path, tmp_path: Path, address: str, there: Callable[..., Result]
) -> None:
    result = there("fit", points, "-k", 3, "-o", tmp_path / "m.npz")
    assert result.exit_code == 0, result.stderr
    with Client(address, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--init-params", "k-means"], "kmeans"),
        (["--seed", "-1"], "--seed"),
        (["--tol", "nan"], "--tol nan: expected a number of at least 0"),
        (["--reg-covar", "inf"], "--reg-covar inf"),
        (["--tol", "nan", "--covariance", "full,diag"], "--tol nan"),
    ],
)
def test_options_of_no_sense_are_wrong_usage(
    options: list[str], said: str, points: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(
        main, ["fit", str(points), "-k", "2", "-o", str(tmp_path / "m.npz"), *options]
    )
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "m.npz").exists()


def test_no_scheduler_at_that_address(points: Path, tmp_path: Path) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        code, error = refused(
            "fit", points, "-k", 3, "-o", tmp_path / "m.npz", "--scheduler", "127.0.0.1:9"
        )
    assert code == 2
    assert "no Dask scheduler answers at 127.0.0.1:9" in error


def test_a_scheduler_with_tls_needs_a_certificate(points: Path) -> None:
    code, error = refused("plan", points, "-k", 3, "--scheduler", "tls://127.0.0.1:9")
    assert code == 2
    assert "no Dask scheduler answers at tls://127.0.0.1:9: there is no certificate" in error
    assert "--tls-ca-file, --tls-cert and --tls-key" in error


def test_weights_from_zarr_equal_repeated_rows(
    points: Path, tmp_path: Path, there: Callable[..., Result]
) -> None:
    weight = np.random.default_rng(1).integers(0, 3, 5000).astype(float)
    # Chunks of nothing but zeros are written, or they could not be told from lost ones.
    weights = store(tmp_path / "w.zarr", weight, config={"write_empty_chunks": True})
    result = there("fit", points, "-k", 1, "-o", tmp_path / "m.npz", "--weights", weights)
    assert result.exit_code == 0, result.stderr
    repeated = np.repeat(zarr.open_array(points)[:], weight.astype(int), axis=0)
    np.testing.assert_allclose(load(tmp_path / "m.npz").means_[0], repeated.mean(0), rtol=1e-12)


def planned(*arguments: object) -> dict[str, Any]:
    """What `plan` says, for machines."""
    result = CliRunner().invoke(main, ["plan", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_plan_says_what_a_pass_costs(points: Path) -> None:
    found = planned(points, "-k", 8, "--workers", 1)
    assert found["bytes_per_pass"] == 5000 * 3 * 8
    assert found["fits"]
    assert found["n_threads"] == 1
    # One thread reads and computes every row.
    assert found["read_seconds"] == pytest.approx(5000 * found["probe"]["read_seconds"])
    assert found["compute_seconds"] == pytest.approx(5000 * found["probe"]["compute_seconds"])
    assert min(found["read_seconds"], found["compute_seconds"]) > 0
    assert found["seconds_per_pass"] == max(found["read_seconds"], found["compute_seconds"])
    text = CliRunner().invoke(main, ["plan", str(points), "-k", "8"]).stdout
    assert "time of a pass     about " in text


def test_plan_reads_two_chunks_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: Tune
) -> None:
    tune(reading={"bytes": SMALL_READ})
    rows = np.random.default_rng(0).normal(size=(9 * 340, 3))
    path = store(tmp_path / "points.zarr", rows, chunks=(340, 3), compressors=[Crc32cCodec()])
    for chunk in {*range(9)} - {0, 4}:
        (path / f"c/{chunk}/0").write_bytes(b"damaged")
    found = planned(path, "-k", 8)
    assert found["n_chunks"] == 9
    assert found["probe"]["rows_read"] == 340

    for chunk in (0, 4):
        (path / f"c/{chunk}/0").write_bytes(b"damaged")
    found = planned(path, "-k", 8, "--no-probe")
    assert found["bytes_per_pass"] == rows.nbytes
    assert found["probe"] is found["seconds_per_pass"] is found["limited_by"] is None
    code, error = refused("plan", path, "-k", 8)
    assert code == 65
    assert "chunk 0" in error


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_plan_measures_rows_that_hold_numbers(covariance: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(700, 3))
    rows[::2] = np.nan
    path = store(tmp_path / "points.zarr", rows)
    found = planned(path, "-k", 8, "--covariance", covariance)
    assert found["probe"]["rows_read"] == 700
    assert found["probe"]["rows_computed"] == 350
    result = CliRunner().invoke(main, ["plan", str(path), "-k", "400"])
    assert result.exit_code == 0
    assert "unknown: two chunks hold too few finite rows for -k 400" in result.stdout


def test_plan_times_nothing_that_takes_minutes(tmp_path: Path) -> None:
    path = tmp_path / "wide.zarr"
    zarr.create_array(path, shape=(5000, 1200), chunks=(1000, 1200), dtype="f4")
    result = CliRunner().invoke(main, ["plan", str(path), "-k", "30", "--memory-limit", "16GiB"])
    assert "unknown: timing two chunks would take minutes with 30 components in 1200 columns" in (
        result.stdout
    )


def test_plan_counts_parameters_and_sums_at_size(tmp_path: Path) -> None:
    path = tmp_path / "wide.zarr"
    zarr.create_array(path, shape=(100_000, 100), chunks=(1000, 100), dtype="f8")
    k, d = 100, 100
    matrices = 8 * k * d * d
    found = planned(path, "-k", k, "--workers", 1, "--no-probe")
    for name in ("statistics_bytes", "parameter_bytes"):
        assert matrices < found[name] < 1.1 * matrices
    # Beside its task a worker holds the parameters, as they came and as they are used,
    # and the sums of tasks that it adds.
    em = found["memory"]["phases"][-1]
    assert em["computing"] > 2 * matrices
    assert em["parameters"] + em["sums"] > (2 + 3) * matrices
    two = planned(path, "-k", k, "--workers", 1, "--threads", 2, "--no-probe")
    assert two["memory"]["phases"][-1] == em
    assert two["worker_bytes"] >= found["worker_bytes"] > em["parameters"] + em["sums"]


def test_the_worker_closest_to_its_limit_counts(points: Path) -> None:
    source = stored_source(points)
    taken = count(source, fleet_of(8, "full"), [Worker(64, 0)]).worker_bytes
    # Dask pauses it when it is 1 MiB above what it needs.
    small, busy = Worker(1, 2**30), Worker(64, int((taken + 2**20) / 0.8))
    found = count(source, fleet_of(8, "full"), [small, busy, Worker(1, 0)])
    assert (found.worker_threads, found.worker_limit) == (64, busy.limit)
    assert (found.n_workers, found.n_threads) == (3, 66)


def test_a_cluster_without_workers_is_no_reason_to_refuse(
    points: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = count(stored_source(points), fleet_of(8, "full"), [])
    with caplog.at_level("WARNING"):
        found.check()
    assert "the cluster has no workers yet" in caplog.text
    assert found.fits
    assert found.seconds_per_pass is None


def test_plan_and_fit_ask_a_running_cluster(points: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.zarr"
    zarr.create_array(large, shape=(10**8, 10), chunks=(10**7, 10), dtype="f8")
    output = tmp_path / "m.npz"
    with LocalCluster(
        n_workers=0, threads_per_worker=2, memory_limit="1GiB", dashboard_address=":0"
    ) as cluster:
        there = ["--scheduler", cluster.scheduler_address]
        result = CliRunner().invoke(main, ["plan", str(points), "-k", "8", *there])
        assert result.exit_code == 0, result.stderr
        assert "workers            none yet" in result.stdout
        cluster.scale(1)
        cluster.wait_for_workers(1)

        found = planned(points, "-k", 8, *there)
        assert found["worker_limit"] == 2**30
        assert (found["n_workers"], found["n_threads"]) == (1, 2)
        assert found["probe"]["rows_read"] == 5000

        for command in (["plan", large, "-k", 8], ["fit", large, "-k", 8, "-o", output]):
            code, error = refused(*command, *there)
            assert code == 2
            assert "a worker of 2 threads needs about" in error
            assert "of its 1,024 MiB" in error
    assert not output.exists()


def test_plan_and_fit_refuse_what_cannot_fit(tmp_path: Path) -> None:
    path = tmp_path / "big.zarr"
    zarr.create_array(path, shape=(10**8, 10), chunks=(10**7, 10), dtype="f8")
    code, message = refused("plan", path, "-k", 8, "--memory-limit", "1GiB")
    assert code == 2
    assert "raise --memory-limit, lower --threads, or store the data in chunks" in message
    code, _ = refused("fit", path, "-k", 8, "-o", tmp_path / "m", "--memory-limit", "1GiB")
    assert code == 2
    assert not (tmp_path / "m").exists()


BAD_DATA = {
    "no such path": (None, "no such path"),
    "one dimension": (np.zeros(10), "must be 2-D, (rows, columns), got 1-D of shape (10,)"),
    "three dimensions": (np.zeros((2, 2, 2)), "must be 2-D"),
    "no rows": (np.zeros((0, 3)), "there is nothing to cluster"),
    "no columns": (np.zeros((3, 0)), "there is nothing to cluster"),
    "text": (np.array([["a", "b"]], dtype="<U1"), "dtype <U1, which is not a real number"),
    "complex": (np.zeros((5, 2), dtype=complex), "dtype complex128, which is not a real number"),
}


@pytest.mark.parametrize("case", BAD_DATA)
@pytest.mark.parametrize("command", ["fit", "predict", "score", "plan"])
@pytest.mark.filterwarnings("ignore:The data type:zarr.errors.UnstableSpecificationWarning")
def test_bad_data_are_named_before_anything_starts(
    case: str, command: str, model: Path, tmp_path: Path
) -> None:
    values, message = BAD_DATA[case]
    path = tmp_path / "bad.zarr"
    if values is not None:
        zarr.create_array(
            path,
            shape=values.shape,
            dtype=values.dtype,
            chunks=tuple(max(1, n) for n in values.shape),
        )
    out = tmp_path / "out"
    arguments = {
        "fit": ["fit", path, "-k", 2, "-o", out],
        "predict": ["predict", model, path, out],
        "score": ["score", model, path],
        "plan": ["plan", path, "-k", 2],
    }
    code, error = refused(*arguments[command])
    assert code == 65
    assert message in error
    assert set(tmp_path.iterdir()) <= {path}


def test_bad_rows_are_named_and_nothing_is_left(
    points: Path, tmp_path: Path, there: Callable[..., Result]
) -> None:
    values = zarr.open_array(points)[:]
    values[4321, 2] = np.nan
    values[4400, 0] = np.inf
    bad = store(tmp_path / "bad.zarr", values)
    result = there("fit", bad, "-k", 3, "-o", tmp_path / "m.npz")
    assert result.exit_code == 65
    assert "NaN at row 4321, column 2; 2 rows hold NaN or infinity" in result.stderr
    few = store(tmp_path / "few.zarr", values[:2], chunks=(2, 3))
    result = there("fit", few, "-k", 3, "-o", tmp_path / "m.npz")
    assert result.exit_code == 65
    assert "X has 2 rows" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.zarr", "few.zarr"]


def test_constant_column_warns_and_fits(
    points: Path, tmp_path: Path, there: Callable[..., Result]
) -> None:
    values = zarr.open_array(points)[:]
    values[:, 1] = 7.0
    flat = store(tmp_path / "flat.zarr", values)
    result = there("fit", flat, "-k", 3, "-o", tmp_path / "m.npz")
    assert result.exit_code == 0, result.stderr
    assert "Warning: X does not vary in column 1" in result.stderr


def test_taken_outputs_are_refused_and_replaced_on_demand(
    points: Path, model: Path, tmp_path: Path, there: Callable[..., Result]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    for arguments in (["fit", points, "-k", 3, "-o", taken], ["predict", model, points, taken]):
        code, error = refused(*arguments)
        assert code == 73
        assert "--overwrite" in error
        assert taken.read_text() == "precious"
    assert there("predict", model, points, taken, "--overwrite").exit_code == 0
    assert len(zarr.open_group(taken, mode="r")["labels"][:]) == 5000
    for more in ([], ["--overwrite"]):
        assert there("fit", points, "-k", 3, "-o", tmp_path / "m", *more).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "taken"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), 74),
        (CommClosedError("the scheduler is gone"), 75),
        (KeyboardInterrupt(), 75),
        (ZeroDivisionError(), 70),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    error: BaseException, code: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dask_em.jobs.inspect.inspect", fail)
    assert CliRunner().invoke(main, ["inspect", str(model)]).exit_code == code


def test_output_in_a_folder_that_is_not_there(points: Path, tmp_path: Path) -> None:
    code, error = refused("fit", points, "-k", 3, "-o", tmp_path / "no" / "m.npz")
    assert code == 2
    assert "there is no folder" in error


def test_model_files_that_are_not(points: Path, model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(model.read_bytes()[:500])
    for path, expected in ((broken, 65), (points / "zarr.json", 65), (tmp_path / "missing", 2)):
        for arguments in (["score", path, points], ["inspect", path]):
            code, error = refused(*arguments)
            assert code == expected
            assert "model file" in error


def test_model_of_other_columns(model: Path, tmp_path: Path) -> None:
    wide = store(tmp_path / "wide.zarr", np.zeros((10, 4)), chunks=(5, 4))
    code, error = refused("predict", model, wide, tmp_path / "out")
    assert code == 65
    assert "has 4 columns" in error
    code, error = refused("score", model, wide)
    assert code == 65
    assert "4 columns" in error
    assert [p.name for p in tmp_path.iterdir()] == ["wide.zarr"]


def test_wrong_usage() -> None:
    for arguments in (["fit"], ["fit", "x", "-k", "0", "-o", "y"], ["nonsense"]):
        assert CliRunner().invoke(main, arguments).exit_code == 2


def test_every_command_has_help_with_an_example() -> None:
    for name, command in main.commands.items():
        assert f"Example: dask-em {name}" in (command.help or "")


def test_dask_em_is_the_same_program() -> None:
    command = [sys.executable, "-m", "dask", "em", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0
    assert "Begin with `dask-em demo`" in result.stdout


# Numba cannot be imported, as where it is not installed.
NO_NUMBA = "import sys; sys.modules['numba'] = None; "
TWO_FITS = """
import logging, numpy as np
from dask_em import GaussianMixture
logging.basicConfig(level="INFO")
X = np.random.default_rng(0).normal(size=(200, 2))
for _ in range(2):
    GaussianMixture(1).fit(X).predict(X)"""


@pytest.mark.parametrize("where", ["library", "command line"])
def test_a_run_without_numba_says_once_how_to_get_it(where: str, tmp_path: Path) -> None:
    code, words = NO_NUMBA + TWO_FITS, list[str]()
    if where == "command line":
        data = store(tmp_path / "points.zarr", np.random.default_rng(0).normal(size=(200, 2)))
        code = NO_NUMBA + "from dask_em.cli import main; main()"
        words = ["fit", str(data), "-k", "1", "-o", str(tmp_path / "m.npz"), *SMALL]

    def lines(**variables: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True, text=True, timeout=HANG, env={**os.environ, **variables},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if "Numba" in line]

    (line,) = lines()
    assert "pip install 'dask-em[fast]'" in line
    words += ["--overwrite"] if words else []
    assert lines(DASK_DASK_EM__FAST="false") == []


def test_interrupt_leaves_nothing_half_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = store(tmp_path / "points.zarr", rng.normal(size=(200_000, 4)))
    process = subprocess.Popen(
        [
            *PATIENT, "fit", str(data), "-k", "6", "-o", str(tmp_path / "m.npz"),
            "--tol", "0", "--max-iter", "100000", *SMALL,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    read_until(process, "em pass 3")
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=HANG) == 75, rest
    assert "interrupted" in rest
    assert "run the same command again to go on" in rest
    assert {p.name for p in tmp_path.iterdir()} == {"points.zarr", ".m.npz.checkpoint"}


def test_demo_is_the_whole_tour(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    result = run("demo", folder, "--rows", 20_000, *SMALL)
    assert result.returncode == 0, result.stderr
    assert {p.name for p in folder.iterdir()} == {
        "points.zarr", "model.npz", "answers.zarr", "picture.png", "report.html", "iterations.png"
    }  # fmt: skip
    assert "Now try:" in result.stdout
    fitted = load(folder / "model.npz")
    np.testing.assert_allclose(sorted(fitted.weights_), [0.1, 0.15, 0.2, 0.25, 0.3], atol=0.02)
    assert refused("demo", folder, *SMALL)[0] == 73


# Where the program differs on purpose: its seed is fixed, a sweep makes more starts, and numbers of
# factors are typed as a list.
OTHER_DEFAULTS = {"random_state": 0, "n_init": None, "n_factors": "1"}


def public(name: str) -> Any:
    return getattr(dask_em, name)


@pytest.mark.parametrize("option", ESTIMATOR, ids=lambda option: option.flag)
def test_an_option_is_that_of_the_estimator(option: Option) -> None:
    makes = [make for make in map(public, dask_em.__all__) if inspect.isclass(make)]
    theirs = {
        make().family: make
        for make in makes
        if issubclass(make, MixtureEstimator) and option.sets in inspect.signature(make).parameters
    }
    assert theirs
    for family, make in theirs.items():
        default = inspect.signature(make).parameters[option.sets].default
        told = option.of_families.get(family, option.default)
        assert told == OTHER_DEFAULTS.get(option.sets, default), family
    assert option.of_families.keys() <= theirs.keys()
    for choice in getattr(option.type, "choices", ()):
        assert any(_takes(make, option.sets, choice) for make in theirs.values())


@pytest.mark.parametrize("family", [family_name(tag) for tag in OWN])
def test_what_is_not_typed_is_the_default_of_the_family(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FitRequest] = []

    def fit(data: str, output: str, cluster: Any, request: FitRequest, **_: Any) -> None:
        asked.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr("dask_em.jobs.fit.fit", fit)
    CliRunner().invoke(main, ["fit", "x.zarr", "-o", "m.npz", "-k", "3", "--family", family])
    (request,) = asked
    (model,) = fit_of(request, {}).estimators
    size: dict[str, Any] = {type(model).size_option: 3}
    expected = type(model)(**size, random_state=0).get_params(deep=False)
    assert model.get_params(deep=False) == expected


def test_help_tells_the_defaults_of_families_that_have_others() -> None:
    told = CliRunner().invoke(main, ["fit", "--help"], terminal_width=200).stdout
    assert "0.001, 0.0001 of kmeans" in told
    assert "100, 300 of kmeans" in told


def _takes(make: Any, name: str, value: str) -> bool:
    try:
        make(**{name: value}).check_options()
    except ValueError:
        return False
    return True


def test_choices_of_models_are_those_of_the_library() -> None:
    ours = [name for name, c in CONSTRAINTS.items() if c.module.startswith("dask_em.")]
    assert tuple(ours) == COVARIANCE_TYPES[: -len(FACTOR_CONSTRAINTS)]
    assert FACTOR_CONSTRAINTS == COVARIANCE_TYPES[-len(FACTOR_CONSTRAINTS) :] == FACTOR_NAMES
    criterion = next(option for option in CHOICE if option.sets == "criterion")
    assert tuple(criterion.type.choices) == get_args(Criterion)
    fields = FitRequest.__dataclass_fields__
    assert all(option.sets in fields for option in (N_COMPONENTS, COVARIANCE, *CHOICE))
    assert {option.sets for option in CLUSTER} == set(ClusterOptions.__dataclass_fields__)


# -- the end of the process ------------------------------------------------------------------

ENDING = """
import atexit, sys, threading, time
from dask_em.cli import main, program
atexit.register(print, "called at the end")
def late():
    time.sleep(0.2)
    print("a thread has ended")
if "thread" in sys.argv:
    sys.argv.remove("thread")
    threading.Thread(target=late).start()
program()
"""


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["fit"], 2), (["nothing"], 2)])
@pytest.mark.parametrize("thread", [False, True])
def test_a_process_ends_with_all_that_was_to_be_done(
    words: list[str], code: int, thread: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING, *words, *(["thread"] if thread else [])],
        capture_output=True, text=True, check=False, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout.endswith("called at the end\n")
    assert ("a thread has ended\n" in done.stdout) == thread
    assert (words == ["--version"]) == (done.stderr == "")
