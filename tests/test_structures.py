"""The fourteen structures of covariances: their M-steps, and fits beside mclust's.

Reference values are mclust's (6.1.3), of EM from the classes of iris until nothing moves; of VEE,
EVE and VVE its M-steps stop early, and ours may end above.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import blobs, write_zarr
from scipy import optimize
from sklearn.datasets import load_iris

from dask_em import GaussianMixture, StudentTMixture, load, select
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.em import Convergence, EMState, em
from dask_em.core.family import Family
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.families.gaussian.constraints import constraint_of
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.families.gaussian.structures import NAMES, SCIKIT_LEARN, is_nested
from dask_em.fitting.sample import Sampled
from dask_em.testing.families import FamilyTests

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

N, D, K = 400, 3, 3
OWN = [name for name in NAMES if name not in SCIKIT_LEARN]
INEXACT = ("VEE", "EVE", "VVE")
NESTED = [(a, b) for a in NAMES for b in NAMES if is_nested(a, b)]

# Log-likelihood after the first M-step, at the end, and free parameters.
IRIS = {
    "EII": (-414.6979512733, -401.8021757890, 15),
    "VII": (-392.4984144985, -384.3140950608, 17),
    "EEI": (-364.5173643381, -361.4255220428, 18),
    "VEI": (-340.8360525223, -339.4687272607, 20),
    "EVI": (-342.9736984728, -340.0855807366, 24),
    "VVI": (-309.3627578939, -306.8604605064, 26),
    "EEE": (-256.6461842549, -256.3540431256, 24),
    "VEE": (-238.3946720665, -237.5601627960, 26),
    "EVE": (-235.5521474701, -234.1402350601, 30),
    "VVE": (-215.3431072830, -215.2408703396, 32),
    "EEV": (-215.1432631274, -214.8503788735, 36),
    "VEV": (-187.7097444033, -186.0732834038, 38),
    "EVV": (-209.4547976987, -205.5358808175, 42),
    "VVV": (-182.9208486053, -180.1854771313, 44),
}
REFERENCES = Path(__file__).resolve().parents[2] / "shared" / "references"


def from_classes(kind: str, X: Array, labels: Array, ridge: float = 0.0) -> Mixture:
    """The first M-step, of responsibilities that are one for each row's class."""
    k = int(labels.max()) + 1
    resp = np.eye(k)[labels]
    components = GaussianOptions(kind, ridge).of_data(Moments.of(X), k).near(X, resp)
    return Mixture(np.full(k, -np.log(k)), components).of_responsibilities(X, resp)


def states(mixture: Mixture, X: Array, n: int = 3000, tol: float = 1e-12) -> list[EMState]:
    rows = Sampled(X, np.ones(len(X)))
    return list(em(rows.accumulate, mixture, Convergence(tol, n)))


def covariances_of(mixture: Mixture) -> Array:
    components = mixture.components
    assert isinstance(components, Gaussian)
    means, covariance = components.data_coordinates()
    return covariance.full(*means.shape)


# -- beside mclust --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NAMES)
def test_iris_from_its_classes_ends_where_mclust_does(kind: str) -> None:
    X, labels = load_iris(return_X_y=True)
    check_against(kind, X, labels, *IRIS[kind])


def check_against(kind: str, X: Array, labels: Array, first: float, last: float, p: int) -> None:
    start = from_classes(kind, X, labels)
    passes = states(start, X)
    reached = np.array([state.log_likelihood for state in passes]) * len(X)
    assert (np.diff(reached) >= -1e-10 * abs(last)).all()
    assert start.n_parameters == p
    if kind in INEXACT:
        assert reached[0] >= first - 1e-3
        assert reached[-1] >= last - 1e-3
    else:
        assert reached[0] == pytest.approx(first, rel=1e-8)
        assert reached[-1] == pytest.approx(last, rel=1e-8)


def diabetes() -> tuple[Array, Array]:
    path = REFERENCES / "data" / "mclust_diabetes.csv"
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    names = list(dict.fromkeys(row["class"] for row in rows))
    columns = [name for name in rows[0] if name != "class"]
    X = np.array([[float(row[c]) for c in columns] for row in rows])
    return X, np.array([names.index(row["class"]) for row in rows])


@pytest.mark.parametrize("kind", NAMES)
def test_diabetes_from_its_classes_ends_where_mclust_does(kind: str) -> None:
    kept = REFERENCES / "mclust_me_from_classes.json"
    if not kept.exists():
        pytest.skip("the references are not here")
    known = json.loads(kept.read_text())["diabetes"][kind]
    values = known["loglik_after_first_mstep"], known["loglik"], known["npar"]
    check_against(kind, *diabetes(), *values)


# -- what an M-step is ------------------------------------------------------------------------


