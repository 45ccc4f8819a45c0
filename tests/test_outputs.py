"""One writer of every output: a table of writers, and laws that each of them obeys."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import pytest
from click.testing import CliRunner
from forked import ForkedJobs, Job, forked_jobs, interrupt, remove
from helpers import blobs, digest, write_zarr

from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.errors import LockedError, OutputExistsError, UsageError
from dask_em.report.page import write_page
from dask_em.storage.locks import locked

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MODEL, DATA, OUT = "MODEL", "DATA", "OUT"
FIT = ["fit", DATA, "-k", "2", "--max-iter", "1", "--sample-size", "100"]


@dataclass(frozen=True)
class Writer:
    """One output of one command, or of a call.

    Attributes
    ----------
    words : list of str
        In which MODEL, DATA, OUT and BESIDE, another output, stand for paths.
    name : str
        Of the output.
    folder : bool
        Whether it is one.
    replaces : bool
        Whether it replaces what is there unasked.
    pairs : int
        How often two of them are started at once.
    """

    words: list[str]
    name: str
    folder: bool = False
    replaces: bool = False
    pairs: int = 3

    def command(self, inputs: Inputs, output: Path, *more: str) -> list[str]:
        """The words with all their paths."""
        paths = {
            MODEL: inputs.model, DATA: inputs.data, OUT: output,
            "BESIDE": output.with_name("beside.npz"),
        }  # fmt: skip
        return [*(str(paths.get(word, word)) for word in self.words), *more]


@dataclass(frozen=True)
class Inputs:
    """What the writers read."""

    model: Path
    data: Path


WRITERS = {
    "fit": Writer([*FIT, "-o", OUT], "m.npz"),
    "sweep": Writer(
        ["fit", DATA, "-k", "1:2", "--keep-all", *FIT[4:], "-o", OUT], "m.npz"
    ),
    "metrics": Writer(
        [*FIT, "--overwrite", "-o", "BESIDE", "--metrics-file", OUT], "m.prom", replaces=True
    ),
    "adapt": Writer(["adapt", MODEL, DATA, "-o", OUT], "m.npz"),
    "update": Writer(["update", MODEL, DATA, "--exact", "-o", OUT], "m.npz"),
    "save": Writer(["save", MODEL, OUT], "m.npz"),
    "predict": Writer(["predict", MODEL, DATA, OUT], "answers.zarr", folder=True),
    "predict to Parquet": Writer(["predict", MODEL, DATA, OUT], "answers.parquet", folder=True),
    "impute": Writer(
        ["impute", MODEL, DATA, OUT, "--missing-values", "mar"], "filled.zarr", folder=True
    ),
    "report": Writer(
        ["report", MODEL, OUT, "--no-drift", "--sample-rows", "20"], "page.html", pairs=5
    ),
    "compare": Writer(["compare", MODEL, MODEL, "--page", OUT], "page.html", pairs=5),
    "export to ONNX": Writer(["export", MODEL, "--onnx", OUT], "m.onnx"),
    "export to SQL": Writer(["export", MODEL, "--sql", "-o", OUT], "m.sql"),
    "export to JSON": Writer(["export", MODEL, "--json", "-o", OUT], "m.json"),
    "ingest": Writer(["ingest", DATA, OUT], "store.zarr", folder=True),
    "demo": Writer(["demo", OUT, "--rows", "1000"], "demo", folder=True, pairs=1),
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    X = blobs(6000, 1, 2)[0]
    write_zarr(folder / "x.zarr", X, 500)
    with dask.config.set(scheduler="synchronous"):
        GaussianMixture(2, random_state=0).fit(str(folder / "x.zarr")).save(folder / "m.npz")
    return Inputs(folder / "m.npz", folder / "x.zarr")


@pytest.fixture(scope="module")
def jobs() -> Iterator[ForkedJobs]:
    with forked_jobs() as found:
        yield found


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> Writer:
    """Every output in turn."""
    return WRITERS[request.param]


def run(words: list[str]) -> tuple[int, str]:
    """Run a command in this process; its exit code, and what it said."""
    if words[0] == "save":
        try:
            load(words[1]).save(words[2], overwrite="--overwrite" in words)
        except (OutputExistsError, UsageError) as e:
            return int(e.exit_code), str(e)
        except OSError as e:
            return 74, str(e)
        return 0, ""
    with dask.config.set(scheduler="synchronous"):
        result = CliRunner().invoke(main, words)
    return result.exit_code, result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def strays(folder: Path) -> set[str]:
    """What lies in a folder and is no output: what is kept of unfinished work may stay."""
    kept = (".checkpoint", ".partial")
    return {p.name for p in folder.iterdir() if p.name[0] == "." and not p.name.endswith(kept)}


# -- two at once -------------------------------------------------------------------------


def test_of_two_at_once_one_writes_and_the_other_is_told_who(
    writer: Writer, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path
) -> None:
    folders = [tmp_path / str(i) for i in range(writer.pairs)]
    for folder in folders:
        folder.mkdir()
    both: list[Job] = []
    for folder in folders:
        both += [Job(writer.command(inputs, folder / writer.name))] * 2
    ended = [end for i in range(0, len(both), 8) for end in jobs.together(*both[i : i + 8])]
    named = 0
    for folder, pair in zip(folders, zip(ended[::2], ended[1::2], strict=True), strict=True):
        first, second = sorted(pair, key=lambda end: end.code)
        if writer.replaces and second.code == 0:
            # One after the other.
            continue
        assert (first.code, second.code) == (0, 73), (first.said, second.said)
        named += f"process {first.pid} on " in second.said
        assert f"process {first.pid} on " in second.said or "exists" in second.said, second.said
        assert strays(folder) == set()
        assert (folder / writer.name).is_dir() == writer.folder
    assert named or writer.pairs < 5


def test_who_comes_while_it_is_written_is_told_who_writes(
    writer: Writer, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path
) -> None:
    output = tmp_path / writer.name
    with locked(output):
        ended = jobs.run(*writer.command(inputs, output, "--overwrite"))
        assert ended.code == 73, ended.said
        assert f"(process {os.getpid()} on " in ended.said
        assert "of user root, since" in ended.said
        assert f"is writing {output}: wait until it ends" in ended.said
        assert not output.exists()
    assert strays(tmp_path) == set()


# -- what is there -----------------------------------------------------------------------


def test_what_is_there_stays(writer: Writer, inputs: Inputs, tmp_path: Path) -> None:
    if writer.replaces:
        pytest.skip("is there to be replaced")
    output = tmp_path / writer.name
    for make in (lambda: output.write_text("precious"), output.mkdir):
        make()
        before = contents(tmp_path)
        code, said = run(writer.command(inputs, output))
        assert (code, f"{output} exists" in said) == (73, True), said
        assert contents(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == [writer.name]
        output.unlink() if output.is_file() else output.rmdir()


def test_what_appears_during_the_work_stays(
    writer: Writer, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if writer.replaces:
        pytest.skip("is there to be replaced")
    output = tmp_path / writer.name
    link, rename = os.link, Path.rename

    def appear(path: Any) -> None:
        """At the last instant, when no check comes after it."""
        if Path(path) == output and not output.exists():
            if writer.folder:
                output.mkdir()
            (output / "theirs" if writer.folder else output).write_text("precious")

    def linked(source: Any, path: Any) -> None:
        appear(path)
        link(source, path)

    def renamed(self: Path, path: Any) -> Path:
        appear(path)
        return rename(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", linked)
        patch.setattr(Path, "rename", renamed)
        code, said = run(writer.command(inputs, output))
    assert (code, f"{output} exists" in said) == (73, True), said
    found = contents(tmp_path)
    assert found[f"{writer.name}/theirs" if writer.folder else writer.name] == b"precious"
    assert strays(tmp_path) == set()


def test_a_file_system_without_hard_links_refuses_too(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    model = load(inputs.model)
    touch = Path.touch
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", lambda self, **how: (self.write_text("x"), touch(self, **how)))
        with pytest.raises(OutputExistsError, match=r"m\.npz exists"):
            model.save(tmp_path / "m.npz")
    assert contents(tmp_path) == {"m.npz": b"x"}
    (tmp_path / "m.npz").unlink()
    model.save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").n_components == 2
    assert strays(tmp_path) == set()


@pytest.mark.parametrize("name", ["folder", "pipe"])
def test_what_is_no_file_is_not_replaced_by_one(
    name: str, writer: Writer, inputs: Inputs, tmp_path: Path
) -> None:
    if writer.folder:
        pytest.skip("replaces a folder when told")
    output = tmp_path / writer.name
    output.mkdir() if name == "folder" else os.mkfifo(output)
    before = output.stat().st_ino
    code, said = run(writer.command(inputs, output, "--overwrite"))
    assert (code, "choose the name of a file" in said) == (73, True), said
    assert output.stat().st_ino == before
    assert strays(tmp_path) == set()


def test_a_failing_write_leaves_the_old_bytes(
    writer: Writer, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / writer.name
    if writer.folder:
        output.mkdir()
    (output / "old" if writer.folder else output).write_text("old")
    before = contents(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = run(writer.command(inputs, output, "--overwrite"))
    assert (code, "No space left on device" in said) == (74, True), said
    assert contents(tmp_path) == before
    assert strays(tmp_path) == set()
    code, said = run(writer.command(inputs, output, "--overwrite"))
    assert code == 0, said
    assert contents(tmp_path) != before
    assert strays(tmp_path) == set()


# -- folders and permissions -------------------------------------------------------------


def test_permissions_are_those_of_the_umask(
    writer: Writer, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path
) -> None:
    output = tmp_path / writer.name
    ended = jobs.run(*writer.command(inputs, output), umask=0o027)
    assert ended.code == 0, ended.said
    for path in [output, *output.rglob("*")]:
        expected = 0o750 if path.is_dir() else 0o640
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def refused_before(words: list[str]) -> str:
    """What a command says of its output, though nothing that it reads is there."""
    if words[0] != "save":
        words = [word.replace("x.zarr", "no.zarr").replace("/inputs", "/no") for word in words]
    code, said = run(words)
    assert code == 2, said
    return said


def test_a_folder_is_checked_before_the_data_are_read(
    writer: Writer, inputs: Inputs, tmp_path: Path
) -> None:
    where = tmp_path / "out"
    words = writer.command(inputs, where / writer.name)
    words = [word.replace(str(where / "beside"), str(tmp_path / "beside")) for word in words]
    assert f"there is no folder {where}; make it first" in refused_before(words)
    where.write_text("a file")
    assert f"{where} is a file, expected a folder" in refused_before(words)
    assert contents(tmp_path) == {"out": b"a file"}


def test_only_what_is_ours_is_removed_of_temporary_files(inputs: Inputs, tmp_path: Path) -> None:
    left = {".m.npz.0123abcd.tmp", ".m.npz.whatever.tmp", ".m.npz.x.0123abcd.tmp"}
    for name in left:
        (tmp_path / name).touch()
    load(inputs.model).save(tmp_path / "m.npz")
    expected = left - {".m.npz.0123abcd.tmp"} | {"m.npz"}
    assert {p.name for p in tmp_path.iterdir()} == expected


def test_no_output_replaces_what_is_read(inputs: Inputs, tmp_path: Path) -> None:
    model, data = shutil.copy(inputs.model, tmp_path), tmp_path / "x.zarr"
    shutil.copytree(inputs.data, data)
    found = Inputs(Path(model), data)
    before = contents(tmp_path)
    for name, output, read in (
        ("predict", data, "data"),
        ("predict", tmp_path, "model"),
        ("predict", found.model, "model"),
        ("report", found.model, "model"),
        ("ingest", data, "source"),
    ):
        code, said = run(WRITERS[name].command(found, output, "--overwrite"))
        assert (code, f"{output} would replace the {read}" in said) == (2, True), said
    output = tmp_path / "new.npz"
    code, said = run(WRITERS["fit"].command(found, output, "--metrics-file", str(output)))
    assert (code, f"{output} would replace the model" in said) == (2, True), said
    assert contents(tmp_path) == before


def test_pages_of_the_library_are_locked_too(inputs: Inputs, tmp_path: Path) -> None:
    model = load(inputs.model)
    with locked(tmp_path / "page.html"), pytest.raises(LockedError, match="is writing"):
        write_page(tmp_path / "page.html", model, overwrite=True)
    write_page(tmp_path / "page.html", model)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_the_same_model_and_data_make_the_same_page(
    inputs: Inputs, tmp_path: Path, jobs: ForkedJobs
) -> None:
    page, pages = tmp_path / "page.html", []
    for _ in range(2):
        ended = jobs.run(*WRITERS["report"].command(inputs, page))
        assert ended.code == 0, ended.said
        pages.append(page.read_bytes())
        page.unlink()
    assert pages[0] == pages[1]


# -- signals -----------------------------------------------------------------------------


# Commands, and what must be the same of what they write: a model holds times.
INTERRUPTED: dict[str, tuple[Writer, Callable[[Path], object]]] = {
    "predict": (WRITERS["predict"], contents),
    "ingest": (WRITERS["ingest"], contents),
    "report": (
        Writer(["report", MODEL, OUT, "--sample-rows", "20"], "page.html"), Path.read_bytes
    ),
    "sweep": (
        Writer(
            ["fit", DATA, "-k", "2:4", "--exhaustive", "--tol", "0", "--max-iter", "3",
             "--sample-size", "100", "--checkpoint-interval", "0", "-o", OUT], "m.npz"
        ),
        lambda path: digest(load(path)),
    ),
    "demo": (WRITERS["demo"], lambda path: sorted(p.name for p in path.iterdir())),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "n"), [("predict", 6), ("ingest", 6), ("sweep", 3), ("report", 3)]
)
def test_signalled_at_random_instants_the_same_command_ends_with_the_same_bits(
    name: str, n: int, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path
) -> None:
    writer, bits = INTERRUPTED[name]
    output = tmp_path / writer.name
    interrupt(jobs, writer.command(inputs, output), output, lambda: bits(output), n, seed=n)


@pytest.mark.parametrize(
    ("name", "stride"), [("save", 1), ("predict", 31), ("ingest", 31), ("report", 5)]
)
def test_killed_at_a_step_the_same_command_ends_with_the_same_bits(
    name: str, stride: int, inputs: Inputs, jobs: ForkedJobs, tmp_path: Path
) -> None:
    kill_at_steps(name, stride, inputs, jobs, tmp_path)


def kill_at_steps(name: str, stride: int, inputs: Inputs, jobs: ForkedJobs, folder: Path) -> int:
    """Kill a writer before each step of what it does to files; how many there are."""
    output = folder / WRITERS[name].name
    words = WRITERS[name].command(inputs, output)
    assert jobs.run(*words).code == 0
    expected, step = contents(folder), 1
    while True:
        remove(output)
        ended = jobs.run(*words, step=step)
        if ended.code == 0:
            break
        assert ended.code == -9, (step, ended.said)
        whole = output.exists()
        again = jobs.run(*words)
        assert again.code == 0 or (again.code == 73 and whole), (step, again.said)
        assert contents(folder) == expected, step
        assert [path.name for path in folder.iterdir()] == [output.name], step
        step += stride
    assert step > 5
    return step
