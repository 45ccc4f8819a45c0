"""What the benchmarks' results are compared by: `tests/benchmarks/check.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
RESULTS = (BENCHMARKS / "RESULTS.md").read_text()


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("check")


def test_every_table_is_compared_or_said_not_to_be(check: ModuleType) -> None:
    for table in check.tables(RESULTS):
        compared = any(re.fullmatch(ratio.section, table.section) for ratio in check.COMPARED)
        assert compared != (table.section in check.NOT_COMPARED), table.section


def test_every_comparison_finds_ratios(check: ModuleType) -> None:
    for ratio in check.COMPARED:
        found = [
            place
            for place in check.ratios(RESULTS)
            if re.fullmatch(ratio.section, place[0])
            and re.fullmatch(ratio.column, place[3].rpartition(" [")[0])
        ]
        assert found, ratio


# Ratios of both kinds: of a sweep less is better, of products more is.
MADE = """# Benchmark results

## A sweep over K

| clusters | rows | ratio |
| --- | --- | --- |
| 4 | 1,000 | 1.52 |
| 8 | 1,000 | 2.00 |

## K-means, one thread

### 1,000 x 16 (a peak of 53 GFLOP/s)

|  | s | of the product |
| --- | --- | --- |
| a pass | 0.266 | 70% |
"""


def test_a_ratio_that_fell_is_named(check: ModuleType) -> None:
    assert check.compare(MADE, MADE) == ([], [])
    changed = MADE.replace("2.00", "2.40").replace("70%", "50%").replace("53 G", "60 G")
    assert check.compare(MADE, changed) == (
        [
            "A sweep over K | 8, 1,000 | ratio: 2 before, 2.4 now, 17% worse",
            "K-means, one thread, 1,000 x 16 | a pass | of the product: 70 before, 50 now, "
            "29% worse",
        ],
        [],
    )
    # The other way round both are better, and less than 15 % is noise.
    assert check.compare(changed, MADE) == ([], [])
    assert check.compare(MADE, MADE.replace("2.00", "2.30")) == ([], [])


def test_a_row_of_one_side_alone_is_told(check: ModuleType) -> None:
    without = MADE.replace("| 8 | 1,000 | 2.00 |\n", "")
    assert check.compare(MADE, without)[1] == ["A sweep over K | 8, 1,000 | ratio: only before"]
    assert check.compare(without, MADE)[1] == ["A sweep over K | 8, 1,000 | ratio: only now"]
    # A section that was not measured again is no difference.
    assert check.compare(MADE, MADE.partition("## K-means")[0]) == ([], [])


def test_the_program_exits_with_1_where_something_fell(tmp_path: Path) -> None:
    (tmp_path / "before.md").write_text(MADE)
    (tmp_path / "after.md").write_text(MADE.replace("1.52", "3.04"))
    for files, code in ((("before", "after"), 1), (("after", "before"), 0)):
        paths = [str(tmp_path / f"{name}.md") for name in files]
        command = [sys.executable, str(BENCHMARKS / "check.py"), *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("FELL: A sweep over K | 4" in done.stdout) == (code == 1)


def test_all_runs_whatever_can_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sources = {path.stem: path.read_text() for path in BENCHMARKS.glob("*.py")}
    savers = {name for name, text in sources.items() if re.search(r"\b(publish|save)\(", text)}
    names = re.search(r"^NAMES = \[(.*?)^\]", sources["all"], re.M | re.S)
    assert names is not None
    # That of a GPU runs where there is one.
    assert set(re.findall(r'"(\w+)"', names[1])) == savers - {"common", "stores", "gpu"}
