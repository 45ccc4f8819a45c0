"""The Python blocks of every README run, in order, in a folder with a small `points.zarr`.

A block that cannot run has the comment `<!-- not run: WHY -->` on the line before its fence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import blobs, write_zarr

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in sorted(ROOT.glob("**/*.md"))
    if ".venv" not in page.parts and "```python" in page.read_text()
]
BLOCK = re.compile(r"(?ms)^(?:<!-- not run: (.+?) -->\n)?```python\n(.*?)^```$")


def write_table() -> None:
    """The small `points.parquet` of the pages."""
    import pyarrow as pa
    from pyarrow import parquet

    X = blobs(4000, 2, 4)[0]
    columns = {"id": np.arange(4000), "flux_g": X[:, 0], "flux_r": X[:, 1]}
    more = {"flux_err": np.ones(4000), "exposure": np.full(4000, 2.0), "note": ["text"] * 4000}
    parquet.write_table(pa.table({**columns, **more}), "points.parquet", row_group_size=1000)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_zarr("points.zarr", blobs(4000, 2, 4)[0].astype(np.float32), 1000)
    if ".parquet" in page.read_text():
        pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
        write_table()
    if "import xarray" in page.read_text():
        pytest.importorskip("xarray", reason="the extra `xarray` is not installed")
    text, names = page.read_text(), dict[str, Any]()
    for block in BLOCK.finditer(text):
        if block[1] is None:
            # Errors name the line of the page.
            lines = text[: block.start(2)].count("\n")
            exec(compile("\n" * lines + block[2], str(page), "exec"), names)
