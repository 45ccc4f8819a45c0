"""Malformed model files: a clear error each, no crash, and nothing in them is run.

python tests/faults/all.py test_malformed_models.py
"""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos import DASK_EM, tell
from helpers import HANG, blobs
from hostile_models import (
    ARRAYS,
    BAIT,
    DOCUMENTED,
    Contents,
    Examination,
    Made,
    hostile_models,
    packed,
    places,
    sealed,
    whole_models,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dask_em import GaussianMixture, load
from dask_em.errors import ModelFileError
from dask_em.storage.npz import HEADER, _seal, read_arrays

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning"),
]

EXAMPLES = 1000
# Files that pass all checks of the form, whose contents mean harm.
FORGED = 5000
# Of those, some are given to the program as a process of its own.
PROCESSES = 40
# What a reader of data never does.
FORBIDDEN = {
    "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
    "socket.connect", "ctypes.dlopen", "os.mkdir", "os.remove", "os.rename", "os.chmod",
    "shutil.rmtree", "exec", "import", "os.symlink", "os.truncate",
}  # fmt: skip


class Watch:
    """Records what is forbidden while it watches; a hook cannot be removed."""

    def __init__(self) -> None:
        self.watching, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        writes = event == "open" and len(args) > 2 and isinstance(args[2], int)
        if event in FORBIDDEN or (writes and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            self.seen.append(f"{event} {args!r:.100}")

    def load(self, path: Path) -> Any:
        """`load`, watched."""
        self.seen.clear()
        self.watching = True
        try:
            return load(path)
        finally:
            self.watching = False


@pytest.fixture(scope="module")
def guard() -> Watch:
    return Watch()


OLDER = Path(__file__).parents[1] / "data" / "model-0.1.0-full.npz"


@pytest.fixture(scope="module", params=["of today", "of 0.1.0"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if request.param == "of 0.1.0":
        return OLDER.read_bytes()
    path = tmp_path_factory.mktemp("whole") / "m.npz"
    X = blobs(400, 2, 3)[0]
    GaussianMixture(3, random_state=0, means_init=X[:3]).fit(X).save(path)
    load(path)
    return path.read_bytes()


def contents_of(whole: bytes) -> Contents:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.npz")
        path.write_bytes(whole)
        return read_arrays(path)


# -- bytes ---------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> Made:
    """A file whose bytes were changed."""
    n = len(whole)
    at, length = draw(st.integers(0, n - 1)), draw(st.integers(1, 400))
    some = draw(st.binary(min_size=1, max_size=40))
    how = draw(st.sampled_from(["cut", "flip", "write", "insert", "remove", "repeat", "append",
                                "prepend", "noise"]))  # fmt: skip
    changed = {
        "cut": lambda: whole[:at],
        "flip": lambda: whole[:at] + bytes([whole[at] ^ 1 << length % 8]) + whole[at + 1 :],
        "write": lambda: whole[:at] + some + whole[at + len(some) :],
        "insert": lambda: whole[:at] + some + whole[at:],
        "remove": lambda: whole[:at] + whole[at + length :],
        "repeat": lambda: whole[: at + length] + whole[at:],
        "append": lambda: whole + some,
        "prepend": lambda: some + whole,
        "noise": lambda: some * (1 + length // 8),
    }[how]()
    return Made(f"{how} at {at}", changed if changed != whole else whole[:-1])


# -- what the header says ------------------------------------------------------------------


DEEP = "[" * 100_000 + "]" * 100_000
WRONG: dict[type, list[Any]] = {
    bool: ["yes", [], {}, None, 1],
    int: ["many", [], {}, 0.5, True],
    float: ["many", [], {}, True],
    str: [5, [], {}, None, True],
    list: [5, "some", {"a": 1}, None],
    dict: [5, "some", [1], None],
    type(None): ["some", [1], {"a": 1}],
}


@st.composite
def misdescribed(draw: st.DrawFn, contents: Contents) -> Made:
    """A file with a right checksum whose header has a part of a wrong type, or lacks one."""
    header, arrays = json.loads(json.dumps(contents[0])), contents[1]
    how = draw(st.sampled_from(["type", "type", "type", "absent", "text"]))
    if how == "text":
        text = draw(st.sampled_from(["", "{", "[]", "null", "5", '"text"', DEEP, "\x00", "{}{}"]))
        return Made(f"header {text:.10}", sealed(packed(header, arrays, text)))
    found = sorted(places(header), key=str)
    if how == "absent":
        found = [p for p in found if (isinstance(p[-1], str) and p[-1] not in MAY_LACK
                 and p[0] != "options") or p == ("options", "n_components")]  # fmt: skip
    path = draw(st.sampled_from(found))
    holder, now = header, "nothing"
    for key in path[:-1]:
        holder = holder[key]
    if how == "absent":
        del holder[path[-1]]
    else:
        wrong = WRONG[type(holder[path[-1]])]
        if path[-1] == "log_likelihood" and path[0] == "history":
            # Passes without one have none.
            wrong = ["many", [], {}, True]
        if path == ("options", "n_init"):
            wrong = ["many", [], {}, True, 0]
        holder[path[-1]] = draw(st.sampled_from(wrong))
        now = repr(holder[path[-1]])
    return Made(f"{path}: {now}", sealed(packed(header, arrays)))


MAY_LACK = ("accepted", "fit", "sweep", "weight")


# -- arrays --------------------------------------------------------------------------------


SPOILT: dict[str, Callable[[np.ndarray], Any]] = {
    **{name: change for name, change in ARRAYS.items() if name not in ("reversed", "by columns")},
    "nan": lambda a: np.full_like(a, np.nan),
    "inf": lambda a: np.full_like(a, np.inf),
}


@st.composite
def misshapen(draw: st.DrawFn, contents: Contents) -> Made:
    """A file with a right checksum, an array of which is missing, or not as it must be."""
    header, arrays = contents[0], dict(contents[1])
    name = draw(st.sampled_from(sorted(arrays)))
    how = draw(st.sampled_from(["gone", "renamed", *SPOILT]))
    array = arrays.pop(name)
    if how == "renamed":
        arrays[f"{name}_"] = array
    elif how != "gone":
        arrays[name] = SPOILT[how](array)
    elif name == "means_init":
        # Without one is a model, too.
        arrays[name] = array[:-1]
    if how == "renamed" and name == "means_init":
        arrays[name] = array[:, :1]
    return Made(f"{name}: {how}", sealed(packed(header, arrays)))


# -- archives that mean harm ------------------------------------------------------------------


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.mark,))


def npy(header: str, rest: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin1")
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + rest


@st.composite
def hostile(draw: st.DrawFn, contents: Contents, mark: str) -> Made:
    """A file with a right checksum that is made to harm who reads it."""
    header, arrays = contents
    name = draw(st.sampled_from([HEADER, *sorted(arrays)]))
    bait = np.empty(draw(st.integers(1, 3)), dtype=object)
    bait[:] = [Trap(mark)] * len(bait)
    members = packed(header, arrays)
    code = f"__import__('os').mkdir({mark!r})"
    huge = draw(st.sampled_from([2**31, 2**40, 2**62, 10**30]))
    fraud = {
        "pickle": packed(header, {"x": bait})["x.npy"],
        "bare pickle": pickle.dumps(Trap(mark)),
        "object without data": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"),
        "code": npy(f"{{'descr': {code}, 'fortran_order': False, 'shape': (1,), }}\n", bytes(8)),
        "huge": npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({huge},), }}\n", b"1"),
        "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n", bytes(8)),
        "long header": npy("(" * 60_000),
        "version 2": npy("{'descr': '<f8'}", bytes(8), 2),
        "version 9": npy("{}", b"", 9),
        "nothing": b"",
    }
    how = draw(st.sampled_from([*fraud, "compressed", "bomb", "escape", "absolute", "twice",
                                "encrypted", "symlink"]))  # fmt: skip
    tweak: Callable[[zipfile.ZipInfo], None] | None = None
    if how in fraud:
        members[f"{name}.npy"] = fraud[how]
    elif how == "compressed":
        tweak = lambda info: setattr(info, "compress_type", zipfile.ZIP_DEFLATED)  # noqa: E731
    elif how == "bomb":
        members["bomb.npy"] = bytes(20_000_000)
        tweak = lambda info: setattr(info, "compress_type", zipfile.ZIP_DEFLATED)  # noqa: E731
    elif how in ("escape", "absolute"):
        del members[f"{name}.npy"]
        place = "../../" if how == "escape" else str(Path(mark).parent) + "/"
        members[f"{place}{name}.npy"] = b"harm"
    elif how == "symlink":
        del members[f"{name}.npy"]
        members[f"{name}.npy"] = b"/etc/hostname"
        tweak = lambda info: setattr(info, "external_attr", 0o120777 << 16)  # noqa: E731
    file = sealed(members, tweak)
    if how == "encrypted":
        # The flag of encryption, in each entry of the archive's list.
        file = file.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
        file = resealed(file)
    if how == "twice":
        again = io.BytesIO()
        with zipfile.ZipFile(again, "w") as archive:
            for member in [*members, f"{name}.npy"]:
                info = zipfile.ZipInfo(member)
                # The second is empty, and it is the one that a reader would take.
                archive.writestr(info, b"" if member in archive.namelist() else members[member])
        _seal(again)
        file = again.getvalue()
    return Made(f"{name}: {how}", file)


