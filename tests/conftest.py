from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import dask
import pytest
from distributed import Client
from helpers import KINDS, SMALL_READS, SmallReads, Tune, start_cluster
from hypothesis import settings

from dask_em.core.tuning import tuning, use_tuning

settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("repeatable")

# What `-m quick` takes: the mathematics, the passes and the files, without a cluster. It needs no
# extra, and is what runs where none is installed.
QUICK = [
    "architecture",
    "docstrings",
    "em",
    "kernels",
    "laws",
    "light",
    "model_file",
    "numerics",
    "sources",
]

# Files that take longest, the longest first. They are begun first, so that no worker of
# `-n 2 --dist loadfile` is left alone with one of them at the end.
LONG = [
    "resume",
    "rivals",
    "object_stores",
    "stored",
    "memory",
    "readme",
    "examples",
    "strangers",
    "kmeans",
    "family_table",
    "latent_classes",
    "canonical",
    "student_t_fits",
    "degenerate",
    "mixed",
    "acceleration",
    "selection",
    "advice",
    "estimator",
    "workers",
    "programs",
]


def pytest_configure(config: pytest.Config) -> None:
    # Else pytest-xdist begins with the files of the most tests, and ends with those of a few long
    # ones.
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}": i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))
    for item in items:
        apart = any(item.get_closest_marker(name) for name in ("slow", "deploy", "faults"))
        if item.path.stem.removeprefix("test_") in QUICK and not apart:
            item.add_marker("quick")


@pytest.fixture(scope="module")
def many_chunks() -> Iterator[None]:
    """Cut a test's few rows into many chunks, as large data are."""
    with use_tuning(SMALL_READS):
        yield


@pytest.fixture
def tune() -> Iterator[Tune]:
    """Change tuning constants until the end of the test."""
    with ExitStack() as changes:

        def change(**groups: dict[str, object]) -> None:
            changes.enter_context(use_tuning(tuning().with_changes(**groups)))

        yield change


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    """Every covariance structure in turn: the table that the laws run over."""
    return request.param


@pytest.fixture(params=["numpy", "numba"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each engine in turn as the one that fits take."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    with dask.config.set({"dask_em.fast": request.param == "numba"}):
        yield request.param


@pytest.fixture(scope="session")
def two_workers() -> Iterator[Client]:
    with start_cluster(2) as cluster, Client(cluster, set_as_default=False) as client:
        client.register_plugin(SmallReads())
        yield client


@pytest.fixture
def client(two_workers: Client, many_chunks: None) -> Iterator[Client]:
    """Two worker processes as the Dask scheduler in force."""
    with two_workers.as_current():
        yield two_workers


@pytest.fixture
def synchronous() -> Iterator[None]:
    """This thread as the Dask scheduler in force."""
    with dask.config.set(scheduler="synchronous"):
        yield
