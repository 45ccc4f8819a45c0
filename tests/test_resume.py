"""A fit that is killed at any instant and started again ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import FORKED, HANG, Tune, blobs, digest, kill_when, start, wait_until, write_zarr
from hypothesis import given
from hypothesis import strategies as st
from test_family_table import FAMILIES

from dask_em import (
    CategoricalMixture,
    Checkpointing,
    GaussianMixture,
    KMeans,
    load,
    select,
)
from dask_em.backends.dask import backend as dask_backend
from dask_em.backends.dask.backend import DaskBackend
from dask_em.cli.main import main
from dask_em.core import reading
from dask_em.core.additive import Additive
from dask_em.core.codec import Packer, record, unpack
from dask_em.core.em import Convergence, EMState, PlainEM
from dask_em.core.engine import NUMPY
from dask_em.core.partial_sums import PartialTree, partial_depth
from dask_em.core.protocols import Fold, Pass
from dask_em.core.reduction import (
    Node,
    add_tree,
    tree_levels,
)
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.open import as_source
from dask_em.errors import DataError, ModelFileError, UsageError
from dask_em.estimators.base import MixtureEstimator
from dask_em.fitting.control_variate import ControlVariateEM
from dask_em.storage import npz as checkpoint
from dask_em.storage.checkpoint import KIND
from dask_em.storage.npz import read_arrays

X = blobs(4000, 3, 3, apart=1.2)[0]
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, len(X))
OPTIONS: dict[str, Any] = {
    "n_components": 3, "random_state": 0, "tol": 1e-9, "max_iter": 7, "sample_size": 300
}  # fmt: skip

pytestmark = [
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class StoppedError(Exception):
    """What ends a fit in these tests."""


@dataclass
class StopAfter:
    """A callback that ends a fit after so many passes."""

    passes: int

    def __call__(self, state: EMState) -> None:
        self.passes -= 1
        if self.passes == 0:
            raise StoppedError


def fit(data: Any = X, weights: Any = None, stop_after: int = 0, **options: Any) -> Any:
    model = GaussianMixture(**{**OPTIONS, **options}, callbacks=[StopAfter(stop_after)])
    return model.fit(data, sample_weight=weights)


@pytest.fixture(scope="module")
def undisturbed(many_chunks: None) -> Any:
    """The fit that is not stopped."""
    with dask.config.set(scheduler="synchronous"):
        return fit()


def stopped(folder: Any, data: Any = X, weights: Any = None, after: int = 1, **options: Any) -> int:
    """Stop a fit again and again after so many passes, until it ends; how often it was begun."""
    begun = 1
    while True:
        try:
            fit(data, weights, after, checkpoint=folder, **options)
        except StoppedError:
            begun += 1
        else:
            return begun


def assert_same(model: Any, other: Any) -> None:
    assert digest(model) == digest(other)
    for name in ("lower_bounds_", "n_iter_", "n_passes_", "status_", "n_dropped_"):
        assert getattr(model, name) == getattr(other, name), name
    accepted = [[record.get("accepted") for record in m.history_] for m in (model, other)]
    assert accepted[0] == accepted[1]


CASES: dict[str, dict[str, Any]] = {
    "auto": {},
    "em": {"algorithm": "em"},
    "tied": {"covariance_type": "tied"},
    "diag": {"covariance_type": "diag", "init_params": "kmeans"},
    "weights": {"weights": WEIGHTS},
    "float32": {"data": X.astype(np.float32)},
    "inits": start("full", X[:3]),
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_after_every_pass_is_not_stopped_at_all(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    straight = fit(**options)
    begun = stopped(tmp_path / "c", **options)
    assert begun == straight.n_iter_ + 1 > 3
    # The last state was kept, too, so nothing is left to do.
    assert_same(fit(**options, checkpoint=tmp_path / "c"), straight)


def test_rejected_passes_count_too(tmp_path: Path) -> None:
    """Where steps are rejected, how the algorithm goes on depends on them."""
    options = {"n_components": 6, "max_iter": 14, "sample_size": 60}
    straight = fit(**options)
    assert any(not record.get("accepted", True) for record in straight.history_)
    stopped(tmp_path / "c", **options)
    assert_same(fit(**options, checkpoint=tmp_path / "c"), straight)


def test_zarr_weights_and_dropped_rows(tmp_path: Path) -> None:
    rows = X.copy()
    rows[[5, 1234, 3999], 1] = np.nan
    data = write_zarr(tmp_path / "x.zarr", rows, 500)
    weights = write_zarr(tmp_path / "w.zarr", WEIGHTS, 500)
    options: dict[str, Any] = {"data": data, "weights": weights, "nonfinite": "drop"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        straight = fit(**options)
        stopped(tmp_path / "c", **options)
        assert_same(fit(**options, checkpoint=tmp_path / "c"), straight)
    assert straight.n_dropped_ == 3


def test_a_seed_that_nobody_gave_is_kept(tmp_path: Path) -> None:
    np.random.seed(5)
    straight = fit(random_state=None)
    np.random.seed(5)
    with pytest.raises(StoppedError):
        fit(random_state=None, stop_after=2, checkpoint=tmp_path / "c")
    assert_same(fit(random_state=None, checkpoint=tmp_path / "c"), straight)


def test_the_end_is_not_read_again(tmp_path: Path) -> None:
    data = write_zarr(tmp_path / "x.zarr", X, 500)
    done = fit(data, checkpoint=tmp_path / "c")
    for chunk in (tmp_path / "x.zarr").rglob("c/*/*"):
        chunk.write_bytes(b"")
    assert_same(fit(data, checkpoint=tmp_path / "c"), done)


# -- records -----------------------------------------------------------------------------


def test_what_is_packed_comes_back_to_the_bit() -> None:
    values = [
        1, 0.1, float("inf"), None, True, "a", (1, (2.5,)), [], {"b": np.float64(0.3)},
        np.float32(0.1), np.asfortranarray(X[:7]), X[:0], fit(max_iter=1).state_,
    ]  # fmt: skip
    packer = Packer()
    packed = packer.pack(values)
    found = unpack(packed, packer.arrays, NUMPY)
    again = Packer()
    assert again.pack(found) == packed
    for name, array in packer.arrays.items():
        assert again.arrays[name].tobytes("A") == array.tobytes("A")
    assert [type(v) for v in found] == [type(v) for v in values]


@pytest.mark.parametrize(
    "hostile",
    [
        {"record": "Path", "version": 1, "fields": {}},
        {"record": "EMState", "version": 1, "fields": {}},
        {"enum": "Path", "member": "x"},
        {"call": "os.system"},
        {"scalar": ["O", "x"]},
        {"scalar": [None, 1.0]},
        {"array": "nowhere"},
        {"list": 5},
        {},
        [1],
    ],
    ids=str,
)
def test_nothing_but_records_is_made_of_a_file(hostile: Any) -> None:
    with pytest.raises(ValueError, match=r"kind '(Path|EMState)'|no packed value|no number|array"):
        unpack(hostile, {}, NUMPY)


def test_only_records_are_packed() -> None:
    with pytest.raises(TypeError, match="Path is not a record"):
        Packer().pack(Path())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda packed: packed.update(version=2), "a 'em-state' of version 2, .* reads version 1"),
        (lambda packed: packed.update(record="em-state-2"), "kind 'em-state-2'"),
        (lambda packed: packed["fields"].pop("n_iter"), "'em-state' lacks, .* n_iter"),
        (lambda packed: packed["fields"].update(more=1), "'em-state' .*should not have, more"),
        (lambda packed: packed["fields"].update(n_iter="3"), "n_iter of a 'em-state' is '3'"),
        (lambda packed: packed["fields"].update(n_iter=True), "n_iter of a 'em-state' is True"),
        (lambda packed: packed["fields"].update(mixture=None), "mixture of a 'em-state' is None"),
        (lambda packed: packed["fields"].update(collapsed={"tuple": ["a"]}), "collapsed of a"),
    ],
)
def test_a_record_of_other_code_is_refused_by_name(
    change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    packer = Packer()
    packed = packer.pack(fit(max_iter=1).state_)
    change(packed)
    with pytest.raises(ValueError, match=named):
        unpack(packed, packer.arrays)


def test_two_records_do_not_share_a_tag() -> None:
    with pytest.raises(ValueError, match=r"tag 'em-state' of .*Chunks: dask_em.core.em.EMState"):
        record("em-state")(Chunks)


def test_a_state_of_another_algorithm_is_refused_by_name() -> None:
    state = fit(max_iter=1).state_
    limits = Convergence()
    plain, accelerated = PlainEM(state, limits), ControlVariateEM(state, limits)
    with pytest.raises(ModelFileError, match=r"'control-variate-state', .*'plain-em-state'"):
        plain.load_state_dict(accelerated.state_dict())
    with pytest.raises(ModelFileError, match=r"'plain-em-state', .*'control-variate-state'"):
        accelerated.load_state_dict(plain.state_dict())


# -- damage ------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of a fit that was stopped after three passes."""
    folder = tmp_path / "kept"
    with pytest.raises(StoppedError):
        fit(stop_after=3, checkpoint=folder)
    assert names(folder) == ["pass-000002.npz", "pass-000003.npz", "survey.npz"]
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_truncated_anywhere_is_refused(kept: Path, every: int) -> None:
    file = kept / "pass-000003.npz"
    whole = file.read_bytes()
    # Where the archive's own records are, at the end, everywhere.
    for length in [*range(0, len(whole) - 500, every), *range(len(whole) - 500, len(whole))]:
        os.truncate(file, length) if length == 0 else file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            read_arrays(file, KIND)


