"""Model files made to do harm, with a right checksum each, and what may become of one."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from click.testing import CliRunner
from helpers import blobs, write_zarr
from hypothesis import strategies as st
from strangers.negative_binomial_mixture import NegativeBinomialMixture

from dask_em import GaussianMixture, load, select
from dask_em.cli.main import main
from dask_em.core.codec import unpack
from dask_em.errors import DaskEMError, ModelFileError
from dask_em.estimators.html import summary_html
from dask_em.foreign import HIDDEN
from dask_em.storage.npz import HEADER, _seal, read_arrays

Contents = tuple[dict[str, Any], dict[str, np.ndarray]]

# Of one command on one file, of this process and all its threads.
CPU_SECONDS = 5.0
# Whoever opens something of this name was told to by the file.
BAIT = "bait-of-the-file"
HARM = "x\x1b]0;owned\x07\n  ok    looks fine\u202e"
# Exit codes that are no fault of ours, see the help of the program.
DOCUMENTED = {0, 2, 65, 73, 74, 75}


@dataclass(frozen=True)
class Made:
    """A file, and in a few words what is wrong with it."""

    how: str
    file: bytes = field(repr=False)


# -- files -----------------------------------------------------------------------------


def sealed(
    members: dict[str, bytes], tweak: Callable[[zipfile.ZipInfo], None] | None = None
) -> bytes:
    """An archive with a right checksum, so that what is in it is looked at."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, contents in members.items():
            info = zipfile.ZipInfo(name)
            if tweak:
                tweak(info)
            archive.writestr(info, contents)
    _seal(file)
    return file.getvalue()


def packed(header: Any, arrays: dict[str, Any], text: str | None = None) -> dict[str, bytes]:
    """The members of an archive of this header and these arrays."""
    members = {}
    text = json.dumps(header) if text is None else text
    for name, array in {HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}.items():
        file = io.BytesIO()
        np.save(file, array, allow_pickle=array.dtype.hasobject)
        members[f"{name}.npy"] = file.getvalue()
    return members


def whole_models(folder: Path) -> dict[str, Contents]:
    """Models of every kind that files hold, as `save` writes them."""
    X = blobs(300, 2, 2)[0]
    named = GaussianMixture(2, random_state=0, means_init=X[:2], max_iter=3, tol=0)
    models: dict[str, Any] = {
        kind: GaussianMixture(2, covariance_type=kind, random_state=0)
        for kind in ("full", "diag", "tied", "spherical")
    }
    models |= {"start": GaussianMixture(2, max_iter=0, random_state=0), "named": named}
    models["negative-binomial"] = NegativeBinomialMixture(2, random_state=0, sample_size=200)
    for name, model in models.items():
        model.fit(np.abs(X).round() if name == "negative-binomial" else X)
    named.feature_names_in_ = np.array(["width", "height"], dtype=object)
    models["sweep"] = select(X[:, :1], [1, 2], ["full", "diag"], n_init=1, random_state=0).best
    found = {}
    for name, model in models.items():
        model.save(folder / f"{name}.npz")
        found[name] = read_arrays(folder / f"{name}.npz")
    return found


# -- what is done to them -------------------------------------------------------------------


NUMBERS = [0, 1, -1, 2, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-300, 1e300, -1e300, 1.7e308, -1.7e308,
           float("nan"), float("inf"), -float("inf")]  # fmt: skip
VALUES: list[Any] = [
    *NUMBERS, None, True, False, "", "word", "DROPPED", "full", "diag", "em", "cuda", HARM,
    "\ud800", f"/{BAIT}.zarr", f"{BAIT}", f"s3://{BAIT}/x.zarr", f"http://{BAIT}.invalid/x.zarr",
    "a" * 20_000, "$x_{1$", [], {}, [[]], [1], {"a": 1}, {"array": "state.none"}, [{}] * 3,
]  # fmt: skip
KEYS = [
    "checkpoint",
    "callbacks",
    "max_passes",
    "means_init",
    "evil",
    "",
    HARM,
    "accepted",
    "sweep",
]
FLOATS = [float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e160, 1e100, -1e100, 1e16, 1.0,
          0.0, -1.0, 1e-16, 1e-100, 1e-160, 1e-300, 5e-324, 0.3, 0.999]  # fmt: skip
