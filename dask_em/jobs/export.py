"""The job that writes a saved model in the language of another program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from ..estimators.load import load
from ..storage.outputs.writer import check_output_file, output_file
from .arguments import check_apart, check_model

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator

Language = Literal["onnx", "sql", "json"]


def export(
    model_path: str,
    language: Language,
    output: str | None = None,
    overwrite: bool = False,
    dtype: Literal["float64", "float32"] = "float64",
    table: str | Sequence[str] = "data",
    keep: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write a saved model as an ONNX graph, a SELECT of SQL, or a document of JSON.

    Parameters
    ----------
    model_path : path or URL
    language : {"onnx", "sql", "json"}
    output : path or URL, optional
        The file to write, which ONNX needs.
    overwrite : bool
        Whether what is there may be replaced.
    dtype : {"float64", "float32"}
        Of the graph's input.
    table, keep
        As `to_sql` takes them.

    Returns
    -------
    dict
        The document of JSON; else which language, output and how many bytes, and of SQL the "text".

    Raises
    ------
    UsageError
        The model cannot be written so, or a package lacks.
    OutputExistsError
        Something is there that may not be replaced.
    """
    if language == "onnx":
        from ..exports.onnx import check_can_write

        check_can_write()
        if output is None:
            raise UsageError("an ONNX graph is no text: give the file to write")
    if output is not None:
        check_output_file(output, overwrite)
    check_model(model_path, "MODEL")
    if output is not None:
        check_apart(output, model_path, "model")
    model = load(model_path)
    if output is None:
        written = _written(model, language, dtype, table, keep)
    else:
        with output_file(output, overwrite) as opened:
            written = _written(model, language, dtype, table, keep)
            with opened.open() as file:
                file.write(written)
    told = {"language": language, "output": output, "n_bytes": len(written)}
    if language == "json":
        # The result of this one is the document.
        return dict(json.loads(written))
    return told if language == "onnx" else {**told, "text": written.decode()}


def _written(
    model: MixtureEstimator,
    language: Language,
    dtype: Literal["float64", "float32"],
    table: str | Sequence[str],
    keep: Sequence[str] | None,
) -> bytes:
    """Return the bytes of a model in a language."""
    if language == "onnx":
        from ..exports.onnx import to_onnx

        graph: bytes = to_onnx(model, dtype).SerializeToString()
        return graph
    if language == "sql":
        from ..exports.sql import to_sql

        return f"{to_sql(model, table, keep)};\n".encode()
    from ..exports.document import to_json

    return f"{json.dumps(to_json(model))}\n".encode()
