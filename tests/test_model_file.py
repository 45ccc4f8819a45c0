"""Model files: whole or refused, never executed, never half written."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import blobs

from dask_em import GaussianMixture, load
from dask_em.core.codec import digest
from dask_em.errors import ModelFileError, OutputExistsError, UsageError
from dask_em.estimators.registry import register_estimator
from dask_em.storage import npz as checkpoint
from dask_em.storage.npz import HEADER, read_arrays, write_arrays

X = blobs(400, 2, 2)[0]


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture(2, random_state=0).fit(X)


@pytest.fixture(scope="module")
def whole(model: GaussianMixture, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "m.npz"
    model.save(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.npz"


@pytest.mark.parametrize(
    ("options", "loaded"),
    [
        ({"n_components": 3}, {"n_components": 2}),
        ({"covariance_type": "diag"}, {"covariance_type": "full"}),
        ({"verbose": True, "warm_start": 1}, {"verbose": 1, "warm_start": True}),
        ({"random_state": np.int64(3)}, {"random_state": 3}),
        ({"random_state": np.random.RandomState(0), "device": np}, {"random_state": None}),
    ],
)
def test_what_was_set_since_the_fit_spoils_no_file(
    options: dict[str, Any], loaded: dict[str, Any], model: GaussianMixture, path: Path
) -> None:
    expected = model.predict(X)
    changed = copy.copy(model).set_params(**options)
    changed.save(path)
    read = load(path)
    assert {name: read.get_params()[name] for name in loaded} == loaded
    np.testing.assert_array_equal(read.predict(X), expected)


def test_what_no_file_holds_is_refused_before_it_is_written(
    model: GaussianMixture, path: Path
) -> None:
    changed = copy.copy(model).set_params(means_init=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="means_init is float64"):
        changed.save(path)
    assert not path.exists()


def test_a_folder_that_is_not_there_is_named(model: GaussianMixture, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"m\.npz: there is no folder .*nowhere"):
        model.save(tmp_path / "nowhere" / "m.npz")


def test_a_truncated_file_is_refused(whole: bytes, path: Path) -> None:
    for length in range(0, len(whole), 53):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"m\.npz"):
            load(path)


def places(whole: bytes, step: int) -> list[int]:
    """Every `step`-th byte, and all bytes of the archive's own records."""
    records: list[int] = []
    for mark, length in ((b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 101)):
        found = whole.find(mark)
        records += range(found, found + length)
    return sorted({*range(0, len(whole), step), *records})


def test_every_flipped_bit_is_found(whole: bytes, path: Path) -> None:
    flipped = [(place, 1 << (place % 8)) for place in places(whole, 29)]
    flipped += [(place, 1 << bit) for place in places(whole, 10**9) for bit in range(8)]
    for place, bit in flipped:
        damaged = bytearray(whole)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"m\.npz"):
            load(path)


@pytest.mark.parametrize(
    "contents",
    [b"", b"\0" * 5000, b"PK\x03\x04", b"a,b\n1,2\n", b"\x80\x04K\x01.", b"\x93NUMPY\x01\x00"],
    ids=["empty", "zeros", "zip", "csv", "pickle", "npy"],
)
def test_a_file_of_something_else_is_refused(contents: bytes, path: Path) -> None:
    path.write_bytes(contents)
    with pytest.raises(ModelFileError, match=r"m\.npz: not a whole dask_em model file"):
        load(path)


def test_a_file_of_arrays_that_is_not_ours_is_refused(path: Path) -> None:
    np.savez(path, weights=np.ones(3))
    with pytest.raises(ModelFileError, match="not a whole dask_em model file"):
        load(path)
    np.save(path.with_suffix(".npy"), np.ones(3))
    with pytest.raises(ModelFileError):
        load(path.with_suffix(".npy"))


def test_no_file_is_refused_by_name(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(ModelFileError, match="no such model file"):
            load(missing)


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


def test_a_pickle_in_disguise_is_refused_and_not_executed(whole: bytes, tmp_path: Path) -> None:
    mark, path = tmp_path / "executed", tmp_path / "m.npz"
    bait = np.array([Trap(mark)], dtype=object)
    with np.load(io.BytesIO(whole)) as file:
        contents = dict(file)
    for name in ("means_", HEADER):
        save_sealed(path, {**contents, name: bait})
        with pytest.raises(ModelFileError, match=r"Object arrays|another size"):
            load(path)
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ModelFileError):
        load(path)
    assert not mark.exists()


def rewritten(whole: bytes, path: Path, **changes: object) -> None:
    """The file with another header and a right checksum."""
    with np.load(io.BytesIO(whole)) as file:
        contents = dict(file)
    header = json.loads(contents.pop(HEADER).tobytes()) | changes
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    save_sealed(path, {HEADER: text, **contents})


def save_sealed(path: Path, contents: dict[str, Any]) -> None:
    """Any arrays in a file that ends with a right checksum."""
    with path.open("w+b") as file:
        np.savez(file, **contents)
        checkpoint._seal(file)


def test_a_newer_format_is_named(whole: bytes, path: Path) -> None:
    rewritten(whole, path, format_version=checkpoint.FORMAT_VERSION + 1)
    with pytest.raises(
        ModelFileError, match=r"format version 4, written by dask_em .* version 2 and 3"
    ):
        load(path)


