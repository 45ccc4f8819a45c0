"""The options of the commands: each is told once, here, and named in the command's list."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import click

from .logs import JsonLines, log_as
from .signals import stopped_by_signals

if TYPE_CHECKING:
    from ..jobs.cluster import ClusterOptions

# Where a click context keeps the command that is to be run again.
COMMAND = "dask_em.command"

# And whether the command uses a cluster of others, whose log may be on this terminal.
REMOTE = "dask_em.remote"

Command = Callable[..., Any]


@dataclass(frozen=True)
class Option:
    """One option of the program, and the parameter that it sets.

    Attributes
    ----------
    flag : str
        As it is typed: "--tol", "-o/--output", or "--resume/--no-resume".
    sets : str
        Name of the parameter: of the estimator, of a request, or of a job.
    help : str
    type : click type, optional
    default : optional
    metavar, shown_default : str, optional
        In the help, in place of what click would show.
    of_families : mapping of str to value, optional
        Of a parameter of the estimator: the defaults of families that have another.
    required, is_flag, multiple : bool
    """

    flag: str
    sets: str
    help: str
    type: Any = None
    default: Any = None
    metavar: str | None = None
    shown_default: str | None = None
    required: bool = False
    is_flag: bool = False
    multiple: bool = False
    of_families: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, command: Command) -> Command:
        """Add the option to a command."""
        flags = [self.flag] if "/--no-" in self.flag else self.flag.split("/")
        given: dict[str, Any] = {"help": self.help, "metavar": self.metavar, "type": self.type}
        if self.required:
            given["required"] = True
        elif self.default is not None:
            given["default"] = self.default
        if self.shown_default is not None:
            # A flag would be False.
            given |= {"show_default": self.shown_default, "default": self.default}
        if self.of_families:
            others = (f"{value} of {family}" for family, value in self.of_families.items())
            given["show_default"] = ", ".join([str(self.default), *others])
        if self.is_flag:
            given |= {"is_flag": True, "type": None}
        if self.multiple:
            given["multiple"] = True
        return click.option(*flags, self.sets, **given)(command)


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command, in the order of its help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def take(options: dict[str, Any], table: Sequence[Option]) -> dict[str, Any]:
    """Remove the values of a table's options from all of a command's, and return them."""
    return {option.sets: options.pop(option.sets) for option in table}


# -- types -----------------------------------------------------------------------------


class Seconds(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Seconds of 90, 90s, 30m, 2h, 1d, or 1h30m."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Convert a word to seconds."""
        text = str(value).strip().lower()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
            self.fail(f"{value!r}: expected seconds, or 90s, 30m, 2h, 1d, 1h30m", param, ctx)
        units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        return sum(float(n) * units[u] for n, u in re.findall(r"([\d.]+)([smhd])", text))