FACTORS = [-1.0, 0.0, 1e8, 1e-8, 1e60, 1e-60, 1e120, 1e-120, 1e200, 1.0001, 2.0]

ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "longer": lambda a: np.concatenate([a, a]),
    "shorter": lambda a: a[:-1],
    "flat": lambda a: np.append(a.ravel(), 1.0),
    "deeper": lambda a: a[None],
    "empty": lambda a: a[:0],
    "scalar": lambda a: np.asarray(1.0),
    "float32": lambda a: a.astype(np.float32),
    "swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "complex": lambda a: a.astype(complex),
    "text": lambda a: a.astype(str),
    "bool": lambda a: a.astype(bool),
    "records": lambda a: np.zeros(a.shape, dtype=[("a", "f8")]),
    "reversed": lambda a: a[::-1].copy(),
    "by columns": lambda a: np.asfortranarray(a.T).T if a.ndim < 2 else np.asfortranarray(a),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a JSON value; of a list's parts, of the first two alone."""
    if path:
        yield path
    items: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value[:2])
    for key, inner in items:
        yield from places(inner, (*path, key))


def holder_of(header: Any, path: tuple[Any, ...]) -> Any:
    """The object or list that holds what is at a path."""
    for key in path[:-1]:
        header = header[key]
    return header


def numeric(arrays: dict[str, np.ndarray]) -> list[str]:
    return sorted(name for name, array in arrays.items() if array.dtype.kind == "f")


@st.composite
def changed_header(draw: st.DrawFn, header: Any, arrays: dict[str, np.ndarray]) -> str:
    """Change a part of the header where it is; return what was done."""
    path = draw(st.sampled_from(sorted(places(header), key=str)))
    holder, how = holder_of(header, path), draw(st.sampled_from("vvvvvakx"))
    if how == "k":
        del holder[path[-1]]
        return f"{path} gone"
    # A copy: what is put there may be changed later.
    value = json.loads(json.dumps(draw(st.sampled_from(VALUES))))
    if how == "a" and isinstance(holder, dict):
        key = draw(st.sampled_from(KEYS))
        holder[key] = value
        return f"{(*path[:-1], key)} new: {value!r:.40}"
    if how == "x":
        other = draw(st.sampled_from(sorted(places(header), key=str)))
        value = json.loads(json.dumps(holder_of(header, other)[other[-1]]))
    holder[path[-1]] = value
    return f"{path}: {value!r:.40}"


@st.composite
def changed_array(draw: st.DrawFn, header: Any, arrays: dict[str, np.ndarray]) -> str:
    """Change an array, or what arrays there are."""
    name = draw(st.sampled_from(sorted(arrays)))
    array = arrays[name]
    how = draw(st.sampled_from(["entry", "entry", "entry", "factor", "gone", "renamed", "new",
                                *ARRAYS]))  # fmt: skip
    if array.dtype.kind == "U":
        changed = np.char.add(array, draw(st.sampled_from([HARM, "$x_{1$", "", "a" * 500])))
        codes = np.ascontiguousarray(changed).view(np.uint32)
        if how in ("entry", "factor"):
            codes[0] = draw(st.sampled_from([0xD800, 0x110000, 2**32 - 1, 0, 0x1B]))
        arrays[name] = changed
        return f"{name}: {codes[:1]}"
    if how == "gone":
        del arrays[name]
    elif how in ("renamed", "new"):
        arrays[draw(st.sampled_from([f"{name}_", "evil", f"state.{BAIT}", HARM]))] = array
        if how == "renamed":
            del arrays[name]
    elif how == "entry" and array.size:
        copy = array.copy()
        copy.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(FLOATS))
        arrays[name] = copy
    elif how in ARRAYS and array.ndim:
        arrays[name] = ARRAYS[how](array)
    else:
        with np.errstate(all="ignore"):
            arrays[name] = array * draw(st.sampled_from(FACTORS))
    return f"{name}: {how}"


