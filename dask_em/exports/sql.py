"""Models as standard SQL: a SELECT that labels the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.additive import Array
from ..core.formula import Operators
from ..core.support import Support
from ..errors import UsageError
from .answers import Exported, ModelFormula, column_names

Columns = list[str]
"""An expression for each column of a value."""

# Exponentials of less are nothing beside those that are added to them, and an error to some.
LEAST_EXPONENT = -700.0

# Of a component without weight: SQL has no word for minus infinity.
NEVER = -1e300

LABEL, PROBABILITY, DISTANCE = "label", "probability", "distance"


def to_sql(
    model: Exported, table: str | Sequence[str] = "data", keep: Sequence[str] | None = None
) -> str:
    """Write a fitted model as a SELECT of standard SQL that labels the rows of a table.

    It returns the columns that are kept, then `label`, and the `probability` of that component
    given the row; of K-means the `distance` from that centre. A row that has no answer (NULL, NaN,
    infinity, or what the family does not describe) has NULL in both. It has been run on DuckDB.

    Parameters
    ----------
    model : fitted estimator
    table : str or sequence of str
        The name of the table, which is quoted; or those of schema and table, ("main", "rows").
    keep : sequence of str, optional
        Names of the columns that are returned, such as a key; by default those of the model.

    Returns
    -------
    str
        One statement, without a semicolon.

    Raises
    ------
    UsageError
        A name is empty, or the model has no formula.

    Examples
    --------
    >>> from dask_em import KMeans, to_sql
    >>> model = KMeans.from_parameters([[0.0], [9.0]], feature_names=["size"])
    >>> print(to_sql(model, "points", keep=["id"]))
    WITH
    ...
    SELECT "id", CASE WHEN ...
    """
    formula = ModelFormula.of(model)
    names = column_names(formula)
    kept = list(names if keep is None else keep)
    place = [table] if isinstance(table, str) else list(table)
    _check_names((*names, *kept, *place), formula)
    write = SqlOperators([*names, *kept, *place])
    x = write.read(formula, names, kept, ".".join(map(quoted, place)))
    written = formula.write(write, x)
    priors = np.where(np.isfinite(formula.log_prior), formula.log_prior, NEVER)
    joint = write.named(write.scaled(written.components, np.ones(len(priors)), -priors))
    best = write.largest(joint)
    tests = " ".join(f"WHEN {one} = {best} THEN {k}" for k, one in enumerate(joint))
    if formula.hard:
        told, second = f"SQRT({number(-(formula.unit**2))} * {best})", DISTANCE
    else:
        least = number(LEAST_EXPONENT)
        total = _added([f"EXP(GREATEST({one} - {best}, {least}))" for one in joint])
        told, second = f"1E0 / {total}", PROBABILITY
    answers = {LABEL: f"CASE {tests} END", second: told}
    columns = [
        f"CASE WHEN {write.known} = 1 THEN {value} END AS {quoted(write.free(name))}"
        for name, value in answers.items()
    ]
    return write.statement(", ".join([*map(quoted, kept), *columns]))


def _check_names(names: Sequence[str], formula: ModelFormula) -> None:
    """Raise `UsageError` where a name, or the word of a category, has no place in a statement."""
    words = [word for column in formula.categories for word in column]
    # A statement goes through terminals and logs, which show no control characters.
    if not all(names) or not "".join((*names, *words)).isprintable():
        raise UsageError(
            "a name of a column, a table or a category is empty, or has control characters, which "
            "no statement of SQL can hold: rename it"
        )


def quoted(name: str) -> str:
    """Return a name as an identifier that SQL takes as it is.

    Examples
    --------
    >>> quoted('a "b"; --')
    '"a ""b""; --"'
    """
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def text(value: str) -> str:
    """Return a text as a literal of SQL.

    Examples
    --------
    >>> text("it's")
    "'it''s'"
    """
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


def number(value: float) -> str:
    """Return a number as a literal of SQL in floating point, to all its digits.

    Examples
    --------
    >>> number(0.1), number(-2e300), number(3.0)
    ('1E-1', '(-2E300)', '3E0')
    """
    digits = np.format_float_scientific(value, trim="-", exp_digits=1).upper().replace("+", "")
    return f"({digits})" if value < 0 else digits


class SqlOperators(Operators[Columns]):
    """Write operators as expressions; those that are used again are named in a query of their own.

    Parameters
    ----------
    taken : sequence of str
        Names of the table and its columns, which no name that is made here may be.
    """

    def __init__(self, taken: Sequence[str]) -> None:
        # Identifiers are the same whatever their case, in most databases even where quoted.
        self._taken = {name.casefold() for name in taken}
        self._stages: list[tuple[str, str]] = []
        self._names: set[str] = set()
        self.known = ""

    def free(self, name: str) -> str:
        """Return a name that no column has, nor any that was made before."""
        while name.casefold() in self._taken:
            name = f"{name}_"
        self._taken.add(name.casefold())
        return name

    def read(
        self, formula: ModelFormula, names: Sequence[str], kept: Sequence[str], table: str
    ) -> Columns:
        """Read the columns as numbers, NULL in a row that has no answer; and which rows have one.

        Conditions are checked before anything is computed: the logarithm of what the family does
        not describe is an error, not a value.
        """
        raw = [self.free(f"c{j}") for j in range(len(names))]
        read = [
            f"{_as_number(name, words)} AS {quoted(own)}"
            for name, words, own in zip(names, formula.categories, raw, strict=True)
        ]
        kept_once = dict.fromkeys(map(quoted, kept))
        self._add_stage(f"SELECT {', '.join([*kept_once, *read])} FROM {table}")
        columns = [quoted(own) for own in raw]
        support = formula.support
        conditions = [_condition(one, support, j) for j, one in enumerate(columns)]
        (self.known,) = self.named([f"CASE WHEN {' AND '.join(conditions)} THEN 1 ELSE 0 END"])
        # A missing value is NULL from here on: some databases take NaN for the largest number.
        there = [
            f" AND {one} - {one} = 0E0" if missing else ""
            for one, missing in zip(columns, support.missing, strict=True)
        ]
        return self.named(
            [
                f"CASE WHEN {self.known} = 1{also} THEN {one} END"
                for one, also in zip(columns, there, strict=True)
            ]
        )

    def named(self, x: Columns) -> Columns:
        """Return names of expressions, which are computed once by a query of their own."""
        if all(one in self._names for one in x):
            return x
        first = len(self._names)
        found = [quoted(self.free(f"v{first + i}")) for i in range(len(x))]
        told = ", ".join(f"{value} AS {name}" for value, name in zip(x, found, strict=True))
        self._add_stage(f"SELECT *, {told} FROM {self._last}")
        self._names.update(found)
        return found

    def _add_stage(self, query: str) -> None:
        self._stages.append((quoted(self.free(f"step{len(self._stages)}")), query))

    @property
    def _last(self) -> str:
        return self._stages[-1][0]

    def statement(self, columns: str) -> str:
        """Return the SELECT of these columns from the last of the queries."""
        steps = ",\n".join(f"{name} AS ({query})" for name, query in self._stages)
        return f"WITH\n{steps}\nSELECT {columns} FROM {self._last}"

    def largest(self, x: Columns) -> str:
        """Name the largest of all columns."""
        (found,) = self.named([f"GREATEST({', '.join(x)})" if len(x) > 1 else x[0]])
        return found

    # -- the operators of formulas -----------------------------------------------------------

    def columns(self, x: Columns, chosen: Sequence[int]) -> Columns:
        """Take some columns."""
        return [x[j] for j in chosen]

    def product(self, x: Columns, matrix: Array, offset: Array | None = None) -> Columns:
        """Multiply rows by a matrix, and add an offset."""
        named = self.named(x)
        offsets = np.zeros(matrix.shape[1]) if offset is None else offset
        return [
            _sum([f"{number(a)} * {one}" for a, one in zip(row, named, strict=True) if a], c)
            for row, c in zip(matrix.T.tolist(), offsets.tolist(), strict=True)
        ]

    def scaled(self, x: Columns, factor: Array, shift: Array | None = None) -> Columns:
        """Multiply each column by its factor, after its shift was taken off."""
        shifts = np.zeros(len(x)) if shift is None else shift
        return [
            _times(_less(one, float(b)), float(a))
            for one, a, b in zip(x, factor, shifts, strict=True)
        ]

    def distances(self, x: Columns, centers: Array, roots: Array) -> Columns:
        """Square the lengths of (x - center_k) root_k."""
        named, found = self.named(x), []
        for center, root in zip(centers, roots, strict=True):
            apart = [_less(one, c) for one, c in zip(named, center.tolist(), strict=True)]
            if root.ndim == 1:
                turned = [_times(one, a) for one, a in zip(apart, root.tolist(), strict=True)]
            else:
                turned = [
                    _sum([_times(one, a) for one, a in zip(apart, column, strict=True) if a], 0.0)
                    for column in root.T.tolist()
                ]
            found.append(_added([f"POWER({one}, 2E0)" for one in turned]))
        return found

    def add(self, x: Columns, y: Columns) -> Columns:
        """Add."""
        return [f"({a} + {b})" for a, b in zip(x, self._alike(x, y), strict=True)]

    def multiply(self, x: Columns, y: Columns) -> Columns:
        """Multiply."""
        return [f"({a} * {b})" for a, b in zip(x, self._alike(x, y), strict=True)]

    def _alike(self, x: Columns, y: Columns) -> Columns:
        return y if len(y) == len(x) else self.named(y) * len(x)

    def reciprocal(self, x: Columns) -> Columns:
        """Compute 1 / x."""
        return [f"(1E0 / ({one}))" for one in x]

    def log(self, x: Columns) -> Columns:
        """Take natural logarithms."""
        return [f"LN({one})" for one in x]

    def log1p(self, x: Columns) -> Columns:
        """Take logarithms of 1 + x, as ONNX graphs do."""
        named = self.named(x)
        sums = self.named([f"1E0 + {one}" for one in named])
        return [
            f"CASE WHEN {w} = 1E0 THEN {one} ELSE LN({w}) * ({one} / ({w} - 1E0)) END"
            for one, w in zip(named, sums, strict=True)
        ]

    def root(self, x: Columns) -> Columns:
        """Take square roots."""
        return [f"SQRT({one})" for one in x]

    def rounded(self, x: Columns, which: Sequence[bool]) -> Columns:
        """Round some of the columns: of halves the even number, which ROUND does not take."""
        named = self.named(x)
        up = [f"FLOOR({one} + 5E-1)" for one in named]
        return [
            f"({u} - CASE WHEN {one} + 5E-1 = {u} AND 2E0 * FLOOR({u} / 2E0) <> {u} "
            "THEN 1E0 ELSE 0E0 END)"
            if chosen
            else one
            for one, u, chosen in zip(named, up, which, strict=True)
        ]

    def at_least(self, x: Columns, least: float) -> Columns:
        """Raise smaller numbers to the least one."""
        return [f"GREATEST({one}, {number(least)})" for one in x]

    def answers(self, x: Columns, n_categories: Sequence[int], threshold: float | None) -> Columns:
        """Tell which answer each column is."""
        if threshold is None:
            tests = [
                f"FLOOR({one}) = {c}E0"
                for one, n in zip(x, n_categories, strict=True)
                for c in range(n)
            ]
        else:
            cut = number(threshold)
            tests = [f"{one} {sign} {cut}" for one in x for sign in ("<=", ">")]
        return [f"CASE WHEN {test} THEN 1E0 ELSE 0E0 END" for test in tests]


def _sum(terms: Sequence[str], offset: float) -> str:
    return _added([*([number(offset)] if offset or not terms else []), *terms])


def _added(terms: Sequence[str]) -> str:
    """Return a sum of two halves, and so on: databases bound how deep expressions are nested."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_added(terms[:half])} + {_added(terms[half:])})"


