"""FCS files through ingest: the numbers that FlowIO reads, channels by their markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import Tune

import dask_em
from dask_em import GaussianMixture
from dask_em.cli.main import main
from dask_em.errors import DataError

pytest.importorskip("pyarrow", reason="the extra `fcs` is not installed")
flowio = pytest.importorskip("flowio", reason="the extra `fcs` is not installed")

NAMES, MARKERS = ["FSC-A", "FL1-A", "FL2-A", "Time"], ["", "CD4", "CD8 µ", ""]
EVENTS = np.random.default_rng(0).normal(1000, 50, size=(1203, 4)).astype(np.float32)
EVENTS[:600, 1:3] += 4000


def written(path: Path, events: Any = EVENTS, markers: Any = MARKERS, **keywords: str) -> Path:
    """A file as FlowIO writes it."""
    with path.open("wb") as file:
        flowio.create_fcs(
            file, events.ravel().tolist(), NAMES, opt_channel_names=markers, metadata_dict=keywords
        )
    return path


def matrix(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path / "X", mode="r")[:])


@pytest.fixture(autouse=True)
def small(tune: Tune) -> None:
    tune(reading={"bytes": 4096}, ingest={"batch_rows": 100})


def test_events_are_rows_and_markers_columns(tmp_path: Path) -> None:
    done = dask_em.ingest(written(tmp_path / "a.fcs"), tmp_path / "a.zarr")
    assert (done.columns, done.dtype) == (("FSC-A", "CD4", "CD8 µ", "Time"), "float32")
    np.testing.assert_array_equal(matrix(tmp_path / "a.zarr"), EVENTS)
    model = GaussianMixture(2, columns=["CD*"], random_state=0).fit(tmp_path / "a.zarr")
    assert sorted(model.means_[:, 0] > 3000) == [False, True]
    # As users of FlowIO have them.
    theirs = flowio.FlowData(str(tmp_path / "a.fcs")).as_array()
    np.testing.assert_array_equal(matrix(tmp_path / "a.zarr"), theirs)


def test_gains_and_time_steps_are_applied(tmp_path: Path) -> None:
    path = written(tmp_path / "a.fcs", p2g="2.5", timestep="0.01")
    done = dask_em.ingest(path, tmp_path / "a.zarr")
    assert done.dtype == "float64"
    expected = EVENTS.astype(float)
    expected[:, 1] /= 2.5
    expected[:, 3] *= 0.01
    np.testing.assert_allclose(matrix(tmp_path / "a.zarr"), expected, rtol=1e-15)


def test_several_files_are_one_table_at_any_place(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    (tmp_path / "in").mkdir()
    written(tmp_path / "in/tube=1.fcs", EVENTS[:700])
    written(tmp_path / "in/tube=2.FCS", EVENTS[700:])
    dask_em.ingest(tmp_path / "in", tmp_path / "a.zarr")
    np.testing.assert_array_equal(matrix(tmp_path / "a.zarr"), EVENTS)
    with fsspec.open("memory://fcs/a.fcs", "wb") as file:
        file.write((tmp_path / "in/tube=1.fcs").read_bytes())
    dask_em.ingest("memory://fcs/a.fcs", tmp_path / "b.zarr")
    np.testing.assert_array_equal(matrix(tmp_path / "b.zarr"), EVENTS[:700])
    fsspec.filesystem("memory").rm("/fcs", recursive=True)


def test_markers_that_two_channels_share_do_not_name_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.fcs", markers=["", "dump", "dump", ""])
    done = dask_em.ingest(path, tmp_path / "a.zarr", columns=["FL*"])
    assert done.columns == ("FL1-A", "FL2-A")


def broken(path: Path, what: str) -> Path:
    data = written(path).read_bytes()
    text = {
        "cut": data[:-100],
        "no FCS": b"PK" + bytes(600),
        "empty": b"",
        "no $TOT": data.replace(b"$TOT", b"$TXT"),
        "odd $PAR": data.replace(b"$PAR/4", b"$PAR/x"),
        "more events": data.replace(b"$TOT/1203", b"$TOT/1204"),
        "odd range": data.replace(b"$P2R/262144", b"$P2R/26214x"),
        "other offsets": data[:30] + b"9" + data[31:],
        "odd type": data.replace(b"$DATATYPE/F", b"$DATATYPE/Q"),
    }[what]
    assert text != data
    path.write_bytes(text)
    return path


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("cut", "data section greater than file size"),
        ("no FCS", "text segment is wrong"),
        ("empty", "text segment is wrong"),
        ("no $TOT", r"lacks the keyword \$TOT"),
        ("odd $PAR", "text segment is wrong: .*'x'"),
        ("more events", r"it holds 4812 numbers, and \$TOT x \$PAR is 1204 x 4"),
        ("odd range", "text segment is wrong: .*26214x"),
        ("other offsets", "discrepancy in the DATA"),
        ("odd type", ""),
    ],
)
def test_a_wrong_file_is_named(what: str, said: str, tmp_path: Path) -> None:
    path = broken(tmp_path / "a.fcs", what)
    with pytest.raises(DataError, match=rf"a\.fcs cannot be read as FCS \(.*{said}"):
        dask_em.ingest(path, tmp_path / "a.zarr")
    result = CliRunner().invoke(main, ["ingest", str(path), str(tmp_path / "a.zarr")])
    assert (result.exit_code, "Traceback" in result.stderr) == (65, False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.fcs"]


def test_several_data_sets_in_one_file_are_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "a.fcs", comment="x").read_bytes()
    # As long as it was.
    again = data.replace(b"$NEXTDATA/0/", b"$NEXTDATA/9/")
    (tmp_path / "a.fcs").write_bytes(again)
    with pytest.raises(DataError, match="holds several data sets"):
        dask_em.ingest(tmp_path / "a.fcs", tmp_path / "a.zarr")
