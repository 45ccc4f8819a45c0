"""Damaged checkpoints: every damage is found, and the fit goes on from what is whole.

python tests/faults/all.py test_damage.py
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos import tell
from helpers import blobs, digest
from test_resume import StopAfter, StoppedError

from dask_em import GaussianMixture

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

# Few numbers, so that there are few bytes at which to cut.
X = blobs(600, 1, 2, apart=1.2)[0]
OLDER, NEWER = "pass-000002.npz", "pass-000003.npz"
FLIPS, RESUMED = 1000, 20


def model(folder: Path | None, stop_after: int = 0) -> GaussianMixture:
    return GaussianMixture(
        2, random_state=0, tol=1e-9, max_iter=6, sample_size=100, checkpoint=folder,
        callbacks=[StopAfter(stop_after)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def bits() -> str:
    return digest(model(None).fit(X))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The checkpoint of a fit that was stopped after three passes."""
    folder = tmp_path / "kept"
    with pytest.raises(StoppedError):
        model(folder, 3).fit(X)
    assert sorted(p.name for p in folder.iterdir()) == [OLDER, NEWER, "survey.npz"]
    return folder


class Kept:
    """A checkpoint, one file of which is damaged again and again."""

    def __init__(self, folder: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
        self.folder, self.file, self.caplog = folder, folder / name, caplog
        self.whole = {path: path.read_bytes() for path in folder.iterdir()}

    def open(self, contents: bytes) -> tuple[int | None, bool]:
        """With `contents` in the file, after which pass a fit goes on; whether it has a survey."""
        self.file.write_bytes(contents)
        self.caplog.clear()
        with model(self.folder).unfinished(X) as found:
            candidates = [] if found.progress is None else found.progress.candidates
            kept = candidates[0] if candidates else None
            state = None if kept is None else kept.state
        return None if state is None else state.n_iter, found.survey is not None

    def warned(self, text: str) -> bool:
        return (
            any(
                record.levelname == "WARNING" and text in record.getMessage()
                for record in self.caplog.records
            )
            and self.file.name in self.caplog.text
        )

    def fit(self, contents: bytes) -> str:
        """The bits of a fit that goes on where the file holds `contents`."""
        for path, before in self.whole.items():
            path.write_bytes(before)
        for path in set(self.folder.iterdir()) - set(self.whole):
            path.unlink()
        self.file.write_bytes(contents)
        return digest(model(self.folder).fit(X))


def flipped(whole: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(whole)
    damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def damages(how: str, whole: bytes) -> Iterator[bytes]:
    if how == "truncated":
        yield from (whole[:length] for length in range(len(whole)))
    else:
        rng = random.Random(0)
        yield from (flipped(whole, rng) for _ in range(FLIPS))


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_the_newest_state_is_damaged(
    how: str, kept: Path, bits: str, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    one = Kept(kept, NEWER, caplog)
    whole = one.whole[one.file]
    assert one.open(whole) == (3, True)
    assert not caplog.records or not one.warned("")
    n = 0
    for contents in damages(how, whole):
        n += 1
        assert one.open(contents) == (2, True), (how, n)
        assert one.warned("going on with the one before it"), (how, n, caplog.text)
    rng = random.Random(1)
    for contents in rng.sample(list(damages(how, whole)), RESUMED):
        assert one.fit(contents) == bits
    injected = {
        "truncated": f"the newest state cut at each of its {n} bytes",
        "flipped": f"the newest state with one of {n} random bits flipped",
    }
    tell(
        record_property,
        f"checkpoint {how}",
        injected[how],
        f"all detected; the state before it was used, with a warning; {RESUMED} were fitted to "
        "the end",
        lost="one pass",
        bits="yes",
    )


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_the_survey_is_damaged(
    how: str, kept: Path, bits: str, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    one = Kept(kept, "survey.npz", caplog)
    whole, rng = one.whole[one.file], random.Random(2)
    some = rng.sample(list(damages(how, whole)), 500)
    for contents in some:
        assert one.open(contents) == (3, False)
        assert one.warned("the survey is made again")
    for contents in some[:RESUMED]:
        assert one.fit(contents) == bits
    tell(
        record_property,
        f"checkpoint's survey {how}",
        f"at {len(some)} random places",
        f"all detected; the survey was made again, with a warning; {RESUMED} were fitted to the "
        "end",
        lost="the survey",
        bits="yes",
    )


def test_nothing_whole_is_left(
    kept: Path, bits: str, caplog: pytest.LogCaptureFixture, record_property: Any
) -> None:
    """Both states damaged: refused with what to do, never a fit from half of something."""
    from dask_em import Checkpointing
    from dask_em.errors import ModelFileError

    rng = random.Random(4)
    one, other = Kept(kept, NEWER, caplog), Kept(kept, OLDER, caplog)
    for _ in range(100):
        other.file.write_bytes(flipped(other.whole[other.file], rng))
        one.file.write_bytes(flipped(one.whole[one.file], rng))
        with pytest.raises(ModelFileError, match=r"no whole checkpoint is left.*resume=False"):
            model(kept).fit(X)
    anew = model(kept)
    anew.set_params(checkpoint=Checkpointing(kept, resume=False))
    assert digest(anew.fit(X)) == bits
    tell(
        record_property,
        "both states of a checkpoint damaged",
        "100 pairs of random bits flipped",
        "code 65 with the remedy each time; with --no-resume it begins anew",
        lost="all",
        bits="yes",
    )