def scatters(seed: int = 0, k: int = K, d: int = D) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(k, d, 2 * d)) * rng.uniform(0.3, 3.0, (k, d, 1))
    return rng.uniform(1.0, 9.0, k), A @ A.transpose(0, 2, 1) / (2 * d)


def stored(kind: str, S: Array) -> Array:
    """Covariances as the constraint's storage has them."""
    diagonals = np.einsum("kii->ki", S)
    shapes = {"diag": diagonals, "spherical": diagonals.mean(axis=1)}
    return shapes.get(constraint_of(kind).storage.kind, S)


def as_matrices(found: Array, d: int = D) -> Array:
    if found.ndim == 1:
        found = np.repeat(found[:, None], d, axis=1)
    return found[:, :, None] * np.eye(d) if found.ndim == 2 else found


def cost(weights: Array, S: Array, covariances: Array) -> float:
    """Minus twice the log-likelihood, up to a constant."""
    log_dets = np.linalg.slogdet(covariances)[1]
    return float(weights @ (log_dets + np.einsum("kij,kji->k", np.linalg.inv(covariances), S)))


def parts(covariances: Array) -> tuple[Array, Array, Array]:
    """Volumes (k,), shapes (k, d), axes (k, d, d) of covariances."""
    values, axes = np.linalg.eigh(covariances)
    volumes = np.exp(np.log(values).mean(axis=1))
    return volumes, values / volumes[:, None], axes


@pytest.mark.parametrize("kind", OWN)
def test_the_letters_say_what_components_have_in_common(kind: str) -> None:
    n, S = scatters()
    given = stored(kind, S)
    found = as_matrices(constraint_of(kind).allowed(n, given, given))
    volumes, shapes, _ = parts(found)
    assert (np.ptp(volumes) < 1e-9) == (kind[0] == "E")
    if kind[1] != "V":
        np.testing.assert_allclose(shapes, shapes[:1].repeat(K, axis=0), rtol=1e-8)
    else:
        assert np.ptp(shapes, axis=0).max() > 0.1
    if kind[2] == "I":
        np.testing.assert_allclose(found, found * np.eye(D), atol=1e-12)
    elif kind[2] == "E":
        products = found[:, None] @ found[None]
        np.testing.assert_allclose(products, products.transpose(1, 0, 2, 3), atol=1e-7)
    if kind[1] == "I":
        np.testing.assert_allclose(shapes, 1.0)


@pytest.mark.parametrize("kind", OWN)
def test_nothing_that_is_allowed_is_likelier_than_the_m_step(kind: str) -> None:
    n, S = scatters(1)
    rule, given = constraint_of(kind), stored(kind, S)
    found = rule.allowed(n, given, given)
    reached, rng = cost(n, S, as_matrices(found)), np.random.default_rng(2)
    for size in (1e-4, 1e-2, 0.3):
        for _ in range(20):
            moved = as_matrices(found)
            turn = np.eye(D) + size * rng.normal(size=(K, D, D))
            other = stored(kind, turn @ moved @ turn.transpose(0, 2, 1))
            allowed = as_matrices(rule.allowed(rng.uniform(1, 2, K), other, other))
            assert cost(n, S, allowed) >= reached - 1e-7
    # What is allowed already stays as it is.
    np.testing.assert_allclose(rule.allowed(n, found, found), found, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [name for name in OWN if constraint_of(name).improve])
def test_an_iterated_m_step_never_ends_below_its_start(kind: str) -> None:
    for seed in range(30):
        n, S = scatters(seed, 3, 4)
        _, other = scatters(seed + 100, 3, 4)
        rule, given, far = constraint_of(kind), stored(kind, S), stored(kind, other)
        current = rule.allowed(n, far, far)
        found = rule.allowed(n, given, current)
        before, after = (cost(n, S, as_matrices(one, 4)) for one in (current, found))
        assert after <= before + 1e-9


def test_axes_are_those_that_a_search_from_many_turns_finds() -> None:
    n, S = scatters(3)
    for kind in ("VVE", "EVE"):
        rule = constraint_of(kind)
        reached = cost(n, S, rule.allowed(n, S, S))

        def of_angles(angles: Array, kind: str = kind) -> float:
            skew = np.zeros((D, D))
            skew[np.triu_indices(D, 1)] = angles
            turn = np.linalg.solve(np.eye(D) - skew + skew.T, np.eye(D) + skew - skew.T)
            inside = np.einsum("ji,kjl,li->ki", turn, S, turn)
            if kind == "VVE":
                return float(n @ np.log(inside).sum(axis=1) + D * n.sum())
            volumes = np.exp(np.log(inside).mean(axis=1))
            return float(D * n.sum() * (np.log(n @ volumes / n.sum()) + 1))

        rng = np.random.default_rng(4)
        ends = [optimize.minimize(of_angles, rng.normal(size=3)).fun for _ in range(12)]
        assert reached <= np.median(ends) + 1e-6


