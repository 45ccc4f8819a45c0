"""Build the API reference into a folder: python .ci/api.py FOLDER (the extra `docs`)."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc

import dask_em

warnings.simplefilter("error")
# pdoc looks for inherited fields in the classes that one derives from, which a TypedDict forgets.
warnings.filterwarnings("ignore", message=r"Cannot determine where .*Choices\.\w+ is taken from")
for name in dask_em.__all__:
    # pdoc looks for names in the module itself, where they are only once they were asked for.
    setattr(dask_em, name, getattr(dask_em, name))
folders = sorted(path.parent.name for path in Path(dask_em.__file__).parent.glob("*/__init__.py"))
pdoc.render.configure(docformat="numpy", math=True)
pdoc.pdoc(
    "dask_em", *(f"dask_em.{folder}" for folder in folders), output_directory=Path(sys.argv[1])
)
