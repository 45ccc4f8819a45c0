"""Noise beside components: mclust's values, formulas, laws, labels, answers, files, refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import write_zarr
from hostile_models import packed, sealed
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import logsumexp

from dask_em import FactorMixture, GaussianMixture, StudentTMixture, adapt, load, select
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.engine import NUMPY
from dask_em.core.fleet import Fleet
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.core.noise import beside_noise
from dask_em.data.open import stored_source
from dask_em.errors import DataError, ModelFileError, UsageError
from dask_em.fitting.noise import NoiseOptions, likely_noise
from dask_em.jobs.cluster import Worker
from dask_em.jobs.fit import FitRequest
from dask_em.jobs.plan import count
from dask_em.report.evidence import Evidence
from dask_em.report.page import report_html
from dask_em.storage.npz import read_arrays

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CHEVRON = Path(__file__).resolve().parents[2] / "shared/references/data/mclust_chevron.csv"
N, K = 1200, 2
CENTERS = np.array([[0.0, 0.0], [8.0, 6.0]])


def clusters(share: float, seed: int = 0, n: int = N) -> tuple[Array, Array]:
    """Rows of two clusters and of noise, and which are of which, K for noise."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.6 * (1 - share), 0.4 * (1 - share), share])
    rows = CENTERS[labels % 2] + rng.normal(size=(n, 2))
    rows[labels == K] = rng.uniform(-20, 25, (int((labels == K).sum()), 2))
    return rows, labels


ROWS, LABELS = clusters(0.3)


def fit(rows: Any = ROWS, k: int = K, labels: Any = None, **options: Any) -> GaussianMixture:
    few: dict[str, Any] = {"noise": True, "random_state": 0, "tol": 1e-9, "reg_covar": 0}
    return GaussianMixture(k, **{**few, **options}).fit(rows, labels_init=labels)


@cache
def fitted() -> GaussianMixture:
    """The fit with no other options, which nothing may change."""
    return fit()


def density(model: GaussianMixture, rows: Array) -> Array:
    """Log-densities of components and noise with their weights, by scipy, (n, k + 1)."""
    parts = [
        np.log(w) + stats.multivariate_normal(mean, covariance).logpdf(rows)
        for w, mean, covariance in zip(
            model.weights_, model.means_, model.covariances_, strict=True
        )
    ]
    assert model.noise_volume_ is not None
    noise = np.log(model.noise_weight_) - np.log(model.noise_volume_)
    return np.column_stack([*parts, np.full(len(rows), noise)])


# -- beside others ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chevron() -> tuple[Array, Array]:
    if not CHEVRON.exists():
        pytest.skip("the reference data are not here")
    found = np.genfromtxt(CHEVRON, delimiter=",", skip_header=1, dtype=str)
    labels = np.where(np.char.strip(found[:, 0], '"') == "noise", 1, 0)
    return found[:, 1:].astype(float), labels


@pytest.mark.parametrize("start", ["classes", "default"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("VVV", -10588.8353528741), ("VVI", -10608.3226596971), ("EII", -10611.2111717883)],
)
def test_chevron_is_that_of_mclust(
    chevron: tuple[Array, Array], kind: str, expected: float, start: str
) -> None:
    rows, labels = chevron
    given = labels if start == "classes" else None
    model = fit(rows, 1, given, covariance_type=kind, tol=1e-11, max_iter=1000)
    assert model.noise_volume_ == pytest.approx(16021.81, rel=1e-6)
    reached = model.score(rows) * len(rows)
    if start == "classes":
        assert reached == pytest.approx(expected, rel=1e-6)
    assert reached >= expected - 1e-2
    if kind == "VVV":
        assert model.noise_weight_ == pytest.approx(0.8395472682, abs=1e-5)
        assert model.weights_ == pytest.approx([0.1604527318], abs=1e-5)


def test_an_iteration_is_its_formulas() -> None:
    model = fit(algorithm="em", max_iter=4, tol=0)
    after = fit(algorithm="em", max_iter=5, tol=0)
    joint = density(model, ROWS)
    resp = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    totals = resp.sum(axis=0)
    assert_allclose([*after.weights_, after.noise_weight_], totals / N, rtol=1e-9)
    assert_allclose(after.means_, (resp.T @ ROWS)[:K] / totals[:K, None], rtol=1e-9)


