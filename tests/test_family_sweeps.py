"""Sweeps over families: one table, one read for all, and likelihoods that may be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import blobs, write_zarr
from numpy.testing import assert_array_equal

from dask_em import GaussianMixture, MixedMixture, PoissonMixture, load, select
from dask_em.cli.main import main
from dask_em.core.codec import digest
from dask_em.core.engine import NUMPY
from dask_em.core.family import Family
from dask_em.core.fleet import Fleet
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.errors import UsageError
from dask_em.estimators.base import MixtureEstimator
from dask_em.estimators.registry import register_estimator
from dask_em.families.gaussian.options import GaussianOptions

pd = pytest.importorskip("pandas", reason="pandas is not installed")

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K = 1500, 3, 3
X = blobs(N, D, K, seed=2, apart=2.5)[0]


@register_estimator("balls-mixture")
class Balls(MixtureEstimator):
    """A family of a stranger that has no kinds: normals alike in all directions."""

    def family_options(self) -> GaussianOptions:
        return GaussianOptions("spherical")


def sweep(*estimators: Any, ks: Any = (2, 3, 4), rows: Any = X, **options: Any) -> Any:
    return select(rows, ks, estimator=list(estimators), random_state=0, **options)


def test_a_table_shows_the_family_of_each_model() -> None:
    found = sweep(GaussianMixture, Balls, covariance_type=["full", "diag"])
    rows = [(row["family"], row["covariance_type"], row["n_components"]) for row in found.table]
    assert rows == [
        *(("gaussian", kind, k) for kind in ("full", "diag") for k in (2, 3, 4)),
        *(("balls", "spherical", k) for k in (2, 3, 4)),
    ]
    # The clusters are round, and the family that knows it needs the fewest parameters.
    assert type(found.best) is Balls
    assert found.best.n_components == K
    sweeping = found.best.provenance_["sweep"]
    assert sweeping["table"] == found.table


def test_models_of_families_share_every_read() -> None:
    found = sweep(GaussianMixture, Balls, exhaustive=True, keep_all=True)
    served = [row["n_passes"] for row in found.table]
    assert found.n_reads <= 1 + max(served)
    for model in found.models:
        alone = type(model)(**{**model.get_params(), "n_init": 5}).fit(X)
        assert model.lower_bound_ == pytest.approx(alone.lower_bound_, rel=1e-8)


def test_estimators_have_options_of_their_own() -> None:
    own = GaussianMixture(covariance_type="tied", reg_covar=0.25)
    (tied, _) = sweep(own, Balls, ks=[2], exhaustive=True, keep_all=True).models
    assert (tied.covariance_type, tied.reg_covar) == ("tied", 0.25)
    assert tied.state_.result.components.ridge == 0.25
    (told, _) = sweep(own, Balls, ks=[2], exhaustive=True, keep_all=True, reg_covar=0.0).models
    assert (told.covariance_type, told.reg_covar) == ("tied", 0.0)


def test_a_sweep_is_resumed_with_its_bits(tmp_path: Path, synchronous: None) -> None:
    straight = sweep(GaussianMixture, Balls, checkpoint=tmp_path / "kept")
    again = sweep(GaussianMixture, Balls, checkpoint=tmp_path / "kept")
    assert digest(again.best.state_) == digest(straight.best.state_)
    assert again.table == straight.table
    with pytest.raises(UsageError, match="keeps the unfinished fit of"):
        sweep(GaussianMixture, checkpoint=tmp_path / "kept")


def test_a_winner_s_file_tells_of_the_others(tmp_path: Path) -> None:
    found = sweep(GaussianMixture, Balls)
    found.best.save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").provenance_["sweep"]["table"] == found.table


def test_products_are_compared_with_families_of_all_columns() -> None:
    names = [f"x{j}" for j in range(D)]
    frame = pd.DataFrame(X, columns=names)
    found = sweep(
        GaussianMixture(columns=names),
        MixedMixture(columns={"gaussian": names[:1], "balls": names[1:]}),
        rows=frame,
    )
    assert {row["family"] for row in found.table} == {"gaussian", "mixed"}
    assert type(found.best) is MixedMixture


# -- likelihoods of one kind --------------------------------------------------------------


def test_densities_are_not_compared_with_probabilities() -> None:
    counts = np.random.default_rng(0).poisson(5.0, (200, 2))
    with pytest.raises(UsageError, match="column 0 has a density under gaussian and a probab"):
        sweep(GaussianMixture, PoissonMixture, rows=counts)
    with pytest.raises(UsageError, match="models of the families gaussian and mixed cannot"):
        sweep(GaussianMixture, MixedMixture, rows=counts)
    found = sweep(PoissonMixture, MixedMixture, rows=counts, ks=[1, 2])
    assert found.best.n_components == 1


MISTAKES: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "twice": ([Balls, Balls(2)], {}, ValueError, "two estimators are of the family balls"),
    "none": ([], {}, ValueError, "expected one or more"),
    "no estimator": ("gaussian", {}, TypeError, "a class of mixtures"),
    "another class": ([dict], {}, TypeError, "a class of mixtures"),
    "nobody's option": ([GaussianMixture, Balls], {"df": 3}, TypeError, "GaussianMixture or Balls"),
    "passes": ([GaussianMixture(tol=0.1), Balls()], {}, ValueError, "tol is 0.1 for gaussian"),
    "columns": ([GaussianMixture(exclude="a"), Balls()], {}, ValueError, "exclude is 'a' for"),
    "a start": ([GaussianMixture(means_init=X[:2]), Balls()], {}, ValueError, "means_init"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str) -> None:
    estimators, options, kind, words = MISTAKES[mistake]
    with pytest.raises(kind, match=words):
        select(X, [2, 3], estimator=estimators, **options)


def test_a_fleet_serves_families_that_share_no_kernel() -> None:
    unit = Moments.unit(D)
    normals = Mixture(np.log([0.5, 0.5]), GaussianOptions("diag").of_data(unit, 2), NUMPY)
    both: list[Family[Any]] = [GaussianOptions("full").of_data(unit, 2), normals.components]
    mixtures = tuple(Mixture(normals.log_weights, one) for one in both)
    fold, alone = Fleet(mixtures).fold(), [mixture.fold() for mixture in mixtures]
    for one in (fold, *alone):
        one.update(0, X, None)
    for together, apart in zip(fold.result().members, alone, strict=True):
        assert_array_equal(together.resp_sum, apart.result().resp_sum)


# -- on the command line ---------------------------------------------------------------------


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, [*words], prog_name="dask-em")
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


@pytest.fixture
def stored(tmp_path: Path) -> str:
    write_zarr(tmp_path / "x.zarr", X, 300)
    return str(tmp_path / "x.zarr")


def test_a_shell_chooses_among_families(stored: str, tmp_path: Path) -> None:
    model = str(tmp_path / "m.npz")
    several = ("--family", "gaussian,balls", "-k", "2:4")
    said = run("fit", stored, "-o", model, *several, "--keep-all", "--exhaustive")
    head, *rows = said.splitlines()
    assert head.split()[:3] == ["family", "K", "covariance"]
    assert [row.split()[0] for row in rows[:3]] == ["gaussian"] * 3
    assert "* balls       3 spherical" in said
    assert type(load(model)) is Balls
    assert (tmp_path / "m-gaussian-k3-full.npz").exists()
    assert json.loads(run("plan", stored, *several, "--no-probe", "--json"))["statistics_bytes"] > 0
    page = str(tmp_path / "m.html")
    pytest.importorskip("matplotlib")
    run("report", model, page)
    assert "gaussian" in Path(page).read_text()


def test_a_family_is_called_by_its_short_name(stored: str, tmp_path: Path) -> None:
    for name in ("gaussian", "gaussian-mixture"):
        out = str(tmp_path / f"{name}.npz")
        run("fit", stored, "-o", out, "-k", "2", "--family", name)
        assert type(load(out)) is GaussianMixture
    said = run("fit", stored, "-o", f"{tmp_path}/no.npz", "-k", "2", "--family", "zipf", code=2)
    assert "--family zipf: expected one of" in said
    assert "gaussian, " in said
    assert "gaussian-mixture" not in said.partition("expected")[2]


def test_parameters_without_an_option_are_set(stored: str, tmp_path: Path) -> None:
    out = str(tmp_path / "m.npz")
    run("fit", stored, "-o", out, "-k", "2", "--set", "reg_covar=0.25", "--set", "verbose=1")
    assert load(out).get_params()["reg_covar"] == 0.25
    for word, said in {
        "depth=1": "--family balls has no --depth",
        "width": "expected NAME=VALUE",
    }.items():
        wrong = ("-k", "2", "--family", "balls", "--set", word, "--overwrite")
        assert said in run("fit", stored, "-o", out, *wrong, code=2)
