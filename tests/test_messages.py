"""What the program and the library say: in the words of the surface in use, and for machines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result
from distributed.comm import CommClosedError
from helpers import blobs, write_zarr

from dask_em import GaussianMixture, select
from dask_em.cli.main import main
from dask_em.cli.options import CHOICE, CLUSTER, ESTIMATOR, Option
from dask_em.cli.words import IN_PYTHON, in_shell
from dask_em.errors import DaskEMError, DataError, ExitCode, NonFiniteError
from dask_em.fitting.starts import LABELLERS
from dask_em.storage import npz

X = blobs(200, 2, 2)[0]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    write_zarr(path, X, 100)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.npz"
    GaussianMixture(2, random_state=0).fit(X).save(path)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# -- failures for machines ---------------------------------------------------------------


def kinds(base: type[DaskEMError] = DaskEMError) -> Iterator[type[DaskEMError]]:
    """Every exception of the package: those of this file's subclasses included."""
    yield base
    for derived in base.__subclasses__():
        yield from kinds(derived)


def made(kind: type[DaskEMError]) -> DaskEMError:
    """An error of a kind."""
    return NonFiniteError("NaN", 7, 1) if kind is NonFiniteError else kind("why")


OURS = [kind for kind in kinds() if kind.__module__ == "dask_em.errors"]

# Programs compare these words: they stay.
WORDS = {
    "DaskEMError": "fault",
    "DataError": "bad-data",
    "NonFiniteError": "non-finite",
    "ModelFileError": "bad-model-file",
    "ModelNotFoundError": "model-not-found",
    "OutputExistsError": "output-exists",
    "LockedError": "locked",
    "StoppedError": "stopped",
    "OutOfTimeError": "out-of-time",
    "WorkerError": "other-worker",
    "UsageError": "usage",
    "StoreError": "store-failed",
    "StoreAccessError": "store-access",
}

FAILURES: list[tuple[BaseException, str, int]] = [
    *((made(kind), WORDS[kind.__name__], kind.exit_code) for kind in OURS),
    (npz.FormatError("why"), "bad-model-file", 65),
    (KeyboardInterrupt(), "interrupted", 75),
    (CommClosedError("why"), "cluster-lost", 75),
    (OSError(28, "why"), "disk-failed", 74),
    (MemoryError("why"), "out-of-memory", 75),
    (ZeroDivisionError("why"), "fault", 70),
]


def test_every_kind_of_error_has_a_word_of_its_own() -> None:
    assert {kind.__name__ for kind in OURS} == WORDS.keys()
    assert len(set(WORDS.values())) == len(WORDS)