def test_every_flipped_bit_is_found(kept: Path) -> None:
    file = kept / "pass-000003.npz"
    whole = file.read_bytes()
    read_arrays(file, KIND)
    rng = random.Random(0)
    for _ in range(1000):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"pass-000003\.npz"):
            read_arrays(file, KIND)


def test_every_bit_of_a_file_s_end_counts(kept: Path) -> None:
    """Where the archive's own records, and the checksum itself, are."""
    file = kept / "pass-000003.npz"
    whole = file.read_bytes()
    for place in range(len(whole) - 110, len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(ModelFileError):
                read_arrays(file, KIND)


@pytest.mark.parametrize("cut", [0, 1, 1000, -1])
def test_the_one_before_a_damaged_one_is_used(
    kept: Path, cut: int, undisturbed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    newest = kept / "pass-000003.npz"
    newest.write_bytes(newest.read_bytes()[:cut])
    assert_same(fit(checkpoint=kept), undisturbed)
    assert "pass-000003.npz" in caplog.text
    assert "going on with the one before it" in caplog.text


def test_without_a_whole_one_nothing_is_guessed(kept: Path, undisturbed: Any) -> None:
    for file in kept.glob("pass-*"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="resume=False"):
        fit(checkpoint=kept)
    assert_same(fit(checkpoint=Checkpointing(kept, resume=False)), undisturbed)


def test_a_damaged_survey_is_made_again(
    kept: Path, undisturbed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (kept / "survey.npz").write_bytes(b"nothing")
    assert_same(fit(checkpoint=kept), undisturbed)
    assert "the survey is made again" in caplog.text
    other = kept.with_name("other")
    with pytest.raises(StoppedError):
        fit(stop_after=1, checkpoint=other)
    (other / "survey.npz").unlink()
    with pytest.raises(DataError, match="contents was"):
        fit(X + 1, checkpoint=other)


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a file, and give it a right checksum."""
    with np.load(file) as archive:
        contents = dict(archive)
    header = json.loads(contents["header"].tobytes())
    change(header)
    contents["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with file.open("w+b") as opened:
        np.savez(opened, **contents)
        checkpoint._seal(opened)


def older(header: dict[str, Any]) -> None:
    """Make it a header of dask_em 0.1.0."""
    header["format_version"] = 2
    del header["dask_em"]


def of_other_code(header: dict[str, Any]) -> None:
    """Give the algorithm's state another version."""
    (candidate,) = header["content"]["fields"]["candidates"]["list"]
    candidate["fields"]["algorithm"]["version"] = 7


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (older, r"format version 2, written, and .* reads version 3: .*resume=False"),
        (of_other_code, r"pass-000003\.npz.*'control-variate-state' of version 7.*resume=False"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_not_passed_over(
    kept: Path, change: Callable[[dict[str, Any]], None], named: str, undisturbed: Any
) -> None:
    rewritten(kept / "pass-000003.npz", change)
    (kept / "kept.npz").write_bytes(b"the partial sums of dask_em 0.1.0")
    with pytest.raises(ModelFileError, match=named):
        fit(checkpoint=kept)
    assert_same(fit(checkpoint=Checkpointing(kept, resume=False)), undisturbed)
    assert "kept.npz" not in names(kept)


def test_a_file_that_claims_to_be_huge_takes_no_memory(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    file = tmp_path / "huge.npz"
    with sealed(file, zipfile.ZIP_STORED) as archive:
        archive.writestr("header.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little"))
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(800))
    with pytest.raises(ModelFileError):
        load(file)
    with sealed(file, zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**6))
    with pytest.raises(ModelFileError, match="compressed"):
        load(file)


@contextmanager
def sealed(path: Path, compression: int) -> Iterator[zipfile.ZipFile]:
    """An archive of anything that ends with a right checksum."""
    with path.open("w+b") as file:
        with zipfile.ZipFile(file, "w", compression) as archive:
            yield archive
        checkpoint._seal(file)


# -- other fits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tol": 1e-3}, "tol=1e-09, and this one is of tol=0.001"),
        ({"n_components": 4}, "n_components=3"),
        ({"random_state": 1}, "random_state=0"),
        ({"means_init": X[:3]}, "means_init=None"),
        ({"algorithm": "em"}, "algorithm='auto'"),
    ],
)
def test_other_options_are_refused(kept: Path, options: dict[str, Any], named: str) -> None:
    before = {file.name: file.read_bytes() for file in kept.iterdir()}
    with pytest.raises(UsageError, match=named) as refusal:
        fit(checkpoint=Checkpointing(kept, force=True), **options)
    assert "resume=False" in str(refusal.value)
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before
    straight = fit(**options)
    assert_same(fit(checkpoint=Checkpointing(kept, resume=False), **options), straight)