def resealed(file: bytes) -> bytes:
    """The same archive with a right checksum again."""
    end = file.rindex(b"PK\x05\x06")
    again = io.BytesIO()
    again.write(file[: end + 20] + b"\x00\x00")
    _seal(again)
    return again.getvalue()


def test_a_malformed_model_is_refused(
    whole: bytes, guard: Watch, tmp_path: Path, record_property: Any
) -> None:
    contents, mark = contents_of(whole), str(tmp_path / "executed")
    path, counts = tmp_path / "m.npz", Counter[str]()
    shown: list[bytes] = []
    path.write_bytes(sealed(packed(*contents)))
    # The way in which these files are made is right: what is refused is what was changed.
    guard.load(path)
    kinds = {
        "bytes changed": damaged(whole),
        "header wrong": misdescribed(contents),
        "array wrong": misshapen(contents),
        "hostile": hostile(contents, mark),
    }

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(sorted(kinds)).flatmap(lambda k: st.tuples(st.just(k), kinds[k])))
    def refused(chosen: tuple[str, Made]) -> None:
        kind, made = chosen
        path.write_bytes(made.file)
        with pytest.raises(ModelFileError, match=r"m\.npz: ") as caught:
            guard.load(path)
        assert len(str(caught.value)) < 2000
        assert not guard.seen, guard.seen
        assert not Path(mark).exists()
        counts[kind] += 1
        if counts[kind] % 60 == 1:
            shown.append(made.file)

    refused()
    assert sum(counts.values()) >= EXAMPLES
    for file in shown:
        path.write_bytes(file)
        done = subprocess.run(
            [*DASK_EM, "inspect", str(path)], capture_output=True, text=True, timeout=HANG
        )
        assert done.returncode == 65, done.stderr
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    tell(
        record_property,
        "malformed model file",
        f"{sum(counts.values())} by hypothesis: {told}",
        "`ModelFileError` with the file's name each time; no crash; an audit hook saw no pickle, "
        f"no code, no process, no written file; `dask-em inspect` of {len(shown)} of them: code 65",
    )