@st.composite
def changed_in_accord(draw: st.DrawFn, header: Any, arrays: dict[str, np.ndarray]) -> str:
    """Change the state, and make anew what is derived from it, as a forger would."""
    names = [name for name in numeric(arrays) if name.startswith("state.")]
    done = []
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(names))
        part = arrays[name].copy()
        with np.errstate(all="ignore"):
            if draw(st.booleans()):
                part = part * draw(st.sampled_from(FACTORS))
            else:
                entry = draw(st.integers(0, part.size - 1))
                part.flat[entry] = draw(st.sampled_from(FLOATS))
            if name.endswith("log_weights"):
                part = part - np.logaddexp.reduce(part)
        arrays[name] = part
        done.append(name)
    try:
        with np.errstate(all="ignore"):
            result = unpack(header["state"], arrays).result
            arrays["weights_"] = result.weights / result.weights.sum()
            arrays.update(result.components.attributes())
    except Exception:  # The state is none.
        done.append("derived anew: no")
    return ", ".join(done)


@st.composite
def hostile_models(draw: st.DrawFn, models: dict[str, Contents]) -> Made:
    """A rightly sealed file in which one thing or a few are not as `save` writes them."""
    name = draw(st.sampled_from(sorted(models)))
    header, arrays = models[name]
    header, arrays = json.loads(json.dumps(header)), dict(arrays)
    done = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        kind = draw(st.sampled_from([changed_header, changed_header, changed_array,
                                     changed_in_accord]))  # fmt: skip
        done.append(draw(kind(header, arrays)))
        if not isinstance(header, dict) or not arrays:
            break
    return Made(f"{name}: {'; '.join(done)}", sealed(packed(header, arrays)))


# -- what may become of one ----------------------------------------------------------------