class Several(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """One value or several, separated by commas; `one` turns a word into its values."""

    def __init__(self, name: str, one: Callable[[str], list[Any]]) -> None:
        self.name, self.one = name, one

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Convert words to a tuple of values, each of them once."""
        if not isinstance(value, str):
            return value
        try:
            values = [v for word in value.split(",") for v in self.one(word.strip())]
        except ValueError as e:
            self.fail(f"{value!r}: {e}", param, ctx)
        if len(set(values)) < len(values):
            self.fail(f"{value!r} names a value twice", param, ctx)
        return tuple(values)


class Names(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Names of columns separated by commas; one that has a comma stands in double quotes."""

    name = "names"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Convert a word to a tuple of names."""
        if not isinstance(value, str):
            return value
        try:
            (names,) = csv.reader([value], skipinitialspace=True, strict=True)
        except (csv.Error, ValueError) as e:
            self.fail(f"{value!r}: {e}", param, ctx)
        if not all(names) or len(set(names)) < len(names):
            self.fail(f"{value!r}: expected names such as a,b,c, each of them once", param, ctx)
        return tuple(names)


class Group(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A family and columns: gaussian=a,b, or gaussian=0,1 where columns have no names."""

    name = "family=names"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Convert a word to the name of a family and a tuple of names, or numbers, of columns."""
        if not isinstance(value, str):
            return value
        family, equals, rest = value.partition("=")
        if not (family and equals):
            self.fail(f"{value!r}: expected FAMILY=NAMES", param, ctx)
        names = Names().convert(rest, param, ctx)
        numbers = all(name.isdecimal() for name in names)
        return family, tuple(map(int, names)) if numbers else names


class Setting(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A parameter and its value: a number, true, false, none, or a word."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Convert a word to the name of a parameter and its value."""
        if not isinstance(value, str):
            return value
        name, equals, word = value.partition("=")
        if not (name.isidentifier() and equals):
            self.fail(f"{value!r}: expected NAME=VALUE", param, ctx)
        words = {"true": True, "false": False, "none": None}
        if word.lower() in words:
            return name, words[word.lower()]
        for number in (int, float):
            try:
                return name, number(word)
            except ValueError:
                continue
        return name, word


def _numbers(word: str, name: str = "K") -> list[int]:
    first, colon, last = word.partition(":")
    if not (first.isdecimal() and (last.isdecimal() or not colon)):
        raise ValueError(f"expected 8, or 4,8,16, or 2:20 for every {name} from 2 to 20")
    low, high = int(first), int(last) if colon else int(first)
    if not 1 <= low <= high:
        raise ValueError(f"{name} is at least 1, and a range goes up: 2:20")
    return list(range(low, high + 1))


def _covariance_type(word: str) -> list[str]:
    if word == "all":
        return [*FOURTEEN]
    if word in ("factor", "lowrank"):
        name = {"factor": "UUU", "lowrank": "UUC"}[word]
        raise ValueError(
            "few factors in place of a covariance are --family factor --n-factors Q "
            f"--covariance {name}"
        )
    if word not in COVARIANCE_TYPES:
        # Those that other packages offer.
        others = {entry.name for entry in entry_points(group="dask_em.constraints")}
        if word not in others:
            known = ", ".join([*COVARIANCE_TYPES, *sorted(others), "all"])
            raise ValueError(f"expected one or several of {known}")
    return [word]


FOURTEEN = (
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE",
    "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
)  # fmt: skip

FACTOR_CONSTRAINTS = ("UUU", "UUC", "UCU", "UCC", "CUU", "CUC", "CCU", "CCC")

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical", *FOURTEEN, *FACTOR_CONSTRAINTS)

COUNT = click.IntRange(1)


# -- models ----------------------------------------------------------------------------

N_COMPONENTS = Option(
    "-k", "n_components",
    "Number of components: 8, or 4,8,16, or 2:20 for every K from 2 to 20.",
    Several("K", _numbers), required=True,
)  # fmt: skip

COVARIANCE = Option(
    "--covariance", "covariance_types",
    "full, tied, diag, spherical, or one of mclust's fourteen, EII to VVV; or several: full,EEV; "
    "or all of the fourteen: all. Of factor analyzers: UUU to CCC.",
    Several("KIND", _covariance_type), "full",
)  # fmt: skip

FAMILY = Option(
    "--family", "family",
    "Class of mixtures, or several to choose among: gaussian, student-t, poisson, mixed, ...",
    Several("NAME", lambda word: [word]), "gaussian",
)  # fmt: skip

GROUPS = Option(
    "--group", "groups",
    "Of a mixed family, once for each group: its family and the names of its columns, or their "
    "numbers where they have none [default: by the types of the columns].",
    Group(), metavar="FAMILY=NAMES", multiple=True,
)  # fmt: skip

SETTINGS = Option(
    "--set", "settings",
    "A parameter of the family that has no option of its own; may be repeated.", Setting(),
    metavar="NAME=VALUE", multiple=True,
)  # fmt: skip

MISSING_CHUNKS = Option(
    "--missing-chunks", "missing_chunks",
    "Refuse missing chunks, or read them as the fill value; predict, score, report follow.",
    click.Choice(["error", "fill"]), "error",
)  # fmt: skip

NONFINITE = Option(
    "--nonfinite", "nonfinite",
    "Refuse rows that hold NaN or infinity, or leave them out and count them.",
    click.Choice(["error", "drop"]), "error",
)  # fmt: skip

COLUMNS = (
    Option(
        "--columns", "columns",
        "Columns of DATA to read, in this order: a,b,c, or patterns such as 'flux_*'.", Names(),
        metavar="NAMES",
    ),
    Option("--exclude", "exclude", "Columns not to read.", Names(), metavar="NAMES"),
    Option(
        "--features", "features", "The dimension of a grid that holds the variables.",
        metavar="DIM",
    ),
)  # fmt: skip
"""Options of what of DATA is read; `sets` is a field of `ReadOptions`."""

RAW = Option("--raw", "raw", "Take packed numbers as they are stored.", default=False, is_flag=True)

READING = tuple(
    replace(option, default=None, shown_default="as MODEL was fitted")
    for option in (
        replace(MISSING_CHUNKS, help="Refuse missing chunks, or read them as the fill value."),
        NONFINITE,
        *COLUMNS,
        Option("--raw/--no-raw", "raw", "Take packed numbers as they are stored, or decode them."),
        Option(
            "--missing-values",
            "missing_values",
            "Refuse NaN, or answer by what is observed of a row, of a Gaussian MODEL.",
            click.Choice(["error", "mar"]),
        ),
    )
)
"""Options of how DATA are read for a model; `sets` is a parameter of the job."""

OF_FIT = "As in fit."

LOOKING = tuple(replace(option, help=OF_FIT) for option in (MISSING_CHUNKS, *COLUMNS, RAW))
"""Options of how DATA are looked at before a fit; `sets` is a field of `ReadOptions`."""

MISSING_OF_FIT = Option(
    "--missing-values", "missing_values", OF_FIT, click.Choice(["error", "mar"]),
)  # fmt: skip

FACTORS = Several("Q", functools.partial(_numbers, name="Q"))

FACTORS_OF_FIT = Option("--n-factors", "n_factors", OF_FIT, FACTORS)

NOISE_OF_FIT = Option("--noise", "noise", OF_FIT, default=False, is_flag=True)

OUTPUT = Option("-o/--output", "output", "The model file to write.", metavar="MODEL", required=True)

ADAPTATION = (
    Option(
        "--relevance", "relevance", "Rows that each mean of MODEL counts as.", click.FloatRange(0),
        16.0,
    ),
    Option(
        "--n-iter", "n_iter", "Passes, each with responsibilities at the means of the last.",
        COUNT, 1,
    ),
)  # fmt: skip
"""Options of an adaptation; `sets` is a parameter of the job."""

WEIGHTS = Option(
    "--weights", "weights",
    "One weight a row: a Zarr array, or a column of DATA where no path has this name.",
    metavar="PATH",
)  # fmt: skip

NOISE = Option(
    "--noise-covariance", "noise_covariance",
    "Known noise of each row: variances, (n, d), or covariances, (n, d, d), of a Zarr array, "
    "Parquet or .npy; or names of columns of DATA that hold variances, with commas between.",
    metavar="PATH",
)  # fmt: skip

LABELS = (
    Option(
        "--labels", "labels",
        "Start from a component for each row, 0 to K - 1 (K for noise), or -1 where it is "
        "unknown: a Zarr array, or a column of DATA where no path has this name.", metavar="PATH",
    ),
    Option(
        "--labels-fixed", "labels_fixed", "Keep labels in every iteration: semi-supervised.",
        default=False, is_flag=True,
    ),
)  # fmt: skip
"""Options of a fit from labels; `sets` is a parameter of the job."""

ESTIMATOR = (
    Option(
        "--n-init", "n_init",
        "Starts tried on the sample [default: 1; 5 where there are several models].", COUNT,
    ),
    Option(
        "--init-params", "init_params",
        "How starts are made on the sample; auto fits several and keeps the best.",
        click.Choice(["auto", "kmeans", "k-means++", "random", "random_from_data"]), "auto",
    ),
    Option(
        "--tol", "tol",
        "Converged when less than this is still to gain, in nats a row (bayesian-gaussian: of all "
        "rows), or in mean variances of a column by the inertia of a row.",
        click.FloatRange(0), 1e-3, of_families={"kmeans": 1e-4},
    ),
    Option(
        "--max-iter", "max_iter", "Full passes, the survey's not counted.", COUNT, 100,
        of_families={"kmeans": 300},
    ),
    Option(
        "--reg-covar", "reg_covar",
        "Added to every variance, in squared units of DATA; 0 where columns are small.",
        click.FloatRange(0), 1e-6,
    ),
    Option(
        "--prior", "prior", "Give Gaussian components a prior, by which none narrows to a value.",
        click.Choice(["conjugate"]),
    ),
    Option(
        "--max-ratio", "max_ratio",
        "Bound on the ratio of eigenvalues of Gaussian covariances, in the units of DATA.",
        click.FloatRange(1), metavar="RATIO",
    ),
    Option(
        "--fixed", "fixed",
        "Parameters that stay as they start: weights, for equal ones.",
        Names(), metavar="NAMES",
    ),
    Option(
        "--noise", "noise",
        "Put noise of constant density beside the components: gaussian, student-t, factor.",
        default=False, is_flag=True,
    ),
    Option(
        "--noise-volume", "noise_volume",
        "Volume of noise, in units of DATA [default: that of the box of all rows].",
        click.FloatRange(0, min_open=True), metavar="VOLUME",
    ),
    Option(
        "--weight-concentration-prior-type", "weight_concentration_prior_type",
        "Of bayesian-gaussian: the prior of the weights.",
        click.Choice(["dirichlet_process", "dirichlet_distribution"]), "dirichlet_process",
    ),
    Option(
        "--weight-concentration-prior", "weight_concentration_prior",
        "Of bayesian-gaussian: the smaller, the fewer components have rows [default: 1/K].",
        click.FloatRange(0, min_open=True),
    ),
    Option(
        "--mean-precision-prior", "mean_precision_prior",
        "Of bayesian-gaussian: rows that the prior's mean counts as [default: 1].",
        click.FloatRange(0, min_open=True),
    ),
    Option(
        "--degrees-of-freedom-prior", "degrees_of_freedom_prior",
        "Of bayesian-gaussian: of the Wishart prior, above d - 1 [default: d].",
        click.FloatRange(0, min_open=True),
    ),
    Option(
        "--df", "df", "Degrees of freedom of Student's t [default: estimated].",
        click.FloatRange(0.01),
    ),
    Option(
        "--shared-df", "shared_df", "Estimate one number of degrees of freedom for all.",
        default=False, is_flag=True,
    ),
    Option(
        "--n-factors", "n_factors",
        "Factors of a component, fewer than columns: factor. 5, or several: 1,2,5, or 1:5.",
        FACTORS, "1",
    ),
    Option(
        "--alpha", "alpha", "Added to each count of an answer: categorical, bernoulli.",
        click.FloatRange(0), 0.0,
    ),
    Option(
        "--binarize", "binarize", "Numbers above it are a one, the others a zero: bernoulli.",
        float, 0.0,
    ),
    Option(
        "--missing-values", "missing_values",
        "Refuse NaN, or fit rows by what is observed of them: gaussian, categorical, bernoulli.",
        click.Choice(["error", "mar"]), "error",
    ),
    Option(
        "--algorithm", "algorithm",
        "auto accelerates; em is plain EM, iteration for iteration, and lloyd that of K-means.",
        click.Choice(["auto", "em", "lloyd"]), "auto",
    ),
    Option(
        "--init", "init", "Of K-means: how centres are drawn from the sample.",
        click.Choice(["auto", "k-means++", "k-means||", "random"]), "auto",
    ),
    Option(
        "--spherical", "spherical", "Of K-means: cluster directions, by the cosine.",
        default=False, is_flag=True,
    ),
    Option("--max-passes", "max_passes", "Full passes, the survey's counted.", click.IntRange(2)),
    Option(
        "--max-time", "max_time",
        "Stop after so long with the best so far and exit code 75: seconds, or 30m, 2h, 1h30m.",
        Seconds(), metavar="TIME",
    ),
    Option("--sample-size", "sample_size", "Rows the start is made from.", COUNT),
    NONFINITE,
    MISSING_CHUNKS,
    *COLUMNS,
    RAW,
    Option(
        "--seed", "random_state",
        "Of the sample and the starts: the same seed gives the same bits.",
        click.IntRange(0, 2**32 - 1), 0,
    ),
)  # fmt: skip
"""Options of the estimator; `sets` is the name of its parameter.

What is not typed is left to the class of the family: the defaults here are those that help shows.
"""

CHOICE = (
    Option(
        "--criterion", "criterion", "Criterion by which the best of several models is chosen.",
        click.Choice(["bic", "aic", "icl", "holdout"]), "bic",
    ),
    Option(
        "--holdout", "holdout", "Share of the rows that no fit sees, to score the models on.",
        click.FloatRange(0, 1, max_open=True), 0.0,
    ),
    Option("--exhaustive", "exhaustive", "Fit every model to its end.", is_flag=True),
    Option(
        "--keep-all", "keep_all", "Save the others too, as MODEL-k8-full.npz.", is_flag=True
    ),
)  # fmt: skip
"""Options of the choice among several models; `sets` is a field of `FitRequest`."""

CHECKPOINT = (
    Option(
        "--checkpoint", "folder",
        "Where an unfinished fit is kept [default: .MODEL.checkpoint beside MODEL].",
        metavar="FOLDER",
    ),
    Option(
        "--resume/--no-resume", "resume", "Go on with the unfinished fit, or throw it away.",
        default=True,
    ),
    Option(
        "--force", "force", "Go on even if DATA seem to be others than before.", is_flag=True
    ),
    Option(
        "--checkpoint-interval", "interval",
        "How often the finished parts of a pass are kept; what a pass made is always kept.",
        click.FloatRange(0), 300.0, metavar="SECONDS",
    ),
)  # fmt: skip
"""Options of the checkpoint; `sets` is a parameter of `jobs.commit.checkpointing`."""

UPDATE = (
    Option(
        "--forget", "forget",
        "Half-life of the rows in MODEL: 1e6rows of new ones, or 36h or 30d since its last update "
        "[default: none].", metavar="HALF-LIFE",
    ),
    Option("--max-iter", "max_iter", "Passes over the new rows, the survey's not counted.", COUNT,
           10),
    Option(
        "--exact", "exact", "Read all rows of DATA, and fit them from MODEL.", default=False,
        is_flag=True,
    ),
)  # fmt: skip
"""Options of an update; `sets` is a parameter of the job."""

KEEP_SAMPLE = Option(
    "--keep-sample", "keep_sample",
    "Rows that go into MODEL, as a sample by which updates know how old rows move.",
    click.IntRange(0), 0,
)  # fmt: skip

METRICS = Option(
    "--metrics-file", "metrics", "Prometheus metrics, replaced after every pass.", metavar="FILE",
)  # fmt: skip

OVERWRITE = Option("--overwrite", "overwrite", "Replace what is there.", is_flag=True)

JSON = Option("--json", "as_json", "Print the result as JSON.", is_flag=True)


# -- clusters --------------------------------------------------------------------------

CLUSTER = (
    Option("--scheduler", "scheduler", "A running Dask scheduler.", metavar="ADDRESS"),
    Option("--scheduler-file", "scheduler_file", "Its scheduler file.", metavar="FILE"),
    Option("--workers", "workers", "Local processes [default: usable cores / threads].", COUNT),
    Option("--threads", "threads", "Threads in each local process.", COUNT, 1),
    Option(
        "--memory-limit", "memory_limit",
        "Of each local process, as 2GiB; auto shares what may be used here.",
        default="auto", metavar="SIZE",
    ),
    Option(
        "--tls-ca-file", "tls_ca_file", "CA of a scheduler that speaks TLS.", metavar="FILE"
    ),
    Option("--tls-cert", "tls_cert", "This client's certificate.", metavar="FILE"),
    Option("--tls-key", "tls_key", "This client's key.", metavar="FILE"),
    Option(
        "--require-tls", "require_tls", "Refuse a scheduler that does not speak TLS.",
        is_flag=True,
    ),
)  # fmt: skip
"""Options of the cluster; `sets` is a field of `ClusterOptions`."""


def _log_json(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        log_as(JsonLines())


def columns_of(options: dict[str, Any]) -> None:
    """Replace the groups among the options of a command by `columns`, as estimators take them.

    Raises
    ------
    UsageError
        Columns were given, too; or a family twice.
    """
    groups = options.pop("groups")
    if not groups:
        return
    if options.get("columns") is not None:
        raise click.UsageError("--group names the columns: leave --columns out")
    if len(dict(groups)) < len(groups):
        raise click.UsageError("--group: give each family once, with all its columns")
    options["columns"] = dict(groups)


def job_options(command: Command) -> Command:
    """Let signals stop a command, and add the options of every job that takes long."""

    @functools.wraps(command)
    def stoppable(*args: Any, **kwargs: Any) -> Any:
        with stopped_by_signals(click.get_current_context().meta[COMMAND]):
            return command(*args, **kwargs)

    log_json = click.option(
        "--log-json", is_flag=True, expose_value=False, callback=_log_json,
        help="Log one JSON object a line.",
    )  # fmt: skip
    return log_json(stoppable)


def cluster_options(command: Command) -> Command:
    """Add the options of the cluster to a command, and let signals stop it."""
    return with_options(*CLUSTER, job_options)(command)


def cluster_of(options: dict[str, Any]) -> ClusterOptions:
    """Remove the options of the cluster from all of a command's, and return them as one value."""
    from ..jobs.cluster import ClusterOptions

    cluster = ClusterOptions(**take(options, CLUSTER))
    click.get_current_context().meta[REMOTE] = cluster.remote
    return cluster