def test_a_forged_model_is_refused_or_does_no_harm(tmp_path: Path, record_property: Any) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "examined").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = whole_models(tmp_path / "models")
    examination = Examination(tmp_path / "examined", commands_of=20, reports_of=60)
    for name, contents in models.items():
        assert examination.look(Made(name, sealed(packed(*contents)))), name
    taken: list[bytes] = []
    n_files = 0

    @settings(max_examples=FORGED, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.data())
    def examined(data: st.DataObject) -> None:
        nonlocal n_files
        made = data.draw(hostile_models(models))
        n_files += 1
        if examination.look(made) or n_files % 200 == 0:
            taken.append(made.file)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examined()
    slowest = max(
        in_processes(file, examination) for file in taken[:: max(1, len(taken) // PROCESSES)]
    )
    counts = examination.counts
    commands = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if ": " in name)
    tell(
        record_property,
        "model file forged, its checksum right",
        f"{n_files} by hypothesis: values, types, members, shapes of {len(models)} kinds of models",
        f"{counts['refused']} `ModelFileError`; {counts['taken for a model']} loaded, predicted, "
        f"scored, drawn and fitted again ({commands}): no traceback, no other exit code, nothing "
        "written or opened that was not named; at most "
        f"{examination.slowest:.1f} s of CPU a step, {slowest:.1f} s a process",
    )


def in_processes(file: bytes, examination: Examination) -> float:
    """Run commands on a file as processes; return the seconds of CPU that one took, at most."""
    path, slowest = examination.folder / "one.npz", 0.0
    path.write_bytes(file)
    for words in (["inspect", path], ["inspect", path, "--json"]):
        before = os.times()
        done = subprocess.run(
            [*DASK_EM, *map(str, words)], capture_output=True, text=True, timeout=HANG
        )
        after = os.times()
        assert done.returncode in DOCUMENTED, done.stderr
        assert "Traceback" not in done.stderr
        assert not [*examination.folder.rglob(f"*{BAIT}*")]
        used = after.children_user + after.children_system
        slowest = max(slowest, used - before.children_user - before.children_system)
    assert slowest < 5
    return slowest
