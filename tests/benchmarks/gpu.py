"""The E-step on a GPU: its sums against the CPU's, its rates, and other libraries on the same card.

    python tests/benchmarks/gpu.py [--save] [--seconds 180] [--device cuda] [--rows 4000000]

It asks for nothing and ends within the seconds given (what did not fit is named). It needs CuPy
(`pip install 'dask-em[gpu]'`); tgmm and torchgmm take part where they are installed. Measured are

- the card: a square product in both precisions, a copy within its memory, and a copy to it;
- each case: the largest difference of the device's sums from those of the compiled CPU kernel, for
  each row of the largest component; seconds of an E-step of rows that lie in the process's memory,
  and with the rows on the card already; shares of the card's product rate (useful flops
  2 n k d (d + 3), as in the peers' table) and of its copy rate;
- the E-step of one case by the bytes that a block may take (`Tuning.device_kernel.bytes`);
- a whole fit, which must end with the CPU's log-likelihood.

`--device numpy` tries the program out where there is no GPU: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from common import alternate, machine, save, table

# isort: split
import numpy as np
from peers.worker import Case, data, unit_matrices

from dask_em import GaussianMixture
from dask_em.core.device import namespace
from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.core.tuning import tuning, use_tuning
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.whitening import Whitening

MIB = 2**20
# d, k and covariances; rows are `--rows` of 8 columns, and as many bytes of others.
SHAPES = [(8, 8, "full"), (32, 16, "full"), (64, 64, "full"), (200, 8, "full"), (32, 64, "diag")]
BLOCKS = [16, 64, 256, 1024]
ROUNDS = 3
# The most that a sum of the device may be off, for each row of the largest component.
ALLOWED = {"float64": 1e-10, "float32": 2e-4}


@dataclass
class Clock:
    """How much of the time is left."""

    seconds: float
    start: float

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.start)


class Card:
    """A device and what it can do at most."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.xp = namespace(device)
        self.is_gpu = device == "cuda"

    def wait(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.is_gpu:
            self.xp.cuda.Device().synchronize()

    def name(self) -> str:
        if not self.is_gpu:
            return "no GPU: NumPy in its place"
        found = self.xp.cuda.runtime.getDeviceProperties(self.xp.cuda.Device().id)
        total = self.xp.cuda.Device().mem_info[1]
        runtime = self.xp.cuda.runtime.runtimeGetVersion()
        return f"{found['name'].decode()}, {total / 2**30:.0f} GiB, CUDA {runtime}"

    def best(self, work: Callable[[], object]) -> float:
        """Seconds of the quickest of five calls, after a first."""
        work()
        self.wait()
        found = np.inf
        for _ in range(5):
            start = time.perf_counter()
            work()
            self.wait()
            found = min(found, time.perf_counter() - start)
        return float(found)

    def product(self, dtype: str) -> float:
        """Flops per second of a square product."""
        size = 8192 if self.is_gpu else 1024
        A = self.xp.asarray(np.random.default_rng(0).normal(size=(size, size)).astype(dtype))
        return 2 * size**3 / self.best(lambda: self.xp.matmul(A, A))

    def copy(self) -> float:
        """Bytes per second read and written by a copy within the memory of the device."""
        values = self.xp.asarray(np.zeros((1024 if self.is_gpu else 16) * MIB // 8))
        return 2 * values.nbytes / self.best(lambda: values + 0)

    def upload(self) -> float:
        """Bytes per second of a copy from the memory of the process to the device."""
        values = np.zeros((512 if self.is_gpu else 16) * MIB // 8)
        return values.nbytes / self.best(lambda: self.xp.asarray(values))


def start_of(case: Case, rows: Any) -> Mixture:
    """The mixture that all begin with: the means of the data, unit covariances."""
    structure = CONSTRAINTS[case.kind].storage
    frame = Whitening.of_moments(
        rows.X.mean(0), np.cov(rows.X.T, bias=True), structure.whitening_kind
    )
    covariance = structure.from_precisions(unit_matrices(case.kind, case.k, case.d))
    components = Gaussian.from_data_coordinates(rows.means, covariance, frame)
    return Mixture(np.log(rows.weights), components)


def sums(mixture: Mixture, X: Any) -> Any:
    """The sums of an E-step over rows."""
    fold = mixture.fold()
    fold.update(0, X, None)
    return fold.result()


def difference(one: Any, other: Any) -> float:
    """The largest difference of two sums a row: in standard deviations, their squares, and nats."""
    pairs = [
        (one.resp_sum, other.resp_sum),
        (one.components.first, other.components.first),
        (one.components.scatter, other.components.scatter),
        (one.log_likelihood, other.log_likelihood),
    ]
    rows = np.max(other.resp_sum)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max() / rows) for a, b in pairs)


@contextmanager
def on_card(card: Card) -> Iterator[None]:
    """Give the device's memory back afterwards."""
    yield
    if card.is_gpu:
        card.xp.get_default_memory_pool().free_all_blocks()


def measure(card: Card, case: Case, dtype: str, rates: dict[str, float]) -> list[str]:
    """One row of the table of cases."""
    rows = data(case)
    X = rows.X.astype(dtype)
    single = dtype == "float32"
    start = start_of(case, rows)
    cpu = replace(start, engine=Engine("numba" if find_spec("numba") else "numpy", single))
    gpu = replace(start, engine=Engine("numpy", single, card.device))
    resident = card.xp.asarray(X)
    # Rows on the device already: its kernel takes them as they come, in blocks.
    kernel = gpu.components.kernel(gpu.engine)

    def kernel_alone() -> None:
        for i in range(0, case.n, kernel.block_rows):
            part = resident[i : i + kernel.block_rows]
            kernel.load(part if card.is_gpu else np.asarray(part))
            resp, _ = kernel.arithmetic(gpu.engine, case.k).normalize(
                kernel.log_prob(), gpu.log_weights
            )
            kernel.accumulate(resp)
        card.wait()

    off = difference(sums(gpu, X), sums(cpu, X))
    if not off <= ALLOWED[dtype]:
        raise SystemExit(f"{case.name}, {dtype}: sums are {off:.1g} off, allowed {ALLOWED[dtype]}")
    contestants = {
        "card": lambda: sums(gpu, X),
        "on the card": kernel_alone,
        "CPU": lambda: sums(cpu, X),
    }
    seconds = alternate(contestants, ROUNDS)
    flops = 2.0 * case.n * case.k * case.d * (case.d + 3) if case.kind == "full" else np.nan
    share = flops / seconds["on the card"] / rates[dtype]
    return [
        f"{case.n:,}, {case.d}, {case.k}",
        case.kind,
        dtype,
        f"{off:.1g}",
        f"{case.n / seconds['card'] / 1e6:,.1f}",
        f"{case.n / seconds['on the card'] / 1e6:,.1f}",
        f"{case.n / seconds['CPU'] / 1e6:,.1f}",
        f"x{seconds['CPU'] / seconds['card']:.1f}",
        "-" if np.isnan(share) else f"{share:.0%}",
        f"{X.nbytes / seconds['on the card'] / rates['copy']:.0%}",
        f"{X.nbytes / seconds['card'] / rates['upload']:.0%}",
    ]


HEAD = [
    "n, d, k",
    "covariance",
    "type",
    "sums off by",
    "M rows/s",
    "M rows/s, rows on the card",
    "M rows/s, one core",
    "times one core",
    "of the card's product",
    "of its copy",
    "of the copy to it",
]


def by_blocks(card: Card, case: Case) -> str:
    """Rows per second of an E-step by the bytes of a block, and the rows of a block."""
    rows = data(case)
    X = rows.X.astype("float32")
    gpu = replace(start_of(case, rows), engine=Engine("numpy", True, card.device))
    found = []
    for mib in BLOCKS:
        with use_tuning(tuning().with_changes(device_kernel={"bytes": mib * MIB})), on_card(card):
            seconds = alternate({"card": lambda: sums(gpu, X)}, ROUNDS)["card"]
            block = gpu.components.kernel(gpu.engine).block_rows
        found.append([mib, f"{block:,}", f"{case.n / seconds / 1e6:,.1f}"])
    return table(["MiB of a block", "its rows", "M rows/s"], found)


def tgmm(case: Case, device: str) -> Callable[[int], object]:
    """EM of tgmm from the same start, with rows on the device."""
    import torch
    from tgmm import GaussianMixture as Peer

    rows = data(case)
    X = torch.asarray(rows.X.astype("float32")).to(device)
    means = torch.asarray(rows.means.astype("float32")).to(device)
    weights = torch.asarray(rows.weights.astype("float32")).to(device)
    unit = torch.asarray(unit_matrices(case.kind, case.k, case.d).astype("float32")).to(device)

    def run(iterations: int) -> object:
        model = Peer(
            case.k, case.d, case.kind, max_iter=iterations, tol=1e-30, init_means=means,
            init_weights=weights, init_covariances=unit, device=device,
        )  # fmt: skip
        model.fit(X)
        if device == "cuda":
            torch.cuda.synchronize()
        return model.n_iter_

    return run


def torchgmm(case: Case, device: str) -> Callable[[int], object]:
    """EM of torchgmm from the same means; it takes unit covariances where means are given."""
    import logging

    import torch
    from torchgmm.bayes import GaussianMixture as Peer

    # It greets at every fit.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = data(case)
    X = torch.asarray(rows.X.astype("float32"))
    means = torch.asarray(rows.means.astype("float32"))

    def run(iterations: int) -> object:
        trainer = {
            "max_epochs": iterations, "accelerator": "gpu" if device == "cuda" else "cpu",
            "devices": 1, "enable_progress_bar": False,
        }  # fmt: skip
        peer = Peer(
            case.k, covariance_type=case.kind, init_means=means, convergence_tolerance=0.0,
            trainer_params=trainer,
        )  # fmt: skip
        return peer.fit(X).num_iter_

    return run


PEERS: dict[str, Callable[[Case, str], Callable[[int], object]]] = {
    "tgmm": tgmm,
    "torchgmm": torchgmm,
}


def beside_peers(card: Card, case: Case) -> str:
    """Seconds of an iteration of each: half of the difference of fits of three and of one."""
    rows = data(case)
    X = rows.X.astype("float32")
    gpu = replace(start_of(case, rows), engine=Engine("numpy", True, card.device))

    def ours(iterations: int) -> None:
        mixture = gpu
        for _ in range(iterations):
            mixture, _ = mixture.m_step(sums(mixture, X))

    found: list[list[object]] = []
    mine = per_iteration(ours)
    found.append(["ours", version("dask-em"), f"{mine:.4f}", ""])
    for name, make in PEERS.items():
        if find_spec(name) is None:
            found.append([name, "not installed", "-", "-"])
            continue
        try:
            seconds = per_iteration(make(case, "cuda" if card.is_gpu else "cpu"))
        except Exception as error:  # a peer's own, which must not end the rest
            found.append([name, version(name), f"{type(error).__name__}: {error}"[:80], "-"])
            continue
        found.append([name, version(name), f"{seconds:.4f}", f"x{seconds / mine:.1f}"])
    return table(["", "version", "s an iteration", "times ours"], found)


def per_iteration(run: Callable[[int], object]) -> float:
    """Seconds of one iteration."""
    run(1)
    seconds = alternate({"few": lambda: run(1), "many": lambda: run(3)}, ROUNDS)
    return (seconds["many"] - seconds["few"]) / 2


def whole_fit(card: Card, n: int) -> str:
    """Fit on the card and on the CPU: the same objective, and the seconds of both."""
    X = data(Case(n, 8, 8, 2.0, "full")).X.astype("float32")
    found, values = [], []
    for name, device in (("CPU", "cpu"), ("card", card.device)):
        start = time.perf_counter()
        model = GaussianMixture(8, random_state=0, device=device).fit(X)
        seconds = time.perf_counter() - start
        values.append(model.lower_bound_)
        found.append([name, f"{seconds:.2f}", f"{model.n_passes_:.2f}", f"{values[-1]:.9f}"])
    if abs(values[0] - values[1]) > 1e-5:
        raise SystemExit(f"the fits end apart: {values[0]} on the CPU, {values[1]} on the card")
    return table(["where", "s", "passes", "nats per row"], found)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help="write the section of RESULTS.md")
    parser.add_argument("--seconds", type=float, default=180.0, help="what it may take")
    parser.add_argument("--device", choices=["cuda", "numpy"], default="cuda")
    parser.add_argument("--rows", type=int, default=4_000_000, help="rows of 8 columns")
    options = parser.parse_args(arguments)
    if options.save and options.device != "cuda":
        parser.error("--save with --device numpy: without a GPU there is no result to keep")
    clock = Clock(options.seconds, time.perf_counter())
    card = Card("cuda" if options.device == "cuda" else np)
    rates = {dtype: card.product(dtype) for dtype in ("float32", "float64")}
    rates |= {"copy": card.copy(), "upload": card.upload()}
    texts = [
        f"`python tests/benchmarks/gpu.py --save`; {machine('numpy', 'numba', 'cupy-cuda12x')}. "
        f"{card.name()}. Square products: {rates['float32'] / 1e12:.2f} TFLOP/s in float32, "
        f"{rates['float64'] / 1e12:.2f} in float64; a copy within the card "
        f"{rates['copy'] / 1e9:,.0f} GB/s, to it {rates['upload'] / 1e9:.1f} GB/s. "
        f"Medians of {ROUNDS}, alternating."
    ]
    print(texts[0], flush=True)
    lines, left = [], []
    for d, k, kind in SHAPES:
        for dtype in ("float32", "float64"):
            case = Case(max(options.rows * 8 // d // max(k // 8, 1), 1000), d, k, 2.0, kind)
            # The first cases tell how long one takes: what would go beyond is left, and named.
            if clock.left() < options.seconds / 3:
                left.append(f"{case.name} {dtype}")
                continue
            with on_card(card):
                lines.append(measure(card, case, dtype, rates))
            print(*lines[-1], flush=True)
    texts.append(table(HEAD, lines))
    case = Case(max(options.rows // 4, 1000), 32, 16, 2.0, "full")
    parts: dict[str, Callable[[], str]] = {
        "One float32 iteration at " + case.name: lambda: beside_peers(card, case),
        "By the bytes of a block, " + case.name: lambda: by_blocks(card, case),
        "A whole fit": lambda: whole_fit(card, max(options.rows // 2, 1000)),
    }
    for title, part in parts.items():
        if clock.left() < 0:
            left.append(title)
            continue
        with on_card(card):
            texts.append(f"{title}:\n\n{part()}")
        print(texts[-1], flush=True)
    if left:
        texts.append(f"Left out, for the {options.seconds:g} s were over: {'; '.join(left)}.")
    whole = "\n\n".join(texts)
    print("\n" + whole)
    if options.save:
        save("On a GPU", whole)


if __name__ == "__main__":
    sys.exit(main())