def test_another_engine_is_refused(kept: Path) -> None:
    with dask.config.set({"dask_em.float32": False, "dask_em.fast": False}):
        straight = fit()
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    # So few rows are fitted without Numba, unless it is asked for.
    with dask.config.set({"dask_em.fast": True}):
        with pytest.raises(UsageError, match="engine='numpy'"):
            fit(checkpoint=kept)
        assert straight.n_iter_ == fit().n_iter_


@pytest.mark.parametrize(
    ("data", "weights", "named", "forced"),
    [
        (X + 1e-3, None, "contents", True),
        (X, WEIGHTS, "contents", True),
        (X[:-1], None, "shape", False),
        (X.astype(np.float32), None, "dtype|float32", False),
    ],
)
def test_other_data_are_refused(
    kept: Path, data: np.ndarray, weights: Any, named: str, forced: bool
) -> None:
    with pytest.raises((DataError, UsageError), match=named):
        fit(data, weights, checkpoint=kept)
    force = Checkpointing(kept, force=True)
    if forced:
        assert fit(data, weights, checkpoint=force).n_iter_ == OPTIONS["max_iter"]
    else:
        with pytest.raises((DataError, UsageError), match=named):
            fit(data, weights, checkpoint=force)


def test_stored_data_that_changed_are_found(tmp_path: Path) -> None:
    path, folder = tmp_path / "x.zarr", tmp_path / "c"
    write_zarr(path, X, 500)
    with pytest.raises(StoppedError):
        fit(path, stop_after=2, checkpoint=folder)
    moved = path.rename(tmp_path / "moved.zarr")
    with pytest.raises(DataError, match=r"source was .*x\.zarr.*force=True"):
        fit(moved, checkpoint=folder)
    moved.rename(path)
    changed = X.copy()
    changed[3500] += 1
    write_zarr(path, changed, 500, overwrite=True)
    with pytest.raises(DataError, match="changed since the first pass"):
        fit(path, checkpoint=folder)
    assert fit(path, checkpoint=Checkpointing(folder, force=True)).n_iter_ == OPTIONS["max_iter"]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    with pytest.raises(UsageError, match="precious"):
        fit(checkpoint=Checkpointing(tmp_path, resume=False))
    with pytest.raises(UsageError, match="expected a folder"):
        fit(checkpoint=tmp_path / "precious")
    with pytest.raises(UsageError, match="expected a folder"):
        fit(checkpoint=tmp_path / "not" / "there")
    with pytest.raises(ValueError, match="checkpoint=3"):
        fit(checkpoint=3)
    with pytest.raises(ValueError, match="checkpoint=3"):
        select(X, [2, 3], checkpoint=3)
    assert names(tmp_path) == ["precious"]


