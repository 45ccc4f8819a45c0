"""What a package index shows of the project, and how it is cited. `.ci/run` builds the packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from dask_em import __version__

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINK = re.compile(r"\]\(([^)]*)\)")


def long_description() -> str:
    """The README as the build shows it on a package index."""
    hook = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    shown = "".join((ROOT / fragment["path"]).read_text() for fragment in hook["fragments"])
    for change in hook["substitutions"]:
        shown = re.sub(change["pattern"], change["replacement"], shown)
    return shown


def test_links_work_where_the_readme_stands_alone() -> None:
    readme, shown = (ROOT / "README.md").read_text(), long_description()
    there = [link for link in LINK.findall(readme) if not link.startswith(("http", "#"))]
    assert there
    for link in there:
        path = link.partition("#")[0]
        assert (ROOT / path).exists(), link
        assert path.endswith(".png") or f"`{path}`" in shown, link
    assert [link for link in LINK.findall(shown) if not link.startswith(("http", "#"))] == []
    # What is no link to a file is shown as it is.
    assert re.findall(r"```[^`]*```", shown) == re.findall(r"```[^`]*```", readme)


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / ".github/CITATION.cff").read_text()
    assert re.findall(r"(?m)^version: (.*)$", citation) == [__version__]
    assert re.findall(r"(?m)^license: (.*)$", citation) == [PYPROJECT["project"]["license"]]
    cited = re.findall(r"(?m)^  - (?!name)(.*)$", citation)
    assert set(cited) <= set(PYPROJECT["project"]["keywords"])


def test_classifiers_name_the_oldest_python() -> None:
    project = PYPROJECT["project"]
    named = [re.findall(r":: (3\.\d+)$", c) for c in project["classifiers"]]
    minors = [int(version.partition(".")[2]) for (version,) in filter(None, named)]
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    assert project["requires-python"] == f">=3.{minors[0]}"