class Guard:
    """Records what a file must not bring about, while it watches; a hook cannot be removed.

    Attributes
    ----------
    seen : list of str
    output : str
        The folder in which alone something may be written.
    """

    # Not `pickle.find_class`: Numba's cache of compiled loops is pickled.
    events: ClassVar = {"os.system", "os.exec", "os.posix_spawn", "os.fork",
              "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}  # fmt: skip
    writes: ClassVar = {"os.mkdir", "os.remove", "os.rename", "os.chmod", "shutil.rmtree",
                        "os.symlink", "os.link", "os.truncate"}  # fmt: skip

    def __init__(self, output: Path) -> None:
        self.output, self.watching, self.seen = os.fspath(output), False, list[str]()
        # Once on each machine Matplotlib lists the fonts, and writes the list to its cache.
        with suppress(ImportError):
            import matplotlib.font_manager  # noqa: F401
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        named = [os.fsdecode(a) for a in args if isinstance(a, str | bytes | os.PathLike)]
        opened = event == "open" and len(args) > 2 and isinstance(args[2], int)
        writing = event in self.writes or (
            opened and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        outside = writing and not all(self._inside(name) for name in named[:1])
        bait = event in ("open", "os.listdir", "os.scandir", *self.writes) and any(
            BAIT in name for name in named
        )
        # scikit-learn and platform ask how many cores there are.
        asked = event == "subprocess.Popen" and args[0] in ("lscpu", "uname")
        if (event in self.events and not asked) or outside or bait:
            self.seen.append(f"{event} {args!r:.200}")

    def _inside(self, name: str) -> bool:
        # Names without a folder are of files below an open folder; libraries have their caches.
        return (
            name.startswith((self.output, "/dev/null"))
            or not name.startswith("/")
            or name.endswith("/matplotlib")
            or "/__pycache__" in name
        )

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Fail where something forbidden was seen in the block."""
        self.seen.clear()
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
        assert not self.seen, self.seen


@dataclass
class Examination:
    """Does with a file whatever can be done with a model, and counts what became of it.

    Attributes
    ----------
    folder : path
        Of its own.
    commands_of, reports_of : int
        Of so many files that are taken for models, commands are run on one.
    """

    folder: Path
    commands_of: int = 8
    reports_of: int = 16
    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self.rows = {d: np.abs(blobs(60, d, 2)[0]).round() for d in (1, 2)}
        for d, rows in self.rows.items():
            write_zarr(self.folder / f"x-{d}.zarr", rows, 20)
        self.path, self.output = self.folder / "m.npz", self.folder / "out"
        self.output.mkdir()
        self.guard = Guard(self.output)
        self.draws = find_spec("matplotlib") is not None

    @contextmanager
    def limited(self, what: str) -> Iterator[None]:
        """Fail where a step does what is forbidden, or takes long."""
        began = time.process_time()
        with self.guard.watch():
            yield
        took = time.process_time() - began
        self.slowest = max(self.slowest, took)
        assert took < CPU_SECONDS, f"{what} took {took:.1f} s"

    def look(self, made: Made) -> bool:
        """Whether a file is taken for a model; fail where it brings about what it must not."""
        self.path.write_bytes(made.file)
        code = self.command("inspect", self.path, "--json").exit_code
        try:
            with self.limited("load"):
                model = load(self.path)
        except ModelFileError as e:
            said = str(e)
        else:
            # One pass does not converge, and columns may have names that rows lack.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.take(model, code)
            return True
        assert "m.npz: " in said
        assert len(said) < 2000
        self.counts["refused"] += 1
        return False

    def take(self, model: Any, code: int) -> None:
        """Use what was loaded; `code` is that of `inspect`."""
        assert code == 0, "inspect refuses what load takes"
        self.counts["taken for a model"] += 1
        self.use(model)
        n = self.counts["taken for a model"]
        data = self.folder / f"x-{model.n_features_in_}.zarr"
        if n % self.commands_of == 1:
            self.command("inspect", self.path)
            self.command("score", self.path, data)
            self.command("predict", self.path, data, self.output / "answers.zarr", "--overwrite",
                         "--proba", "--log-density")  # fmt: skip
            self.refit(model)
        if n % self.reports_of == 1 and self.draws:
            self.command("report", self.path, self.output / "r.html", "--overwrite", "--data", data,
                         )  # fmt: skip
            self.command("report", self.path, self.output / "r.html", "--overwrite")

    def use(self, model: Any) -> None:
        """Ask a model in Python whatever it answers; refusals are this package's own."""
        rows = self.rows[model.n_features_in_]
        for what in (
            lambda: model.predict(rows),
            lambda: model.predict_proba(rows),
            lambda: model.score_samples(rows),
            lambda: model.bic(rows),
            lambda: model.sample(5),
            lambda: summary_html(model),
            lambda: repr(model),
            lambda: (model.warnings_, model.degenerate_),
        ):
            with self.limited("a method"), np.errstate(all="ignore"):
                try:
                    what()
                except DaskEMError:
                    self.counts["refused to answer"] += 1

    def refit(self, model: Any) -> None:
        """Fit with the options of the file: it writes nothing."""
        model.set_params(max_iter=1, n_init=1, sample_size=None)
        with self.limited("fit"), np.errstate(all="ignore"):
            try:
                model.fit(self.rows[model.n_features_in_])
            except DaskEMError:
                self.counts["refused to fit"] += 1

    def command(self, *words: object) -> Any:
        """Run a command in this process; fail unless it ends as its help says."""
        with self.limited(str(words[0])):
            result = CliRunner().invoke(main, [str(word) for word in words])
        assert "Traceback" not in result.stderr, result.stderr
        assert result.exit_code in DOCUMENTED, result.stderr
        for said in (result.stdout, result.stderr):
            assert not [c for c in said if c != "\n" and unicodedata.category(c) in HIDDEN]
        if "--json" in words:
            # Strictly JSON: no NaN.
            json.loads(result.stdout, parse_constant=_refuse)
        self.counts[f"{words[0]}: {result.exit_code}"] += 1
        return result


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")