# -- within a pass -----------------------------------------------------------------------


@given(st.data())
def test_parts_of_a_tree_make_the_bits_of_the_tree(data: st.DataObject) -> None:
    n, fan_in = data.draw(st.integers(1, 70)), data.draw(st.integers(2, 8))
    parts = np.random.default_rng(n).normal(size=n) * 10.0 ** (np.arange(n) % 20)
    nodes: dict[Node, float] = {(0, j): float(parts[j]) for j in range(n)}
    for depth, level in enumerate(tree_levels(n, fan_in)):
        for j, group in enumerate(level):
            total = nodes[depth, group[0]]
            for i in group[1:]:
                total = total + nodes[depth, i]
            nodes[depth + 1, j] = total
    tree: PartialTree[float] = PartialTree(n, fan_in)
    for node in data.draw(st.lists(st.sampled_from(list(nodes)), max_size=40)):
        tree.put(node, nodes[node])
        known = [*tree.sums, *tree.missing()]
        covered = sorted(j for m in known for j in leaves_below(m, n, fan_in))
        assert covered == list(range(n))
        assert all(tree.sums[m] == nodes[m] for m in tree.sums)
    for node in tree.missing():
        tree.put(node, nodes[node])
    assert tree.sums == {tree.root: add_tree(parts.tolist(), fan_in)}