def _times(value: str, factor: float) -> str:
    return value if factor == 1 else f"{number(factor)} * {value}"


def _less(value: str, shift: float) -> str:
    return value if shift == 0 else f"({value} - {number(shift)})"


def _as_number(name: str, words: Sequence[str]) -> str:
    """Read a column in floating point: of words by their codes, NULL of any other."""
    if not words:
        return f"CAST({quoted(name)} AS DOUBLE PRECISION)"
    codes = " ".join(f"WHEN {text(word)} THEN {code}E0" for code, word in enumerate(words))
    return f"CASE {quoted(name)} {codes} END"


def _condition(x: str, support: Support, j: int) -> str:
    """Return whether a row has an answer, as far as column j tells."""
    tests = [f"{x} - {x} = 0E0"]
    if np.isfinite(support.least[j]):
        tests.append(f"{x} >= {number(support.least[j])}")
    if np.isfinite(support.most[j]):
        tests.append(f"{x} <= {number(support.most[j])}")
    if support.whole[j]:
        tests.append(f"FLOOR({x}) = {x}")
    found = " AND ".join(tests)
    if not support.missing[j]:
        return found
    infinite = f"ABS({x}) = CAST('Infinity' AS DOUBLE PRECISION)"
    return f"({found} OR {x} IS NULL OR NOT ({x} - {x} = 0E0 OR {infinite}))"