@pytest.mark.parametrize(("error", "word", "code"), FAILURES, ids=lambda value: repr(value))
def test_a_failure_is_one_json_object(
    error: BaseException, word: str, code: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("dask_em.jobs.inspect.inspect", fail)
    result = run("inspect", model, "--json")
    found = json.loads(result.stdout)
    assert set(found) == {"error"}
    assert (found["error"]["code"], found["error"]["exit_code"]) == (word, code)
    assert f"Error: {found['error']['message']}" in result.stderr
    assert result.exit_code == code
    assert run("inspect", model).stdout == ""


@pytest.mark.parametrize(
    "words", ["nonsense", "fit", "fit x -k 0 -o y", "inspect", "score x y --nonsense"]
)
def test_wrong_usage_is_one_json_object(words: str) -> None:
    result = run(*words.split(), "--json")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 2
    assert (error["code"], error["exit_code"]) == ("usage", 2)
    assert error["message"] in result.stderr.replace("\n", " ")


def test_a_plan_that_is_refused_prints_one_object(tmp_path: Path) -> None:
    path = tmp_path / "big.zarr"
    zarr.create_array(path, shape=(10**8, 10), chunks=(10**7, 10), dtype="f8")
    result = run("plan", path, "-k", 8, "--memory-limit", "1GiB", "--json")
    assert result.exit_code == ExitCode.USAGE
    assert json.loads(result.stdout)["fits"] is False


# -- the words of a shell ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *sorted(main.commands)])
def test_h_is_help(name: str) -> None:
    words = [*filter(None, [name])]
    short, long = run(*words, "-h"), run(*words, "--help")
    assert short.exit_code == 0
    assert short.stdout == long.stdout
    assert "-h, --help" in short.stdout


@pytest.mark.parametrize("option", [*ESTIMATOR, *CHOICE, *CLUSTER], ids=lambda option: option.flag)
def test_an_argument_is_an_option_in_a_shell(option: Option) -> None:
    name = IN_PYTHON.get(option.sets, option.sets)
    flag = option.flag.split("/")[0]
    wanted = flag if option.is_flag else f"{flag} 3"
    given = "True" if option.is_flag else "3"
    assert in_shell(f"pass {name}={given}.", main.commands["fit"]) == f"pass {wanted}."
    path = f"/data/{name}=3/{name}.npz: no such file"
    assert in_shell(path, main.commands["fit"]) == path
    # `inspect` has none of them.
    assert in_shell(f"pass {name}={given}", main.commands["inspect"]) == f"pass {name}={given}"


def test_flags_and_words() -> None:
    fit = main.commands["fit"]
    assert in_shell("pass resume=False or force=True", fit) == "pass --no-resume or --force"
    assert in_shell("tol=nan: raise max_iter, raise tol", fit) == (
        "--tol nan: raise --max-iter, raise --tol"
    )
    assert in_shell('missing_chunks="fill" (a column resume)', fit) == (
        "--missing-chunks fill (a column resume)"
    )


# What a shell is told where an option makes no sense, and what it is not told.
REFUSED = [
    (["-k", "2,3", "--criterion", "holdout"], "--criterion holdout needs rows to score: pass "
     "--holdout 0.1"),
    (["-k", "2", "--tol", "nan"], "--tol nan: expected a number"),
    (["-k", "2", "--reg-covar", "inf"], "--reg-covar inf: expected a number"),
    (["-k", "500"], "-k 500"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=lambda value: " ".join(value))
def test_a_shell_is_told_options(
    options: list[str], said: str, points: Path, tmp_path: Path
) -> None:
    result = run("fit", points, "-o", tmp_path / "m.npz", "--workers", 1, *options)
    last = next(line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert said in last
    assert not any(f"{option.sets}=" in last for option in (*ESTIMATOR, *CHOICE))


def test_python_is_told_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pass holdout=0\.1, say") as refusal:
        select(X, [1, 2], criterion="holdout")
    rows = np.where(np.arange(400).reshape(200, 2) == 7, np.nan, X)
    with pytest.raises(DataError, match='pass nonfinite="drop"') as bad:
        GaussianMixture(2).fit(rows)
    assert not any("--" in str(found.value) for found in (refusal, bad))


@pytest.mark.parametrize("option", ["--tls-ca-file", "--tls-cert", "--tls-key"])
def test_a_tls_file_that_is_not_there_is_named(option: str, points: Path, tmp_path: Path) -> None:
    for name in ("--tls-ca-file", "--tls-cert", "--tls-key"):
        (tmp_path / name).touch()
    (tmp_path / option).unlink()
    files = [
        word for name in ("--tls-ca-file", "--tls-cert", "--tls-key")
        for word in (name, tmp_path / name)
    ]  # fmt: skip
    result = run("plan", points, "-k", 2, "--scheduler", "tls://127.0.0.1:9", *files)
    assert result.exit_code == 2
    assert f"{option} {tmp_path / option}: no such file" in result.stderr


# -- wrong keywords, and warnings of others --------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("max_itr", "max_iter"), ("criterium", "criterion"), ("reg_cov", "reg_covar"), ("zz", None)],
)
def test_a_keyword_that_select_does_not_know(wrong: str, meant: str | None) -> None:
    options: dict[str, Any] = {wrong: 1}
    with pytest.raises(TypeError, match=rf"select\(\) got .* '{wrong}'") as refusal:
        select(X, [1, 2], **options)
    assert str(refusal.value).endswith(f"did you mean {meant!r}?" if meant else "either")


@pytest.mark.parametrize("init_params", sorted(LABELLERS))
def test_no_warning_of_scikit_learn_reaches_the_user(init_params: str) -> None:
    rows = np.repeat([[0.0, 0.0], [1.0, 1.0], [2.0, 4.0]], 50, axis=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GaussianMixture(5, init_params=init_params, random_state=0, reg_covar=1e-3).fit(rows)
    said = [str(warning.message) for warning in caught]
    assert not any("distinct clusters" in message for message in said), said
    assert all(Path(warning.filename) == Path(__file__) for warning in caught), said


def test_the_program_shows_its_own_warnings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    import sklearn

    from dask_em.cli.logs import show_warning

    inner = str(Path(sklearn.__file__).parent / "base.py")
    show_warning("theirs", UserWarning, inner, 1)
    show_warning("ours", UserWarning, click.__file__, 1)
    assert capsys.readouterr().err.splitlines() == ["Warning: ours"]
