"""Data that are damaged or lost while they are fitted: named, and never in a model.

python tests/faults/all.py test_data.py
"""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos import Job, job, spread, tell
from helpers import blobs, digest, start, write_zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from dask_em import GaussianMixture, load
from dask_em.errors import DataError

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

FLIPS, DELETIONS = 500, 10
N, D, CHUNK = 600, 3, 50
X, _, MEANS = blobs(N, D, 2, seed=1)
LAYOUTS: dict[str, dict[str, Any]] = {
    "raw, crc32c": {"compressors": [Crc32cCodec()]},
    "zstd, crc32c": {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "shards, crc32c": {
        "chunks": (25, D), "shards": (CHUNK, D), "compressors": [Crc32cCodec()],
    },
    "columns, crc32c": {"chunks": (CHUNK, 2), "compressors": [Crc32cCodec()]},
}  # fmt: skip


def chunk_files(array: Path) -> list[Path]:
    return sorted(path for path in (array / "c").rglob("*") if path.is_file())


def flip(file: Path, bit: int) -> None:
    contents = bytearray(file.read_bytes())
    contents[bit // 8] ^= 1 << bit % 8
    file.write_bytes(contents)


def small_fit(array: Path, after_pass: int = 0, harm: Callable[[], None] = lambda: None) -> Any:
    """A fit of three passes and a survey, harmed when so many passes of EM are over."""

    def callback(state: Any) -> None:
        if state.n_iter == after_pass:
            harm()

    model = GaussianMixture(
        2, **start("full", MEANS), tol=0.0, max_iter=3, algorithm="em", random_state=0,
        callbacks=[callback],
    )  # fmt: skip
    if not after_pass:
        harm()
    try:
        return model.fit(str(array))
    except DataError:
        assert not any(hasattr(model, name) for name in ("weights_", "means_", "state_"))
        raise


@pytest.mark.usefixtures("many_chunks", "synchronous")
def test_no_flipped_bit_is_fitted(tmp_path: Path, record_property: Any) -> None:
    rng = random.Random(11)
    when: list[int] = []
    for name, options in LAYOUTS.items():
        array = tmp_path / name.replace(" ", "")
        write_zarr(array, X, CHUNK, **options)
        files, bits = chunk_files(array), digest(small_fit(array))
        for _ in range(FLIPS // len(LAYOUTS)):
            file, after = rng.choice(files), rng.choice([0, 0, 1, 2])
            # Every byte of these files is behind a checksum or part of one.
            bit = rng.randrange(8 * file.stat().st_size)
            row = int(file.relative_to(array / "c").parts[0]) * CHUNK
            with pytest.raises(DataError, match=rf"rows {row} to|inner chunk") as caught:
                small_fit(array, after, lambda f=file, b=bit: flip(f, b))
            assert re.search(r"checksum|not whole|damaged|crc32c|decode", str(caught.value))
            flip(file, bit)
            when.append(after)
        assert digest(small_fit(array)) == bits
    before = sum(not after for after in when)
    tell(
        record_property,
        "bit flip in a chunk behind crc32c",
        f"{len(when)} random bits in {len(LAYOUTS)} layouts ({', '.join(LAYOUTS)}): {before} "
        f"before the fit, {len(when) - before} between two passes",
        "0 wrong reads: each fit ended with an error that names the chunk and its rows",
        bits="yes, when flipped back",
    )


# -- chunks that disappear under the program ------------------------------------------------


LOCAL = ["--workers", "1", "--memory-limit", "1GiB"]
OPTIONS = ["-k", "4", "--algorithm", "em", "--tol", "0", "--max-iter", "8", *LOCAL]


def lose(one: Job, chunk: Path, bits: str) -> None:
    """The run ended since `chunk` was gone; with it back, the same command goes on."""
    first = int(chunk.parent.name) * 20_000
    log = one.log.read_text()
    assert re.search(rf"chunk {chunk.parent.name} \(rows {first} to {first + 19_999};", log), log
    assert not one.model.exists()
    aside = chunk.with_name("aside")
    aside.rename(chunk)
    assert one.run() == 0, one.log.read_text()
    one.check_whole(bits)
    one.clear()


def test_a_chunk_is_deleted(tmp_path: Path, record_property: Any) -> None:
    data = tmp_path / "points.zarr"
    write_zarr(data, blobs(1_000_000, 4, 4, seed=3, apart=0.8)[0], 20_000)
    chunks, rng = chunk_files(data), random.Random(13)
    outcomes = {"before": 0, "random instant": 0}
    seconds = []
    with job(tmp_path / "out", data, *OPTIONS) as one:
        began = time.monotonic()
        assert one.run() == 0, one.log.read_text()
        length = time.monotonic() - began
        bits = digest(load(one.model))
        one.clear()

        chunk = rng.choice(chunks)
        chunk.rename(chunk.with_name("aside"))
        assert one.run() == 65, one.log.read_text()
        lose(one, chunk, bits)
        outcomes["before"] += 1

        # An instant at which all was read already harms nothing, and another is drawn.
        while outcomes["random instant"] < DELETIONS:
            chunk = rng.choice(chunks)
            process = one.start()
            one.wait_for("survey pass 1")
            try:
                process.wait(rng.uniform(0, length / 2))
            except subprocess.TimeoutExpired:
                deleted = time.monotonic()
                chunk.rename(chunk.with_name("aside"))
                code = one.wait()
            else:
                code = -1
            if code in (0, -1):
                one.check_whole(bits)
                one.clear()
                with_chunk = chunk.with_name("aside")
                if with_chunk.exists():
                    with_chunk.rename(chunk)
                continue
            seconds.append(time.monotonic() - deleted)
            assert code == 65, one.log.read_text()
            lose(one, chunk, bits)
            outcomes["random instant"] += 1
    tell(
        record_property,
        "chunk deleted before, during and between passes",
        f"once before, {DELETIONS} times at a seeded random instant after the survey",
        "code 65 each time, chunk and rows named, no model; with the chunk back the same command "
        f"ended with 0 (the error came {spread(seconds)} s after the deletion)",
        lost="at most one pass",
        bits="yes",
    )