def maximized(kind: str, n: Array, S: Array, current: Array) -> Array:
    rule = constraint_of(kind)
    if rule.storage.shared_scatter:
        return np.repeat(np.einsum("k,kij->ij", n, S)[None] / n.sum(), K, axis=0)
    return as_matrices(rule.allowed(n, stored(kind, S), stored(kind, current)))


@pytest.mark.parametrize(("inner", "outer"), NESTED)
def test_a_nested_structure_is_never_likelier(inner: str, outer: str) -> None:
    n, S = scatters(5)
    best = maximized(inner, n, S, S)
    # Axes have more than one optimum: this one is reached from the nested.
    assert cost(n, S, maximized(outer, n, S, best)) <= cost(n, S, best) + 1e-8


@pytest.mark.parametrize("kind", OWN)
def test_a_component_without_rows_leaves_the_others_as_they_are(kind: str) -> None:
    X, labels, _ = blobs(N, D, K, seed=2, apart=2.0)
    resp = np.eye(K)[labels]
    family = from_classes(kind, X, labels).components
    assert isinstance(family, Gaussian)
    resp[:, 1] = 0.0
    alone, with_it = (
        part.maximize(r.sum(axis=0), part.sufficient_statistics(X, r))
        for part, r in ((family.take([0, 2]), resp[:, [0, 2]]), (family, resp))
    )
    assert list(with_it[1]) == [1]
    one, other = alone[0], with_it[0].take([0, 2])
    np.testing.assert_allclose(other.means, one.means)
    np.testing.assert_allclose(other.covariance.factor, one.covariance.factor, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(with_it[0].means[1], family.means[1])


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_component_of_too_few_rows_is_a_state_and_no_error(kind: str, rows: int) -> None:
    X, labels, _ = blobs(60, D, 2, seed=2, apart=2.0)
    labels = np.where(np.arange(len(X)) < rows, 2, labels)
    passes = states(from_classes(kind, X, labels), X, 20)
    reached = np.array([state.log_likelihood for state in passes])
    assert np.isfinite(reached).all()
    assert (np.diff(reached) >= -1e-9).all()
    ridged = states(from_classes(kind, X, labels, ridge=1e-3), X, 20)
    assert np.isfinite(covariances_of(ridged[-1].result)).all()
    assert not ridged[-1].collapsed


# -- the laws of a family ---------------------------------------------------------------------


class StructureTests(FamilyTests):
    kind = "VVE"

    def rows(self) -> Array:
        return blobs(N, D, K, seed=2, apart=1.5)[0] * [1.0, 2.0, 0.5] + [0.0, 100.0, 0.0]

    def family(self) -> Family[Any]:
        X = self.rows()
        resp = np.eye(K)[np.arange(len(X)) % K] + 0.1
        near = GaussianOptions(self.kind).of_data(Moments.of(X), K).near(X, resp)
        return near.maximize(resp.sum(axis=0), near.sufficient_statistics(X, resp))[0]


class TestVVE(StructureTests):
    kind = "VVE"


class TestVEI(StructureTests):
    kind = "VEI"


class TestEEV(StructureTests):
    kind = "EEV"


@pytest.mark.slow
class TestVEE(StructureTests):
    kind = "VEE"


@pytest.mark.slow
class TestEVV(StructureTests):
    kind = "EVV"


# -- fits ---------------------------------------------------------------------------------------


def elongated(n: int = 240) -> Array:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, [1, 3], (n // 2, 2)), rng.normal(9, [3, 1], (n // 2, 2))]
    return np.concatenate(parts)[rng.permutation(n)]


@pytest.mark.parametrize("kind", ["VEI", "EEV", "VEE", "EVE"])
def test_every_end_of_an_accelerated_fit_obeys_the_letters(kind: str) -> None:
    X = blobs(N, D, K, seed=2, apart=1.0)[0]
    model = GaussianMixture(K, covariance_type=kind, random_state=0, tol=1e-8, reg_covar=0.0).fit(X)
    state = model.state_
    # The parameters that were measured, which Anderson's steps may have made.
    volumes, shapes, _ = parts(covariances_of(state.mixture))
    assert (np.ptp(np.log(volumes)) < 1e-8) == (kind[0] == "E")
    assert (np.ptp(np.log(shapes), axis=0).max() < 1e-7) == (kind[1] == "E")


@pytest.mark.parametrize("kind", SCIKIT_LEARN)
def test_four_structures_are_scikit_learn_s_by_another_name(kind: str, tmp_path: Path) -> None:
    X = elongated()
    ours, theirs = (
        GaussianMixture(2, covariance_type=name, random_state=0).fit(X)
        for name in (kind, SCIKIT_LEARN[kind])
    )
    for name, array in theirs.state_.result.components.arrays().items():
        np.testing.assert_array_equal(ours.state_.result.components.arrays()[name], array)
    assert ours.get_params()["covariance_type"] == kind
    assert f"{kind} covariance" in ours.describe().structure
    ours.save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").covariance_type == kind
    again = ours.set_params(warm_start=True, covariance_type=SCIKIT_LEARN[kind]).fit(X)
    assert again.lower_bound_ >= theirs.lower_bound_ - 1e-9


def test_a_user_s_precisions_are_made_to_obey_the_structure() -> None:
    X = elongated()
    start: dict[str, Any] = {"means_init": [[0, 0], [9, 9]], "weights_init": [0.5, 0.5]}
    precisions = np.stack([np.diag([1.0, 9.0]), np.diag([4.0, 0.2])])
    model = GaussianMixture(
        2, covariance_type="EVE", precisions_init=precisions, max_iter=0, **start
    ).fit(X)
    volumes = np.linalg.det(model.covariances_)
    assert volumes[0] == pytest.approx(volumes[1])


def test_a_bound_on_eigenvalues_is_refused_where_it_would_break_the_structure() -> None:
    GaussianMixture(2, covariance_type="EEV", max_ratio=5).check_options()
    with pytest.raises(ValueError, match=r"max_ratio=5 with covariance_type='VEV'.* EEV"):
        GaussianMixture(2, covariance_type="VEV", max_ratio=5).fit(elongated())


@pytest.mark.parametrize("kind", ["EEI", "VEV", "VVE"])
def test_the_posterior_density_never_falls(kind: str) -> None:
    X = blobs(N, D, K, seed=2, apart=1.0)[0]
    model = GaussianMixture(
        K, covariance_type=kind, prior="conjugate", algorithm="em", init_params="random",
        random_state=0, max_iter=15, tol=0.0,
    ).fit(X)  # fmt: skip
    assert (np.diff(model.lower_bounds_) >= -1e-9).all()


@pytest.mark.parametrize("kind", ["VEI", "EVE", "VEV", "EVV"])
def test_student_t_takes_them_too(kind: str) -> None:
    X = blobs(N, D, K, seed=2, apart=1.0)[0]
    X = X + np.random.default_rng(1).standard_t(3, X.shape)
    model = StudentTMixture(
        K, covariance_type=kind, algorithm="em", init_params="random", random_state=0,
        max_iter=25, tol=0.0,
    ).fit(X)  # fmt: skip
    assert (np.diff(model.lower_bounds_) >= -1e-9).all()
    volumes = np.linalg.det(as_matrices(model.scales_))
    assert (np.ptp(volumes) < 1e-6 * volumes.max()) == (kind[0] == "E")


# -- sweeps --------------------------------------------------------------------------------------


def test_all_is_the_fourteen_and_none_is_below_one_nested_in_it() -> None:
    X = load_iris().data
    limits: dict[str, Any] = {"tol": 1e-6, "max_iter": 500, "n_init": 2}
    found = select(X, [1, 3], "all", random_state=0, exhaustive=True, **limits)
    assert [row["covariance_type"] for row in found.table[::2]] == list(NAMES)
    for k in (1, 3):
        table = {r["covariance_type"]: r for r in found.table if r["n_components"] == k}
        reached = {kind: row["log_likelihood"] * len(X) for kind, row in table.items()}
        for inner, outer in NESTED:
            assert reached[outer] >= reached[inner] - 1e-2
        if k == 3:
            # mclust's own search, from which its table of BIC is.
            assert reached["VEV"] >= -186.073 - 1e-2
            assert reached["EEE"] >= -256.354 - 1e-2
            assert all(row["n_parameters"] == IRIS[kind][2] for kind, row in table.items())
    best = min((r for r in found.table if r["status"] != "DEGENERATE"), key=lambda r: r["bic"])
    assert (found.best.covariance_type, found.best.n_components) == (
        best["covariance_type"], best["n_components"],
    )  # fmt: skip


def test_a_sweep_finds_the_structure_of_the_data() -> None:
    found = select(elongated(600), [1, 2], "all", random_state=0, n_init=1)
    assert (found.best.covariance_type, found.best.n_components) == ("EVI", 2)
    assert len(found.table) == 28


def test_a_shell_takes_all(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", elongated(), 100)
    words = ["fit", str(tmp_path / "x.zarr"), "-k", "2", "-o", str(tmp_path / "m.npz"), "--json"]
    done = CliRunner().invoke(main, [*words, "--covariance", "all", "--n-init", "1"])
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "m.npz").covariance_type == "EVI"
    told = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz")]).output
    assert "EVI covariance" in told
    wrong = CliRunner().invoke(main, [*words, "--covariance", "EVL"])
    assert wrong.exit_code == 2
    assert "VVV" in wrong.output
