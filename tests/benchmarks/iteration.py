"""Seconds of one EM iteration in memory, one thread, beside scikit-learn's.

    python tests/benchmarks/iteration.py [--save]

An iteration is an E-step with its sufficient statistics and an M-step. Both sides
start from the same parameters, take turns, and get the median of several rounds. The
separation of the components decides how many responsibilities are zero to rounding:
`sep` is the standard deviation of the means beside a component's own.
"""

from __future__ import annotations

import sys

from common import alternate, machine, save, table

# isort: split
import numpy as np
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

from dask_em.families import Gaussian
from dask_em.families.covariance import STRUCTURES
from dask_em.frame import Frame
from dask_em.mixture import Mixture

CASES = [
    (200_000, 32, 16, 0.3, "full"),
    (200_000, 32, 16, 1.0, "full"),
    (200_000, 32, 16, 3.0, "full"),
    (500_000, 8, 8, 1.0, "full"),
    (50_000, 100, 16, 1.0, "full"),
    (200_000, 32, 16, 1.0, "tied"),
    (200_000, 32, 16, 1.0, "diag"),
    (200_000, 32, 16, 1.0, "spherical"),
]
ROUNDS = 5


def start(kind: str, k: int, d: int) -> np.ndarray:
    """Unit precisions of scikit-learn's shape."""
    shapes = {
        "full": np.stack([np.eye(d)] * k),
        "tied": np.eye(d),
        "diag": np.ones((k, d)),
        "spherical": np.ones(k),
    }
    return shapes[kind]


def compare(n: int, d: int, k: int, sep: float, kind: str) -> tuple[float, float]:
    """Median seconds of an iteration, ours and scikit-learn's."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(k, d)) * sep
    X = rng.normal(size=(n, d)) + means[rng.integers(0, k, n)]
    weights, precisions = np.full(k, 1 / k), start(kind, k, d)

    structure = STRUCTURES[kind]
    frame = Frame.of_moments(X.mean(0), np.cov(X.T, bias=True), structure.frame_kind)
    covariance = structure.from_precisions(precisions)
    mixture = Mixture(
        np.log(weights), Gaussian.from_data_coordinates(means, covariance, frame, 1e-6)
    )

    def ours() -> None:
        fold = mixture.fold()
        fold.update(0, X, None)
        mixture.m_step(fold.result())

    peer = SklearnGaussianMixture(
        k,
        covariance_type=kind,
        weights_init=weights,
        means_init=means,
        precisions_init=precisions,
        max_iter=1,
        tol=0,
    )

    # `fit` makes one E-step and one M-step, and a last E-step for the labels, so an
    # iteration is half the difference between a fit of three and a fit of one.
    def fits(iterations: int) -> None:
        peer.set_params(max_iter=iterations).fit(X)

    seconds = alternate({"ours": ours, "one": lambda: fits(1), "three": lambda: fits(3)}, ROUNDS)
    return seconds["ours"], (seconds["three"] - seconds["one"]) / 2


def main() -> None:
    import warnings

    warnings.simplefilter("ignore")
    rows = []
    for n, d, k, sep, kind in CASES:
        ours, theirs = compare(n, d, k, sep, kind)
        flops = 2 * n * k * d * (d + 3) if kind == "full" else 0
        rate = f"{flops / ours / 1e9:.1f}" if flops else "-"
        ratio = f"{theirs / ours:.2f}"
        rows.append([f"{n}, {d}, {k}", sep, kind, f"{ours:.3f}", f"{theirs:.3f}", ratio, rate])
        print(*rows[-1], flush=True)
    header = ["n, d, k", "sep", "covariance", "ours, s", "scikit-learn, s", "ratio", "GFLOP/s"]
    text = (
        f"`python tests/benchmarks/iteration.py --save`; {machine('numpy', 'scikit-learn')}. "
        f"One thread, float64, in memory, median of {ROUNDS}, alternating. GFLOP/s counts the "
        "useful 2 n k d (d + 3).\n\n" + table(header, rows)
    )
    print("\n" + text)
    if "--save" in sys.argv:
        save("One iteration beside scikit-learn", text)


if __name__ == "__main__":
    main()
