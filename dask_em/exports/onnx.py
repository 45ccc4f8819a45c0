"""Models as ONNX graphs of plain operators, in float64."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core.additive import Array
from ..core.formula import Operators
from ..core.support import Support
from ..errors import UsageError
from ..version import __version__
from .answers import Exported, ModelFormula, column_names

if TYPE_CHECKING:
    import onnx

Input = Literal["float64", "float32"]

# Every operator of the graphs is in these, which runtimes of 2023 and later read.
OPSET, IR_VERSION = 18, 9

NO_LABEL = -1


def check_can_write() -> None:
    """Check before the work that graphs can be made.

    Raises
    ------
    UsageError
        The package onnx is not installed.
    """
    if find_spec("onnx") is None:
        lacking = ModuleNotFoundError("No module named 'onnx'", name="onnx")
        raise UsageError("an ONNX graph needs onnx: pip install 'dask-em[onnx]'") from lacking


def to_onnx(model: Exported, dtype: Input = "float64") -> onnx.ModelProto:
    """Write a fitted model as an ONNX graph of plain operators, in float64.

    Its input is `X` (n, d), the columns in the order of the fit; words of a categorical column are
    to be their codes. Its outputs are `label` (n,) of int64, `probabilities` (n, k) and
    `log_density` (n,) in nats; of K-means `label` and `distances` (n, k). A row that has no answer
    (NaN, infinity, or what the family does not describe) has the label -1, and NaN.

    Parameters
    ----------
    model : fitted estimator
    dtype : {"float64", "float32"}
        The type of X. What is computed is float64.

    Returns
    -------
    onnx.ModelProto
        With the names of the columns, and of their categories, in its metadata.

    Raises
    ------
    UsageError
        The package onnx is not installed, or the model has no formula.

    Examples
    --------
    >>> from dask_em import GaussianMixture, to_onnx
    >>> model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [9.0]], [[[1.0]], [[1.0]]])
    >>> [output.name for output in to_onnx(model).graph.output]
    ['label', 'probabilities', 'log_density']
    """
    check_can_write()
    from onnx import checker, helper

    formula = ModelFormula.of(model)
    graph = OnnxOperators()
    outputs = _answers(graph, formula, dtype)
    d = formula.n_features
    found = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"{model.family} mixture",
            [helper.make_tensor_value_info("X", graph.type_of(dtype), ["n", d])],
            outputs,
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="dask-em",
        producer_version=__version__,
    )
    told = {"columns": column_names(formula), "categories": [*map(list, formula.categories)]}
    helper.set_model_props(found, {name: json.dumps(value) for name, value in told.items()})
    checker.check_model(found)
    return found


class OnnxOperators(Operators[str]):
    """Write operators as nodes of a graph, whose values are tensors (n, m) by their names."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._of_array = helper, numpy_helper.from_array
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def type_of(self, dtype: str) -> int:
        """Return ONNX's number of a type."""
        return int(self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output, and return its name."""
        output = name or f"v{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: Array | float | Sequence[int]) -> str:
        """Add a constant: integers are int64, all other numbers float64."""
        array = np.ascontiguousarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float64)
        # A number stands for itself, not for a vector of one.
        array = array.reshape(np.shape(value))
        name = f"c{len(self.constants)}"
        self.constants.append(self._of_array(array, name))
        return name

    def cast(self, x: str, dtype: str = "float64") -> str:
        """Return numbers of another type."""
        return self.node("Cast", x, to=self.type_of(dtype))

    # -- the operators of formulas -----------------------------------------------------------

    def columns(self, x: str, chosen: Sequence[int]) -> str:
        """Take some columns."""
        return self.node("Gather", x, self.constant(np.array(chosen, dtype=np.int64)), axis=1)

    def product(self, x: str, matrix: Array, offset: Array | None = None) -> str:
        """Multiply rows by a matrix, and add an offset."""
        found = self.node("MatMul", x, self.constant(matrix))
        return found if offset is None else self.node("Add", found, self.constant(offset))

    def scaled(self, x: str, factor: Array, shift: Array | None = None) -> str:
        """Multiply each column by its factor, after its shift was taken off."""
        moved = x if shift is None else self.node("Sub", x, self.constant(shift))
        return self.node("Mul", moved, self.constant(factor))

    def distances(self, x: str, centers: Array, roots: Array) -> str:
        """Square the lengths of (x - center_k) root_k."""
        by_component = self.node("Unsqueeze", x, self.constant(np.array([0])))
        apart = self.node("Sub", by_component, self.constant(centers[:, None]))
        if roots.ndim == 2:
            turned = self.node("Mul", apart, self.constant(roots[:, None]))
        else:
            turned = self.node("MatMul", apart, self.constant(roots))
        squares = self.node("Mul", turned, turned)
        # (k, n)
        found = self.node("ReduceSum", squares, self.constant(np.array([2])), keepdims=0)
        return self.node("Transpose", found)

    def add(self, x: str, y: str) -> str:
        """Add."""
        return self.node("Add", x, y)

    def multiply(self, x: str, y: str) -> str:
        """Multiply."""
        return self.node("Mul", x, y)

    def reciprocal(self, x: str) -> str:
        """Compute 1 / x."""
        return self.node("Div", self.constant(1.0), x)

    def log(self, x: str) -> str:
        """Take natural logarithms."""
        return self.node("Log", x)

    def log1p(self, x: str) -> str:
        """Take logarithms of 1 + x as log(w) x / (w - 1), w being 1 + x as it is rounded.

        What rounding did to x it does to both (Goldberg 1991, theorem 4).
        """
        one = self.constant(1.0)
        w = self.node("Add", x, one)
        share = self.node("Div", x, self.node("Sub", w, one))
        product = self.node("Mul", self.node("Log", w), share)
        return self.node("Where", self.node("Equal", w, one), x, product)

    def root(self, x: str) -> str:
        """Take square roots."""
        return self.node("Sqrt", x)

    def rounded(self, x: str, which: Sequence[bool]) -> str:
        """Round some of the columns; ONNX rounds halves to even numbers."""
        return self.node("Where", self.constant(np.array(which)), self.node("Round", x), x)

    def at_least(self, x: str, least: float) -> str:
        """Raise smaller numbers to the least one."""
        return self.node("Max", x, self.constant(least))

    def answers(self, x: str, n_categories: Sequence[int], threshold: float | None) -> str:
        """Tell which answer each column is."""
        if threshold is None:
            codes = self.node("Floor", x)
        else:
            above = self.cast(self.node("Greater", x, self.constant(threshold)))
            # NaN stays.
            codes = self.node("Add", above, self.node("Sub", x, x))
        columns = [j for j, n in enumerate(n_categories) for _ in range(n)]
        numbers = np.concatenate([np.arange(n, dtype=np.float64) for n in n_categories])
        same = self.node("Equal", self.columns(codes, columns), self.constant(numbers))
        return self.cast(same)

    # -- which rows have an answer -------------------------------------------------------------

    def known(self, x: str, support: Support) -> str:
        """Tell which rows have an answer, (n, 1) of bool; `support` is of every column apart."""
        found = self.node("Equal", self.node("Sub", x, x), self.constant(0.0))
        least, most = np.array(support.least), np.array(support.most)
        if np.isfinite(least).any():
            above = self.node("GreaterOrEqual", x, self.constant(least))
            found = self.node("And", found, above)
        if np.isfinite(most).any():
            found = self.node("And", found, self.node("LessOrEqual", x, self.constant(most)))
        if any(support.whole):
            whole = self.node("Equal", self.node("Round", x), x)
            free = self.constant(~np.array(support.whole))
            found = self.node("And", found, self.node("Or", whole, free))
        if any(support.missing):
            none = self.node("Not", self.node("Equal", x, x))
            missing = self.node("And", none, self.constant(np.array(support.missing)))
            found = self.node("Or", found, missing)
        every = self.node("ReduceMin", self.cast(found), self.constant(np.array([1])), keepdims=1)
        return self.node("Equal", every, self.constant(1.0))


def _answers(
    graph: OnnxOperators, formula: ModelFormula, dtype: Input
) -> list[onnx.ValueInfoProto]:
    """Write the answers to rows, and return the outputs."""
    from onnx import helper

    k, columns = len(formula.log_prior), graph.constant(np.array([1]))
    x = graph.cast("X") if dtype == "float32" else "X"
    known = graph.known(x, formula.support)
    written = formula.write(graph, x)
    joint = graph.node("Add", written.components, graph.constant(formula.log_prior))
    likeliest = graph.node("ArgMax", joint, axis=1, keepdims=1)
    label = graph.node("Where", known, likeliest, graph.constant(np.array(NO_LABEL)))
    graph.node("Squeeze", label, columns, name="label")
    nan, double = graph.constant(np.nan), graph.type_of("float64")
    labels = helper.make_tensor_value_info("label", graph.type_of("int64"), ["n"])
    if formula.hard:
        squares = graph.scaled(written.components, np.full(k, -(formula.unit**2)))
        graph.node("Where", known, graph.root(squares), nan, name="distances")
        return [labels, helper.make_tensor_value_info("distances", double, ["n", k])]
    largest = graph.node("ReduceMax", joint, columns, keepdims=1)
    exps = graph.node("Exp", graph.node("Sub", joint, largest))
    total = graph.node("ReduceSum", exps, columns, keepdims=1)
    graph.node("Where", known, graph.node("Div", exps, total), nan, name="probabilities")
    density = graph.add(graph.log(total), largest)
    if written.common is not None:
        density = graph.add(density, written.common())
    graph.node("Squeeze", graph.node("Where", known, density, nan), columns, name="log_density")
    return [
        labels,
        helper.make_tensor_value_info("probabilities", double, ["n", k]),
        helper.make_tensor_value_info("log_density", double, ["n"]),
    ]