def leaves_below(node: Node, n: int, fan_in: int) -> range:
    width = fan_in ** node[0]
    return range(node[1] * width, min((node[1] + 1) * width, n))


@given(st.integers(1, 1024), st.integers(2, 8), st.integers(1, 2**30))
def test_what_is_kept_of_a_pass_is_bounded(n: int, fan_in: int, nbytes: int) -> None:
    counts = [n, *(len(level) for level in tree_levels(n, fan_in))]
    depth = partial_depth(n, fan_in, nbytes)
    assert counts[depth] * nbytes <= max(
        tuning().reduction.partial_bytes, tuning().reduction.partial_few * nbytes
    )
    assert all(
        c * nbytes > tuning().reduction.partial_bytes and c > tuning().reduction.partial_few
        for c in counts[:depth]
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """A function that says after how many ranges to stop, and returns what is read then."""
    whole = reading.fold_range
    read: list[int] = []
    limit = [10**9]

    def fold_range(source: Any, fold: Any, chunks: range, *beside: Any) -> Any:
        if len(read) == limit[0]:
            raise StoppedError
        read.append(chunks.start)
        return whole(source, fold, chunks, *beside)

    def until(ranges: int) -> list[int]:
        read.clear()
        limit[0] = ranges
        return read

    monkeypatch.setattr(dask_backend, "fold_range", fold_range)
    return until


@pytest.mark.parametrize(
    ("passes", "algorithm", "done"),
    [
        *[(1, "em", done) for done in (0, 5)],
        (3, "auto", 11),
        *[
            pytest.param(passes, algorithm, done, marks=pytest.mark.slow)
            for passes, algorithm in ((0, "em"), (1, "em"), (3, "auto"))
            for done in (0, 1, 5, 11)
        ],
    ],
)
def test_a_pass_goes_on_where_it_was_killed(
    done: int, passes: int, algorithm: str, counted: Callable[[int], list[int]], tmp_path: Path
) -> None:
    data = write_zarr(tmp_path / "x.zarr", X, 333)
    read = counted(10**9)
    straight = fit(data, algorithm=algorithm)
    in_a_pass = len(read) // (straight.n_iter_ + 1)
    assert in_a_pass == len(as_source(data).ranges()) == 13
    keep = Checkpointing(tmp_path / "c", interval=0.0)
    counted(passes * in_a_pass + done)
    with pytest.raises(StoppedError):
        fit(data, checkpoint=keep, algorithm=algorithm)
    left = counted(10**9)
    assert_same(fit(data, checkpoint=keep, algorithm=algorithm), straight)
    assert len(left) == (straight.n_iter_ + 1 - passes) * in_a_pass - done
    assert names(tmp_path / "c") == ["pass-000006.npz", "pass-000007.npz", "survey.npz"]


def test_what_is_kept_of_another_pass_is_not_used(
    counted: Callable[[int], list[int]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_zarr(tmp_path / "x.zarr", X, 333)
    keep = Checkpointing(tmp_path / "c", interval=0.0)
    counted(2 * 13 + 6)
    with pytest.raises(StoppedError):
        fit(data, checkpoint=keep)
    kept = (tmp_path / "c" / "partial-sums.npz").read_bytes()
    counted(1 + 13)
    with pytest.raises(StoppedError):
        fit(data, checkpoint=keep)
    (tmp_path / "c" / "partial-sums.npz").write_bytes(kept)
    counted(10**9)
    straight = fit(data)
    assert_same(fit(data, checkpoint=keep), straight)
    for damaged in (b"", kept[:-1]):
        (tmp_path / "c" / "partial-sums.npz").write_bytes(damaged)
        (tmp_path / "c" / "pass-000007.npz").unlink()
        assert_same(fit(data, checkpoint=keep), straight)
        assert "the pass is made again" in caplog.text


@dataclass(frozen=True)
class Chunks(Additive):
    """Numbers of chunks, in the order in which they were added."""

    total: float
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class LastWaits(Pass[Chunks]):
    """A pass whose last chunk waits for a file, and which leaves a file for each chunk."""

    last: int
    gate: Path
    seen: Path

    def fold(self) -> Any:
        return LastWaitsFold(self)


class LastWaitsFold(Fold[Chunks]):
    def __init__(self, work: LastWaits) -> None:
        self.work, self.found = work, Chunks(0.0, ())

    def update(self, index: int, X: np.ndarray, sample_weight: Any) -> None:
        if index == self.work.last:
            wait_until(self.work.gate.exists)
        (self.work.seen / str(index)).touch()
        self.found += Chunks(float(X.sum()), (index,))

    def result(self) -> Chunks:
        return self.found


class Memory:
    """Keeps sums in memory, and opens the gate when it knows all but a few."""

    def __init__(self, gate: Path, nodes: Mapping[Node, Any]) -> None:
        self.gate, self.nodes = gate, nodes

    def recall(self) -> Mapping[Node, Any]:
        return self.nodes

    def due(self) -> bool:
        return True

    def keep(self, sums: Mapping[Node, Any]) -> None:
        self.nodes = dict(sums)
        if sum(len(s.numbers) for s in sums.values()) >= 12:
            self.gate.touch()


def test_a_cluster_hands_over_what_is_done(client: Client, tmp_path: Path) -> None:
    source = as_source(write_zarr(tmp_path / "x.zarr", X, 333))
    gate, seen = tmp_path / "gate", tmp_path / "seen"
    seen.mkdir()
    work = LastWaits(source.n_chunks - 1, gate, seen)
    kept = Memory(gate, {})
    with dask.config.set(scheduler=client):
        total = DaskBackend().map_reduce(source, work, lambda n: None, kept)
        assert total == DaskBackend().map_reduce(source, work)
        assert total.numbers == tuple(range(13))
        # As if the client had been killed before the last chunk was done.
        known = {j for sums in kept.nodes.values() for j in sums.numbers}
        assert known >= set(range(12))
        some = {node: s for node, s in kept.nodes.items() if node[0] == 1}
        left = set(range(13)) - {j for s in some.values() for j in s.numbers}
        for file in seen.iterdir():
            file.unlink()
        rows: list[int] = []
        again = DaskBackend().map_reduce(source, work, rows.append, Memory(gate, some))
        assert again == total
        assert {int(file.name) for file in seen.iterdir()} == left
        assert 0 < len(left) < 13
        assert sum(rows) == len(X)


# -- the program -------------------------------------------------------------------------

KILLED = (
    FORKED
    + """
# Kill `dask-em fit` at every step of what it does to files; see that it goes on from there.
import signal
data, folder, first, stride = sys.argv[1:]
output = Path(folder, "m.npz")

def run(kill_at):
    calls = [0]
    def dying(function):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    def prepare():
        for name in ("fsync", "link", "replace", "unlink", "rmdir", "chmod"):
            setattr(os, name, dying(getattr(os, name)))
        sys.stderr = sys.stdout = open(os.devnull, "w")
    return fit(data, output, "--max-iter", "2", prepare=prepare)

assert run(0) == 0
straight = parameters(output)
output.unlink()
kill_at = int(first) - int(stride)
while True:
    kill_at += int(stride)
    code = run(kill_at)
    if code == 0:
        break
    assert code == -signal.SIGKILL, code
    code = run(0)
    assert code == 0, (kill_at, code)
    assert parameters(output) == straight, kill_at
    assert os.listdir(folder) == ["m.npz"], (kill_at, os.listdir(folder))
    output.unlink()
print(kill_at)
"""
)


@pytest.mark.parametrize(("first", "stride"), [(1, 29), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_killed_at_every_step_of_a_commit(first: int, stride: int, tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", X[:900], 300)
    (tmp_path / "out").mkdir()
    (tmp_path / "killed.py").write_text(KILLED)
    command: list[Any] = [
        sys.executable,
        tmp_path / "killed.py",
        tmp_path / "x.zarr",
        tmp_path / "out",
    ]
    command += [str(first), str(stride)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 40


KILLED_FAMILIES: dict[str, tuple[Callable[[], Any], type[MixtureEstimator], dict[str, Any]]] = {
    "categorical": (
        FAMILIES["categorical"].rows, CategoricalMixture,
        {"algorithm": "em", "init_params": "random_from_data"},
    ),
    "kmeans": (lambda: X, KMeans, {"algorithm": "lloyd", "init": "random"}),
}  # fmt: skip


@pytest.mark.parametrize("family", ["categorical", pytest.param("kmeans", marks=pytest.mark.slow)])
def test_the_program_goes_on_with_another_family(family: str, tmp_path: Path) -> None:
    rows, make, options = KILLED_FAMILIES[family]
    write_zarr(tmp_path / "x.zarr", rows(), 300)
    command = [
        "fit", str(tmp_path / "x.zarr"), "-k", "4", "-o", str(tmp_path / "m.npz"), "--tol", "0",
        "--max-iter", "30", "--family", family,
    ]  # fmt: skip
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    kill_when("em pass 2", [sys.executable, "-m", "dask_em.cli", *command])
    assert ".m.npz.checkpoint" in names(tmp_path)
    assert "m.npz" not in names(tmp_path)
    with use_tuning(tuning().with_changes(reading={"bytes": 8 * 2**20})):
        again = CliRunner().invoke(main, command)
        straight = make(4, tol=0, max_iter=30, random_state=0, **options).fit(tmp_path / "x.zarr")
    assert again.exit_code == 0, again.stderr
    assert "survey pass" not in again.stderr
    assert names(tmp_path) == ["m.npz", "x.zarr"]
    assert_same(load(tmp_path / "m.npz"), straight)


def test_the_program_goes_on_where_it_was_killed(
    tune: Tune, tmp_path: Path, client: Client
) -> None:
    write_zarr(tmp_path / "x.zarr", X, 500)
    command = [
        "fit", str(tmp_path / "x.zarr"), "-k", "3", "-o", str(tmp_path / "m.npz"), "--tol", "0",
        "--max-iter", "30", "--algorithm", "em",
    ]  # fmt: skip
    local = ["--workers", "1", "--memory-limit", "1GiB"]
    kill_when("em pass 3", [sys.executable, "-m", "dask_em.cli", *command, *local])
    locks = ["..m.npz.checkpoint.lock", ".m.npz.lock"]
    assert names(tmp_path) == sorted([*locks, ".m.npz.checkpoint", "x.zarr"])
    # The same command again, on other workers.
    straight = GaussianMixture(3, tol=0, max_iter=30, algorithm="em", random_state=0)
    with use_tuning(tuning().with_changes(reading={"bytes": 8 * 2**20})):
        again = CliRunner().invoke(main, [*command, "--scheduler", client.scheduler.address])
        assert again.exit_code == 0, again.stderr
        assert f"resuming from {tmp_path / '.m.npz.checkpoint'}: " in again.stderr
        assert "em pass 2:" not in again.stderr
        assert names(tmp_path) == ["m.npz", "x.zarr"]
        assert_same(load(tmp_path / "m.npz"), straight.fit(tmp_path / "x.zarr"))