def test_answers_are_those_of_scipy() -> None:
    model = fitted()
    joint = density(model, ROWS)
    assert_allclose(model.score_samples(ROWS), logsumexp(joint, axis=1), rtol=1e-10)
    resp = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    assert_allclose(model.predict_proba(ROWS), resp, atol=1e-10)
    labels = resp.argmax(axis=1)
    assert_array_equal(model.predict(ROWS), np.where(labels == K, -1, labels))
    box = np.prod(ROWS.max(axis=0) - ROWS.min(axis=0))
    assert model.noise_volume_ == pytest.approx(box)
    # Of two components 2 + 3 numbers each, one weight, and the share of noise.
    expected = -2 * logsumexp(joint, axis=1).sum() + (2 * 5 + 1 + 1) * np.log(N)
    assert model.bic(ROWS) == pytest.approx(expected, rel=1e-12)
    entropy = -(resp * np.log(np.maximum(resp, 1e-300))).sum()
    assert model.icl(ROWS) == pytest.approx(expected + 2 * entropy, rel=1e-9)


# -- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [GaussianMixture, StudentTMixture, FactorMixture])
def test_noise_in_a_volume_without_bound_is_the_plain_fit(estimator: type[Any]) -> None:
    rows = clusters(0.0)[0]
    options = {"random_state": 0, "tol": 1e-10, "max_iter": 300}
    plain = estimator(K, **options).fit(rows)
    noisy = estimator(K, noise=0.01, noise_volume=1e140, **options).fit(rows)
    assert noisy.noise_weight_ < 1e-100
    assert noisy.lower_bound_ == pytest.approx(plain.lower_bound_, rel=1e-8)
    assert_allclose(
        np.sort(noisy.means_, axis=0), np.sort(plain.means_, axis=0), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_other_units_move_the_log_likelihood_by_their_volume(factor: float) -> None:
    scaled = fit(factor * ROWS)
    moved = fitted().lower_bound_ - 2 * np.log(factor)
    assert scaled.lower_bound_ == pytest.approx(moved, abs=1e-9)
    assert scaled.noise_weight_ == pytest.approx(fitted().noise_weight_, rel=1e-5)


def test_far_from_zero_noise_is_what_it_was() -> None:
    far = fit(ROWS + 1e8)
    assert far.lower_bound_ == pytest.approx(fitted().lower_bound_, abs=1e-6)
    assert far.noise_weight_ == pytest.approx(fitted().noise_weight_, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["auto", "em"])
def test_no_iteration_is_worse(algorithm: str) -> None:
    rows = np.concatenate([clusters(0.6, seed)[0] for seed in range(4)])
    model = fit(rows, algorithm=algorithm, sample_size=500, init_params="random", tol=1e-7)
    bounds = model.lower_bounds_
    assert (np.diff(bounds) >= -1e-9 * abs(bounds[0])).all()


def test_steps_on_the_sample_end_where_plain_em_does() -> None:
    rows = np.concatenate([clusters(0.5, seed, 5000)[0] for seed in range(2)])
    plain = fit(rows, algorithm="em", max_iter=1000, tol=1e-12)
    quick = fit(rows, sample_size=800, init_params="random_from_data", max_iter=200)
    assert quick.lower_bound_ == pytest.approx(plain.lower_bound_, abs=1e-7)
    assert quick.noise_weight_ == pytest.approx(plain.noise_weight_, rel=1e-3)


def test_devices_and_engines_agree() -> None:
    xp = pytest.importorskip("array_api_strict")
    options: dict[str, Any] = {"algorithm": "em", "max_iter": 4, "tol": 0}
    found = [fit(ROWS, K, LABELS, **options), fit(ROWS, K, LABELS, device=xp, **options)]
    for fast in (False, True):
        with dask.config.set({"dask_em.fast": fast}):
            found.append(fit(ROWS, K, LABELS, **options))
    for other in found[1:]:
        assert_allclose(other.means_, found[0].means_, rtol=1e-9)
        assert_allclose(other.noise_weight_, found[0].noise_weight_, rtol=1e-9)
    assert_array_equal(found[1].predict(ROWS), found[0].predict(ROWS))


def test_mixtures_with_noise_and_without_share_a_pass() -> None:
    mixture = fitted().state_.result
    plain = Mixture(mixture.log_weights, mixture.components)
    assert mixture.noise_box is not None
    other = beside_noise(mixture.noise_box, 0.5, plain.log_weights, plain.components, NUMPY)
    wanted = (mixture, plain, mixture.take([0]), other)
    fold = Fleet(wanted).fold()
    fold.update(0, ROWS, None)
    for one, together in zip(wanted, fold.result().members, strict=True):
        alone = one.fold()
        alone.update(0, ROWS, None)
        apart = alone.result()
        assert together.log_likelihood == pytest.approx(apart.log_likelihood, rel=1e-12)
        assert_allclose(together.resp_sum, apart.resp_sum, rtol=1e-9)
        assert_allclose(together.noise_sum, apart.noise_sum, rtol=1e-9)
        assert together.resp_sum.sum() + together.noise_sum == pytest.approx(N)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_the_start_finds_the_noise(share: float) -> None:
    rows, labels = clusters(share, n=3000)
    model, told = fit(rows), fit(rows, labels=labels if share else None)
    assert model.lower_bound_ >= told.lower_bound_ - 1e-6
    assert model.noise_weight_ == pytest.approx(share, abs=0.03)


def test_the_first_guess_knows_clusters_from_noise() -> None:
    rows, labels = clusters(0.5, n=3000)
    guess = likely_noise(rows)
    assert (guess == (labels == K)).mean() > 0.9
    assert likely_noise(rows, 0.25).mean() == pytest.approx(0.25, abs=1e-3)
    assert not likely_noise(rows[:2]).any()


def test_a_sweep_chooses_with_noise_and_without() -> None:
    noisy = select(ROWS, range(1, 4), noise=True, random_state=0)
    plain = select(ROWS, range(1, 4), random_state=0)
    assert noisy.best.n_components == K
    least = [min(row["bic"] for row in found.table) for found in (noisy, plain)]
    assert least[0] < least[1] - 100
    assert noisy.table[1]["n_parameters"] == 2 * 5 + 1 + 1


# -- labels --------------------------------------------------------------------------------


def test_labels_say_what_is_noise() -> None:
    known = np.where(np.arange(N) % 5 == 0, LABELS, -1)
    model = GaussianMixture(K, noise=True, random_state=0, tol=1e-9)
    model.fit(ROWS, labels_init=known, labels_fixed=True)
    proba = model.predict_proba(ROWS)
    assert proba[LABELS == K, K].mean() > 0.9
    soft = np.where(known[:, None] < 0, -1.0, np.eye(K + 1)[known])
    again = GaussianMixture(K, noise=True, random_state=0, tol=1e-9)
    again.fit(ROWS, labels_init=soft, labels_fixed=True)
    assert again.lower_bound_ == pytest.approx(model.lower_bound_, rel=1e-9)
    # sum log w_l p_l(x) of rows that have a label, log p(x) of the others.
    joint = density(model, ROWS)
    own = np.where(known < 0, logsumexp(joint, axis=1), joint[np.arange(N), known])
    assert model.lower_bound_ == pytest.approx(own.mean(), rel=1e-6)


def test_labels_of_one_number_too_many_are_refused() -> None:
    with pytest.raises(DataError, match="labels_init is 3 at row"):
        fit(labels=np.where(np.arange(N) == 5, 3, LABELS))
    with pytest.raises(ValueError, match="some have noise and others none"):
        select(
            ROWS, K, estimator=[GaussianMixture(noise=True), StudentTMixture()],
            labels_init=LABELS,
        )  # fmt: skip


# -- answers -------------------------------------------------------------------------------


def test_draws_are_of_components_and_of_the_box() -> None:
    model = fitted()
    drawn, labels = model.sample(20_000)
    assert {*labels.tolist()} == {-1, *range(K)}
    assert (labels == -1).mean() == pytest.approx(model.noise_weight_, abs=0.01)
    noise = drawn[labels == -1]
    assert (noise >= ROWS.min(axis=0)).all()
    assert (noise <= ROWS.max(axis=0)).all()
    uniform = stats.uniform(ROWS[:, 0].min(), np.ptp(ROWS[:, 0]))
    assert stats.kstest(noise[:, 0], uniform.cdf).pvalue > 1e-3
    assert model.score(drawn) == pytest.approx(model.score(ROWS), rel=0.03)


def test_lazy_labels_are_signed(tmp_path: Path) -> None:
    model = fitted()
    lazy = model.predict(da.from_array(ROWS, chunks=(500, 2)), dtype="int8")
    assert lazy.dtype == np.int8
    assert_array_equal(lazy.compute(), model.predict(ROWS))
    with pytest.raises(ValueError, match="a type of integers that holds -1 to 1"):
        model.predict(ROWS, dtype="uint8")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rows_without_an_answer_are_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    rows = np.vstack([ROWS, [[np.nan, 1.0], [1.0, np.inf]]])
    model = fit(rows, nonfinite="drop")
    with caplog.at_level(logging.INFO, "dask_em"):
        labels = model.predict(rows)
    assert labels[-2:].tolist() == [-2, -2]
    assert set(labels[:-2]) == {-1, 0, 1}
    assert "2 of 1202 rows hold NaN or infinity and have no answer: their label is -2" in (
        caplog.text
    )


def test_adaptation_moves_means_alone() -> None:
    model = fitted()
    other = adapt(model, ROWS[LABELS == 0] + 0.5)
    assert other.noise_weight_ == model.noise_weight_
    assert_array_equal(other.covariances_, model.covariances_)
    assert not np.allclose(other.means_, model.means_)


# -- files and pages ---------------------------------------------------------------------------


def test_a_file_holds_the_noise(tmp_path: Path) -> None:
    for model in (fitted(), fit(noise_volume=4000.0), fit(noise=0.2)):
        model.save(tmp_path / "m.npz", overwrite=True)
        again = load(tmp_path / "m.npz")
        assert digest(again.state_) == digest(model.state_)
        assert again.get_params()["noise"] == model.noise
        assert again.get_params()["noise_volume"] == model.noise_volume
        assert_array_equal(again.predict(ROWS), model.predict(ROWS))
        assert (again.noise_weight_, again.noise_volume_) == (
            model.noise_weight_, model.noise_volume_
        )  # fmt: skip


def test_a_file_is_of_the_fit_whatever_was_set_since(tmp_path: Path) -> None:
    model = fit().set_params(noise=False)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.noise is True
    assert again.noise_weight_ == model.noise_weight_
    model.weights_ = model.weights_[::-1].copy()
    assert model.score(ROWS) < again.score(ROWS)


def forged(change: Any, folder: Path) -> Path:
    """A file with a right checksum, whose header and arrays were changed."""
    fitted().save(folder / "m.npz", overwrite=True)
    header, arrays = read_arrays(folder / "m.npz")
    mixture = header["state"]["fields"]["result"]["fields"]
    change(header, mixture, arrays)
    (folder / "f.npz").write_bytes(sealed(packed(header, arrays)))
    return folder / "f.npz"


def moved_box(header: Any, mixture: Any, arrays: Any) -> None:
    name = mixture["box"]["fields"]["low"]["array"]
    arrays[name] = arrays[name] + 1e9


FORGED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "all is noise": lambda h, m, a: m.update(log_share=0.0),
    "nothing is": lambda h, m, a: m.update(log_share=float("-inf")),
    "a word": lambda h, m, a: m.update(log_share="a"),
    "a huge volume": lambda h, m, a: m["box"]["fields"].update(log_volume=1e200),
    "another volume": lambda h, m, a: m["box"]["fields"].update(log_volume=1.0),
    "no noise": lambda h, m, a: h["options"].update(noise=False, noise_volume=None),
    "a share above one": lambda h, m, a: h["options"].update(noise=2),
    "a negative volume": lambda h, m, a: h["options"].update(noise_volume=-1.0),
    "negative sums": lambda h, m, a: h["state"]["fields"]["statistics"]["fields"].update(
        noise=-5.0
    ),
    "weights of no noise": lambda h, m, a: a.update(weights_=a["weights_"] / a["weights_"].sum()),
    "corners in turns": moved_box,
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_noise_is_refused(name: str, tmp_path: Path) -> None:
    file = forged(FORGED[name], tmp_path)
    with pytest.raises(ModelFileError):
        load(file)


def test_the_shell_and_the_page_tell_of_noise(tmp_path: Path) -> None:
    stored = tmp_path / "x.zarr"
    zarr.create_array(stored, data=ROWS, chunks=(400, 2))
    model, out = str(tmp_path / "m.npz"), str(tmp_path / "a.zarr")

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    assert "noise, label -1: weight 0.3" in run(
        "fit", str(stored), "-k", "2", "--noise", "-o", model
    )
    assert "rows, in a volume of" in run("inspect", model)
    run("predict", model, str(stored), out, "--proba")
    group = zarr.open_group(out, mode="r")
    read = load(model)
    assert_array_equal(group["labels"][:], read.predict(ROWS))
    assert_allclose(group["proba"][:], read.predict_proba(ROWS))
    pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
    told = report_html(read, Evidence(rows=ROWS))
    assert "share of noise, label -1" in told
    assert "Grey rows are noise" in told
    assert "noise, label -1" in read._repr_html_()


# -- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": 1.5}, "noise=1.5: expected True or False, or the share"),
        ({"noise": "yes"}, "noise='yes': expected True or False"),
        ({"noise_volume": 0}, "noise_volume=0: expected a number above 0"),
        ({"noise": False, "noise_volume": 3.0}, "pass noise=True"),
        ({"missing_values": "mar"}, "the density of noise is that of whole rows"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit(**options)


@pytest.mark.filterwarnings("ignore:X does not vary")
def test_a_box_without_volume_is_refused() -> None:
    rows = np.column_stack([ROWS, np.ones(N)])
    with pytest.raises(DataError, match=r"X does not vary in column 2: the box of all rows"):
        fit(rows, reg_covar=1e-6)
    assert fit(rows, reg_covar=1e-6, noise_volume=2000.0).noise_weight_ > 0.2


def test_a_model_with_noise_takes_no_holes_later() -> None:
    model = fit().set_params(missing_values="mar")
    with pytest.raises(UsageError, match="fit without noise"):
        model.predict(ROWS)
    with pytest.raises(ValueError, match="scikit-learn's has none"):
        fitted().to_sklearn()


def test_held_parameters_stay_beside_noise() -> None:
    model = fit(
        means_init=CENTERS, precisions_init=[np.eye(2)] * K, weights_init=[0.5, 0.5],
        fixed={"weights", "means"},
    )  # fmt: skip
    assert_allclose(model.means_, CENTERS, atol=1e-12)
    assert model.weights_[0] == pytest.approx(model.weights_[1], rel=1e-12)
    assert model.noise_weight_ == pytest.approx(0.3, abs=0.03)
    # Covariances, and the share of noise.
    assert model.state_.result.n_parameters == 2 * 3 + 1


def test_the_smallest_and_the_largest_share_have_a_logarithm() -> None:
    start = NoiseOptions().beside(fitted().state_.result, Moments.of(ROWS))
    for noise, rest in ((0.0, 5.0), (1e-320, 5.0), (5.0, 0.0)):
        found = start.with_noise(noise, rest)
        assert np.isfinite(found.log_prior).all()
        again = found.from_unconstrained(found.to_unconstrained())
        assert_allclose(again.log_prior, found.log_prior, rtol=1e-9)


def test_plans_count_the_row_of_noise(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", np.random.default_rng(0).normal(size=(900, 2)), 300)
    source, sizes = stored_source(str(tmp_path / "x.zarr")), []
    for told in (False, True):
        words = ["plan", str(tmp_path / "x.zarr"), "-k", "40", "--no-probe", "--workers", "1"]
        done = CliRunner().invoke(main, [*words, "--json", *(["--noise"] * told)])
        assert done.exit_code == 0, done.output
        sizes.append(json.loads(done.stdout)["task_bytes"])
        # As a fit counts it.
        fleet = FitRequest([40], options={"noise": told}).fleet
        assert count(source, fleet, [Worker(1, 0)], kept=True).task_bytes == sizes[-1]
    assert sizes[1] > sizes[0]
