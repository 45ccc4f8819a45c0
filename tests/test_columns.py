"""Columns by name: chosen in a fit, found again by whatever is done with the model."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.base import clone

from dask_em import GaussianMixture, load
from dask_em.cli.fit import fit as fit_command
from dask_em.cli.main import main
from dask_em.cli.words import in_shell
from dask_em.core.columns import Column
from dask_em.data.columns import WeightColumn, choose
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError, UsageError

NAMES = ("id", "flux_g", "flux_r", "size", "w")
TABLE = [Column(name) for name in NAMES]


# -- which columns are chosen ----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "weight", "chosen"),
    [
        ({}, None, NAMES),
        ({}, "w", NAMES[:-1]),
        ({"columns": ["size", "flux_g"]}, None, ("size", "flux_g")),
        ({"columns": "flux_*"}, None, ("flux_g", "flux_r")),
        ({"columns": ["flux_r", "flux_*"]}, None, ("flux_r", "flux_g")),
        ({"columns": ["[sw]*"]}, "w", ("size",)),
        ({"exclude": ["id", "?"]}, None, ("flux_g", "flux_r", "size")),
        ({"columns": ["flux_*", "size"], "exclude": "*_r"}, None, ("flux_g", "size")),
        ({"fitted": ["size", "id"], "columns": "flux_*"}, None, ("size", "id")),
    ],
)
def test_columns_are_those_that_are_named_in_that_order(
    given: dict[str, Any], weight: str | None, chosen: tuple[str, ...]
) -> None:
    found = choose(TABLE, ReadOptions.of(**given), None if weight is None else WeightColumn(weight))
    assert found.names == chosen
    assert tuple(NAMES[j] for j in found.numbers) == chosen
    assert found.weight == (None if weight is None else NAMES.index(weight))


@pytest.mark.parametrize(
    ("given", "weight", "said"),
    [
        ({"columns": "flux_G"}, None, r"columns='flux_G' is no column of X: did you mean 'flux_g'"),
        ({"exclude": "sizes"}, None, r"exclude='sizes' is no column of X: did you mean 'size'\?"),
        ({"columns": "mag_*"}, None, r"columns='mag_\*' matches no column of X: .* 'id', 'flux_g'"),
        ({"exclude": "*"}, None, r"leave no column of X, which has 'id'"),
        ({"fitted": ["size", "colour"]}, None, r"X lacks .* the model was fitted to, 'colour'"),
        ({}, "weight", r"sample_weight='weight' is no path and no column of X"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    given: dict[str, Any], weight: str | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        choose(TABLE, ReadOptions.of(**given), None if weight is None else WeightColumn(weight))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="several columns of one name, 'id': rename them"):
        choose([*TABLE, Column("id")], ReadOptions())


def test_a_name_with_brackets_is_that_name() -> None:
    columns = [Column("v"), Column("v[km/s]"), Column("v*")]
    assert choose(columns, ReadOptions.of(columns="v[km/s]")).numbers == (1,)
    assert choose(columns, ReadOptions.of(columns="v*")).numbers == (2,)
    assert choose(columns, ReadOptions(fitted=("v*", "v[km/s]"))).numbers == (2, 1)


def test_columns_beside_those_of_the_model_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dask_em"):
        choose(TABLE, ReadOptions(fitted=("size", "flux_g", "flux_r")), WeightColumn("w"))
    assert caplog.messages == ["columns of X that the model was not fitted to are ignored: 'id'"]


@pytest.mark.parametrize(
    "given", [{"columns": 3}, {"columns": ["a", 3]}, {"exclude": ["a", "a"]}, {"columns": [""]}]
)
def test_what_is_no_name_is_refused(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=f"{name}="):
        ReadOptions.of(**given)
    with pytest.raises(ValueError, match=f"{name}="):
        GaussianMixture(1, **given).fit(np.eye(5, 2))


# -- how data are read goes with the model ---------------------------------------------

READING: dict[str, Any] = {
    "columns": ["b", "a*"], "exclude": "ab", "features": "band", "raw": True,
}  # fmt: skip


def test_columns_by_name_need_names() -> None:
    for given in (GaussianMixture(1, columns="a"), GaussianMixture(1, exclude="a")):
        with pytest.raises(DataError, match=r"=\['a'\]: the columns of X have no names"):
            given.fit(np.eye(5, 2))


def test_options_of_reading_are_parameters_and_in_the_file(tmp_path: Path) -> None:
    model = GaussianMixture(1, random_state=0).fit(np.random.default_rng(0).normal(size=(50, 2)))
    assert model.read_options == ReadOptions()
    model.set_params(**READING)
    assert clone(model).get_params() == model.get_params()
    expected = ReadOptions(columns=("b", "a*"), exclude=("ab",), features="band", raw=True)
    assert model.read_options == expected
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.read_options == expected
    assert again.identity(again.engine()) == model.identity(model.engine())
    again.set_params(columns=None)
    assert again.read_options == replace(expected, columns=())
    # A list of another library is one, too.
    assert clone(model).set_params(columns=np.array(["b"])).read_options.columns == ("b",)


def test_the_options_of_reading_tell_fits_apart() -> None:
    identities = []
    for name, value in READING.items():
        model = GaussianMixture(1, **{name: value})
        identities.append(model.identity(model.engine()))
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])


# -- in a shell ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["fit", "plan", "doctor", "predict", "score", "report"])
def test_every_command_that_reads_takes_the_options(command: str) -> None:
    params = {name: p for p in main.commands[command].params for name in p.opts}
    assert {"--columns", "--exclude", "--features", "--raw"} <= params.keys()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("leave it out by exclude='id'", "leave it out by --exclude id"),
        ("by exclude=['id', 'my name']", "by --exclude 'id,my name'"),
        ("columns='a,b'", "--columns '\"a,b\"'"),
        ("raw=True", "--raw"),
        ("pass features='band'", "pass --features band"),
    ],
)
def test_messages_name_the_options(message: str, said: str) -> None:
    assert in_shell(message, fit_command) == said


def test_names_with_a_comma_are_quoted() -> None:
    (option,) = [p for p in fit_command.params if "--columns" in p.opts]
    assert option.type.convert('a, "b,c",d', option, None) == ("a", "b,c", "d")
    words = ["fit", "x.zarr", "-k", "2", "-o", "m.npz", "--columns", "a,,b"]
    refused = CliRunner().invoke(main, words)
    assert (refused.exit_code, "expected names such as a,b,c" in refused.stderr) == (2, True)