def test_another_kind_of_file_is_named(whole: bytes, path: Path) -> None:
    rewritten(whole, path, kind="dask_em job")
    with pytest.raises(ModelFileError, match="kind 'dask_em job', expected 'dask_em model'"):
        load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"n_component": 3}},
        {"options": None},
        {"state": {}},
        {"state": {"record": "em-state", "version": 1, "fields": {}}},
        {"estimator": "negative-binomial-mixture"},
        {"dask_em": None},
        {"history": None},
        {"kind": None},
        {"format_version": "1"},
    ],
    ids=str,
)
def test_a_header_of_wrong_parts_is_refused(whole: bytes, path: Path, changes: dict) -> None:
    rewritten(whole, path, **changes)
    with pytest.raises(ModelFileError):
        load(path)


def test_a_changed_array_fails_its_checksum(whole: bytes, path: Path) -> None:
    with np.load(io.BytesIO(whole)) as file:
        contents = dict(file)
    contents["means_"] = contents["means_"] + 1e-12
    np.savez(path, **contents)
    with pytest.raises(ModelFileError, match="does not end with its checksum"):
        load(path)
    save_sealed(path, contents)
    changed = path.read_bytes()
    path.write_bytes(changed[:-64] + whole[-64:])
    with pytest.raises(ModelFileError, match="checksum does not match"):
        load(path)


def test_a_missing_array_is_refused(whole: bytes, path: Path) -> None:
    with np.load(io.BytesIO(whole)) as file:
        contents = {name: array for name, array in file.items() if name != "means_"}
    save_sealed(path, contents)
    with pytest.raises(ModelFileError, match="missing or wrong"):
        load(path)


def test_sizes_are_capped(
    model: GaussianMixture, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(path)
    monkeypatch.setattr(checkpoint, "LARGEST_MODEL", 1000)
    with pytest.raises(ModelFileError, match="no file of more than 1000 is read"):
        load(path)
    with pytest.raises(UsageError, match="no file of more than 1000 is read"):
        model.save(path.with_name("other"))
    assert [p.name for p in path.parent.iterdir()] == ["m.npz"]


# -- writing -------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["savez", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    step: str, whole: bytes, path: Path, model: GaussianMixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(whole)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    if step == "savez":
        monkeypatch.setattr(np, "savez", fail)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save(path, overwrite=True)
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == ["m.npz"]


def test_an_interrupted_save_leaves_nothing(
    path: Path, model: GaussianMixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.save(path)
    assert list(path.parent.iterdir()) == []


def test_a_save_replaces_a_file_only_when_told(model: GaussianMixture, path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"m\.npz exists; .* pass overwrite=True"):
        model.save(path)
    assert path.read_bytes() == b"precious"
    model.save(path, overwrite=True)
    assert load(path).n_components == 2


def test_a_file_has_the_rights_of_other_files(model: GaussianMixture, path: Path) -> None:
    model.save(path)
    (path.parent / "other").touch()
    modes = {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert len(modes) == 1


def test_a_moved_file_is_the_same_model(model: GaussianMixture, path: Path) -> None:
    model.save(path)
    moved = shutil.move(path, path.with_name("renamed"))
    np.testing.assert_array_equal(load(moved).means_, model.means_)


def test_any_header_and_arrays_come_back(path: Path) -> None:
    header = {"text": "höhe", "number": 0.1, "nothing": None, "list": [1, 2]}
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array(3), "c": np.empty((0, 2))}
    write_arrays(path, header, arrays, overwrite=True)
    found_header, found = read_arrays(path)
    assert found_header.items() >= header.items()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


# -- older files ---------------------------------------------------------------------

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("name", ["full", "diag", "sweep"])
def test_a_file_of_dask_em_0_1_0_loads_to_the_bit(name: str, path: Path) -> None:
    expected = json.loads((DATA / "models-0.1.0.json").read_text())[name]
    old = load(DATA / f"model-0.1.0-{name}.npz")
    old.save(path)
    rows = np.array(expected["rows"])
    for model in (old, load(path)):
        assert model.lower_bound_ == expected["lower_bound"]
        assert model.provenance_["dask_em"] == "0.1.0"
        assert ("sweep" in model.provenance_) == (name == "sweep")
        for found in ("weights", "means", "covariances"):
            assert getattr(model, f"{found}_").tolist() == expected[found]
        # Computed at the time by kernels compiled for another CPU, which round elsewhere.
        densities = model.score_samples(rows)
        np.testing.assert_allclose(densities, expected["log_densities"], rtol=1e-13)
    header, _ = read_arrays(path)
    assert header["format_version"] == checkpoint.FORMAT_VERSION
    assert pack_of(old) == pack_of(load(path))


def pack_of(model: GaussianMixture) -> str:
    return digest([model.state_, model.history_, model.n_passes_, model.get_params()])


@pytest.mark.parametrize("lacks", ["state.means", "statistics.scatter", "frame.shift", "weights_"])
def test_an_older_file_that_lacks_an_array_is_refused(lacks: str, path: Path) -> None:
    with np.load(DATA / "model-0.1.0-full.npz") as file:
        contents = {name: array for name, array in file.items() if name != lacks}
    save_sealed(path, contents)
    with pytest.raises(ModelFileError, match=f"missing or wrong .*{lacks}"):
        load(path)


# -- classes from outside ------------------------------------------------------------


def test_a_class_is_found_by_its_tag(model: GaussianMixture, path: Path) -> None:
    class Derived(GaussianMixture):
        """Nobody registered it: its files are of the class that it is derived from."""

    Derived(2, random_state=0).fit(X).save(path)
    assert type(load(path)) is GaussianMixture
    register_estimator("tests-derived")(Derived)
    Derived(2, random_state=0).fit(X).save(path, overwrite=True)
    read = load(path)
    assert type(read) is Derived
    np.testing.assert_array_equal(read.means_, model.means_)
    with pytest.raises(ValueError, match=r"tag 'tests-derived': .*Derived has it"):
        register_estimator("tests-derived")(GaussianMixture)
