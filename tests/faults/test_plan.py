"""What `plan` says of a worker's memory, against the peak of a worker that fits.

python tests/faults/all.py test_plan.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chaos import tell
from worker_memory import CASES, measure

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", CASES)
def test_a_plan_is_never_passed_and_never_far(
    name: str, tmp_path: Path, record_property: Any
) -> None:
    if CASES[name].fast is not False:
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    found = measure(CASES[name], tmp_path)
    tell(
        record_property, f"memory planned for a fit: {name}", "a fresh worker of a LocalCluster",
        f"{found}: {found.ratio:.2f}",
    )  # fmt: skip
    assert 0.8 <= found.ratio <= 1.0, found.phases


@pytest.mark.parametrize("name", ["float32", "a sweep of 20 models"])
def test_nor_where_the_loops_are_compiled_first(
    name: str, tmp_path: Path, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    # Workers inherit it; here the loops are loaded.
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "loops"))
    found = measure(CASES[name], tmp_path)
    assert [*(tmp_path / "loops").rglob("*.nbi")]
    tell(
        record_property, f"memory planned for a fit: {name}", "Numba has nothing in its cache",
        f"{found}: {found.ratio:.2f}",
    )  # fmt: skip
    assert 0.8 <= found.ratio <= 1.0, found.phases
