"""Advice of fits: what the mathematics ran into, options that were wrong, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import zarr
from helpers import blobs
from strangers.negative_binomial_mixture import NegativeBinomialMixture

from advice.following import (
    OVERLAPPING,
    Followed,
    Here,
    X,
    code,
    each_of,
    fit,
    keywords,
    logged,
    refused,
    said,
    saved,
    stored,
)
from dask_em import (
    BayesianGaussianMixture,
    Checkpointing,
    FactorMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    StudentTMixture,
    select,
)
from dask_em.core.em import EMState
from dask_em.core.engine import Engine
from dask_em.core.moments import Moments
from dask_em.estimators.base import MixtureEstimator
from dask_em.families.factor.options import FactorOptions
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.fitting.criteria import elbow
from dask_em.runtime import JobControl, as_job, current_job

RNG = np.random.default_rng(0)
LABELS = blobs(400, 2, 2, apart=6.0)[1]
NEARLY = X + 1e-12
WITH_NAN = np.vstack([X, [[np.nan, 1.0]]])
FEW = X[:3]
THREE_POINTS = np.repeat([[0.0, 0.0], [1.0, 1.0], [2.0, 4.0]], 50, axis=0)
# Half of the second column are zeros; nearly so; and a column that follows from two others in half.
ZEROS = np.column_stack([X[:, 0], np.where(np.arange(400) % 2, RNG.poisson(3, 400), 0)])
ZEROS_AND_MORE = np.column_stack([
    X[:, 0], np.where(np.arange(400) % 2, np.random.default_rng(0).normal(3, 1, 400), 0)
])  # fmt: skip
NARROW = np.column_stack([
    X[:, 0], np.where(np.arange(400) % 2, RNG.normal(3, 1, 400), RNG.normal(0, 1e-4, 400))
])  # fmt: skip
SPREAD = np.random.default_rng(3).normal(size=(40, 2))
PLANE = np.column_stack([X, np.where(LABELS, RNG.normal(size=400), X.sum(axis=1))])


# -- how fits end ------------------------------------------------------------------------


def long(**options: Any) -> str:
    """What a fit says that takes many iterations."""
    return said(lambda: fit(OVERLAPPING, algorithm="em", **{"tol": 1e-9, **options}))


def out_of_time(**options: Any) -> str:
    """The same, of a fit whose time is over after a pass."""

    def over(state: EMState) -> None:
        current_job().deadline = 0.0

    with as_job(JobControl()):
        return long(callbacks=[over], max_time=1e4, **options)


def alike(**options: Any) -> str:
    """What is said of components that begin alike, and so stay."""
    given = {"means_init": np.zeros((3, 2)), "n_components": 3, "algorithm": "em"}
    given |= {"weights_init": np.full(3, 1 / 3), "precisions_init": np.stack([np.eye(2)] * 3)}
    if options:
        given = {}
    return said(lambda: fit(X, **{**given, **options}))


def few_in_a_plane(**options: Any) -> str:
    """What is said of a component of no more rows than columns."""
    rows = np.random.default_rng(0).normal(size=(212, 5))
    rows[:5] += 20
    return said(lambda: fit(rows, **{"n_components": 2, **options}))


def by_prior(**options: Any) -> str:
    """What is said where half of the rows hold one value, and there is a prior."""
    return said(lambda: fit(ZEROS[:, 1:], **{"prior": "conjugate", "n_components": 2, **options}))


def of_few_rows(**options: Any) -> str:
    """What is said of a component that has its dozen of rows for itself."""
    rows = np.random.default_rng(0).normal(size=(212, 5))
    rows[:12] += 20
    return said(lambda: fit(rows, **{"n_components": 2, **options}))


@cache
def going_on(**options: Any) -> str:
    """What the last of several fits says of which each starts where the one before ended."""
    model = GaussianMixture(2, random_state=0, tol=1e-4, algorithm="em", max_iter=20, **options)
    last = ""
    for _ in range(20):
        last = said(lambda: model.fit(OVERLAPPING))
    return last


def falling(rows: Any, ridge: float) -> str:
    """What plain EM from a poor start says, with so much added to every variance."""
    options = {"algorithm": "em", "init_params": "random_from_data", "tol": 1e-6}
    return said(lambda: fit(rows, reg_covar=ridge, max_iter=1000, **options))


def without_ridge(n_components: int = 5) -> str:
    """What components of few rows say, to whose variances nothing is added.

    That of the first rows of which the log-likelihood falls, if any do.
    """
    options = {"n_components": n_components, "reg_covar": 0, "random_state": 5}
    found = (np.random.default_rng(seed).normal(size=(40, 4)) for seed in range(12, 40))
    texts = (said(lambda rows=rows: fit(rows, **options)) for rows in found)  # type: ignore[misc]
    return next((text for text in texts if "the log-likelihood fell" in text), "")


def collapsing(rows: Any, **options: Any) -> str:
    return said(lambda: fit(rows, **{"reg_covar": 0, **options}))


def scattered(collapsed: bool) -> str:
    """What many components of few rows say: of the first seed of which one collapses, or none.

    Which seed that is depends on the last bits, which processors have of their own.
    """
    options: dict[str, Any] = {"init_params": "random_from_data", "max_iter": 1000}
    texts = (collapsing(SPREAD, n_components=6, random_state=seed, **options) for seed in range(50))
    return next(text for text in texts if ("lost all its rows" in text) == collapsed)


def clusters(rows: Any = X, **options: Any) -> KMeans:
    return KMeans(**{"n_clusters": 2, "random_state": 0, **options}).fit(rows)


ENDINGS = [
    Followed("max_iter passes were made", lambda here: long(max_iter=2), {
        "raise max_iter": lambda here, words: long(max_iter=10_000),
        "or tol": lambda here, words: long(max_iter=2, tol=10.0),
        "warm_start=True": lambda here, words: going_on(**keywords(words)),
    }),
    Followed("max_passes passes were made", lambda here: long(max_passes=4), {
        "raise max_passes": lambda here, words: long(max_passes=10_000, max_iter=10_000),
        "or tol": lambda here, words: long(max_passes=4, tol=10.0),
        "warm_start=True": lambda here, words: going_on(**keywords(words)),
    }),
    Followed("max_time seconds were over", lambda here: out_of_time(), {
        "raise max_time": lambda here, words: long(max_time=1e4, max_iter=10_000),
        "warm_start=True": lambda here, words: going_on(**keywords(words)),
    }),
    Followed("the log-likelihood fell", lambda here: falling(OVERLAPPING, 1), {
        "lower reg_covar": lambda here, words: falling(OVERLAPPING, 1e-6),
        "rescale the columns": lambda here, words: falling(OVERLAPPING * 1e3, 1),
    }),
    Followed("the log-likelihood fell", lambda here: without_ridge(), {
        "where it is 0 lower n_components": lambda here, words: without_ridge(n_components=1),
    }),
    Followed("Try different init parameters", lambda here: long(max_iter=2), {
        "increase max_iter": lambda here, words: long(max_iter=10_000),
        ", tol,": lambda here, words: long(max_iter=2, tol=10.0),
    }),
    Followed("a component lost all its rows", lambda here: collapsing(ZEROS_AND_MORE), {
        "lower n_components": lambda here, words: collapsing(ZEROS_AND_MORE, n_components=1),
        # It warns that a component stands for a value.
        "raise reg_covar": lambda here, words: "collapsed" * (
            "collapsed" in collapsing(ZEROS_AND_MORE, reg_covar=1e-3)
        ),
        "leave out a column": lambda here, words: collapsing(ZEROS_AND_MORE[:, :1]),
    }),
    Followed("a component lost all its rows", lambda here: scattered(collapsed=True), {
        # It warns that components have few rows.
        "another random_state": lambda here, words: "collapsed" * (
            "collapsed" in scattered(collapsed=False)
        ),
    }),
    Followed(
        "fewer distinct rows than n_clusters",
        lambda here: said(lambda: clusters(THREE_POINTS, n_clusters=4)),
        {"lower n_clusters": lambda here, words: said(
            lambda: clusters(THREE_POINTS, n_clusters=3)
        )},
    ),
    Followed(
        "has a covariance of its own",
        lambda here: said(lambda: fit(THREE_POINTS, n_components=3, reg_covar=0)), {
            "decrease the number of components": lambda here, words: said(
                lambda: fit(THREE_POINTS, n_components=1, reg_covar=0)
            ),
            # It warns that components stand for points.
            "increase reg_covar": lambda here, words: refused(
                lambda: fit(THREE_POINTS, n_components=3, reg_covar=1e-3)
            ),
        },
    ),
    Followed(
        "they stand for single values", lambda here: said(lambda: fit(ZEROS, n_components=3)), {
            r"leave column (\d) out": lambda here, words: said(
                lambda: fit(np.delete(ZEROS, int(words), axis=1))
            ),
            "add to such a column uniform noise as wide as the step between its values":
                lambda here, words: said(lambda: fit(
                    ZEROS + np.column_stack([np.zeros(400), RNG.uniform(-0.5, 0.5, 400)]),
                    n_components=3,
                )),
        },
    ),
    Followed("they stand for single values", lambda here: said(lambda: fit(NARROW)), {
        "lower reg_covar": lambda here, words: said(lambda: fit(NARROW, reg_covar=1e-12)),
        "scale the column up": lambda here, words: said(lambda: fit(NARROW * [1, 1e4])),
    }),
    Followed("their rows lie in a plane", lambda here: said(lambda: fit(PLANE)), {
        "Leave out a column that follows from the others": lambda here, words: said(
            lambda: fit(PLANE[:, :2])
        ),
        'covariance_type="diag"': lambda here, words: said(lambda: fit(PLANE, **keywords(words))),
        "lower n_components": lambda here, words: said(lambda: fit(PLANE, n_components=1)),
    }),
    Followed("is a bound such as", lambda here: said(lambda: fit(ZEROS, n_components=3)), {
        "max_ratio=10": lambda here, words: said(
            lambda: fit(ZEROS, n_components=3, **keywords(words))
        ),
    }),
    Followed("by which few rows are enough", lambda here: few_in_a_plane(), {
        'prior="conjugate"': lambda here, words: few_in_a_plane(**keywords(words)),
    }),
    Followed("the prior adds", lambda here: by_prior(), {
        "max_ratio=10": lambda here, words: by_prior(**{"prior": None, **keywords(words)}),
        "lower n_components": lambda here, words: by_prior(n_components=1),
    }),
    Followed("the data show fewer clusters", lambda here: alike(), {
        "lower n_components": lambda here, words: alike(n_components=1),
        "try another random_state": lambda here, words: said(
            lambda: fit(X, n_components=3, random_state=1)
        ),
    }),
    Followed("fewer than parameters of its own", lambda here: of_few_rows(), {
        "lower n_components": lambda here, words: of_few_rows(n_components=1),
        "fit components of fewer parameters": lambda here, words: of_few_rows(
            covariance_type="spherical"
        ),
    }),
    Followed("is not small beside the variance of", lambda here: said(lambda: fit(X * 1e-4)), {
        "reg_covar=0": lambda here, words: said(lambda: fit(X * 1e-4, **keywords(words))),
        "scale X": lambda here, words: said(lambda: fit(X)),
    }),
]  # fmt: skip


# -- rows and options --------------------------------------------------------------------


def refit(model: MixtureEstimator, rows: Any, **options: Any) -> str:
    """What a warm start of another shape than the fit before says."""
    model.set_params(warm_start=True, random_state=0).fit(rows)
    return said(lambda: model.set_params(**options).fit(rows))


def warm(**options: Any) -> str:
    return refit(GaussianMixture(2), X, covariance_type="diag", **options)


def warm_posterior(**options: Any) -> str:
    return refit(BayesianGaussianMixture(2), X, covariance_type="diag", **options)


def warm_factors(**options: Any) -> str:
    return refit(FactorMixture(2, n_factors=1), X, factor_constraint="UUC", **options)


def factors_on_device(device: Any) -> None:
    FactorOptions(n_factors=1).of_data(Moments.of(X), 2).kernel(Engine(device=device))


def held_within(**options: Any) -> GaussianMixture:
    return fit(**{"max_ratio": 10, "covariance_type": "VEV", **options})


def warm_tails(**options: Any) -> str:
    return refit(StudentTMixture(2), X, covariance_type="diag", **options)


def warm_counts(**options: Any) -> str:
    rates = np.array([[2.0, 30.0], [15.0, 2.0], [40.0, 40.0]])[np.arange(200) % 3]
    counts = np.random.default_rng(0).poisson(rates)
    return refit(NegativeBinomialMixture(2), counts, n_components=3, **options)


def warm_clusters(**options: Any) -> str:
    model = clusters()
    options = {"n_clusters": 3, "warm_start": True, **options}
    return said(lambda: model.set_params(**options).fit(X))


def warm_groups(**options: Any) -> str:
    """The same of other groups of columns."""
    groups = {"columns": {"student-t": [0], "gaussian": [1]}}
    return refit(MixedMixture(2), X, **{**groups, **options})


def chosen(**options: Any) -> str:
    """What a choice says, of numbers of components of which the one in the middle is right."""
    return said(lambda: select(X, [1, 2, 3], random_state=0, **options))


def each_criterion(here: Here, words: str) -> str:
    # One of them may warn that it is best by the largest number.
    options: list[dict[str, Any]] = [{"criterion": one} for one in each_of(words)]
    return refused(lambda: [select(X, [1, 2], holdout=0.1, **one) for one in options])


def elbow_told(here: Here, words: str) -> str:
    table = select(X, [1, 2, 3, 4], estimator=KMeans, random_state=0, exhaustive=True).table
    bends = elbow([row["n_components"] for row in table], [row["inertia"] for row in table])
    return "" if bends == 2 else f"the elbow is at {bends}"


def silhouettes_told(here: Here, words: str) -> str:
    found = select(X, [2, 3], estimator=KMeans, random_state=0, exhaustive=True, keep_all=True)
    two, three = (model.criteria(X)["silhouette"] for model in found.models)
    return "" if two > three else "the silhouette is of no help"


def each_covariance(here: Here, words: str) -> str:
    return said(lambda: [fit(covariance_type=one) for one in each_of(words)])


def labelled(dtype: str) -> str:
    return said(lambda: fit().predict(X, dtype=dtype))


def weighted(here: Here, **weights: Any) -> str:
    model = GaussianMixture(2, random_state=0).fit(X, sample_weight=np.full(400, 2.0))
    return logged(lambda: model.criteria(X, **weights))


def on_device(device: Any) -> None:
    GaussianOptions(missing=True).of_data(Moments.of(X), 2).kernel(Engine(device=device))


def posterior(degrees: float) -> BayesianGaussianMixture:
    return BayesianGaussianMixture(2, degrees_of_freedom_prior=degrees, random_state=0).fit(X)


OPTIONS = [
    Followed(
        "{} rows hold NaN or infinity", lambda here: said(lambda: fit(WITH_NAN)), {
            'nonfinite="drop"': lambda here, words: said(lambda: fit(WITH_NAN, **keywords(words))),
            "drop or fill them first": lambda here, words: said(lambda: (
                fit(WITH_NAN[:-1]), fit(np.nan_to_num(WITH_NAN))
            )),
        },
    ),
    Followed('set_params(nonfinite="drop")', lambda here: said(lambda: fit().predict(WITH_NAN)), {
        'pass (nonfinite="drop")': lambda here, words: said(
            lambda: fit(WITH_NAN, **keywords(words)).predict(WITH_NAN)
        ),
        r'set_params\(nonfinite="drop"\)': lambda here, words: said(
            lambda: code(f"model.{words}", model=fit()).predict(WITH_NAN)
        ),
    }),
    Followed("where NaN is a missing value", lambda here: refused(lambda: fit(WITH_NAN)), {
        'missing_values="mar"': lambda here, words: said(lambda: fit(WITH_NAN, **keywords(words))),
    }, "families/gaussian/options.py"),
    Followed(
        "where NaN is a missing value", lambda here: refused(lambda: fit().predict(WITH_NAN)), {
        'pass (missing_values="mar")': lambda here, words: said(
            lambda: fit(WITH_NAN, **keywords(words)).predict(WITH_NAN)
        ),
        r'set_params\(missing_values="mar"\)': lambda here, words: said(
            lambda: code(f"model.{words}", model=fit()).predict(WITH_NAN)
        ),
    }, "families/gaussian/family.py"),
    Followed("which could be filled", lambda here: refused(lambda: fit().impute(WITH_NAN)), {
        'pass (missing_values="mar")': lambda here, words: said(
            lambda: fit(WITH_NAN, **keywords(words)).impute(WITH_NAN)
        ),
        r'set_params\(missing_values="mar"\)': lambda here, words: said(
            lambda: code(f"model.{words}", model=fit()).impute(WITH_NAN)
        ),
    }),
    Followed(
        "values are missing are computed on the CPU",
        lambda here: refused(lambda: fit(missing_values="mar", device="cuda")), {
            'device="cpu"': lambda here, words: said(
                lambda: fit(missing_values="mar", **keywords(words))
            ),
        },
    ),
    Followed(
        "are missing (missing_values", lambda here: refused(lambda: on_device("cuda")), {
            'device="cpu"': lambda here, words: said(lambda: on_device(**keywords(words))),
        },
    ),
    Followed(
        "degrees_of_freedom_prior={}: expected", lambda here: refused(lambda: posterior(1.0)), {
            r"a number above (\d+)": lambda here, words: said(
                lambda: posterior(float(words) + 1)
            ),
        },
    ),
    Followed(
        "rows (of positive weight) and n_components",
        lambda here: said(lambda: fit(FEW, n_components=4, covariance_type="spherical")),
        {"lower it": lambda here, words: said(
            lambda: fit(FEW, n_components=1, covariance_type="spherical")
        )},
    ),
    Followed(
        "the last fit was of {} covariances", lambda here: warm(),
        {"warm_start=False": lambda here, words: warm(**keywords(words))},
        "estimators/gaussian_parameters.py",
    ),
    Followed(
        "the last fit was of {} covariances", lambda here: warm_posterior(),
        {"warm_start=False": lambda here, words: warm_posterior(**keywords(words))},
        "estimators/bayesian_gaussian.py",
    ),
    Followed(
        "the last fit was of factor_constraint=", lambda here: warm_factors(),
        {"warm_start=False": lambda here, words: warm_factors(**keywords(words))},
    ),
    Followed(
        "covariances of few factors are those", lambda here: refused(
            lambda: fit(covariance_type="UUC")
        ), {
            r"FactorMixture\(n_factors=q, (.*)\)": lambda here, words: said(
                lambda: FactorMixture(2, n_factors=1, random_state=0, **keywords(words)).fit(X)
            ),
        },
    ),
    Followed(
        "factor analyzers are computed on the CPU",
        lambda here: refused(lambda: factors_on_device("cuda")), {
            'device="cpu"': lambda here, words: said(
                lambda: factors_on_device(**keywords(words))
            ),
        },
    ),
    Followed("computes on the CPU", lambda here: refused(
        lambda: FactorMixture(2, n_factors=1, device="cuda").fit(X)
    ), {
        "CPU": lambda here, words: said(lambda: FactorMixture(
            2, n_factors=1, random_state=0, device=words.lower()
        ).fit(X)),
    }, "estimators/cpu.py"),
    Followed("factors are fewer than columns", lambda here: refused(
        lambda: FactorMixture(2, n_factors=2).fit(X)
    ), {
        "lower n_factors": lambda here, words: said(
            lambda: FactorMixture(2, n_factors=1, random_state=0).fit(X)
        ),
        "fit a GaussianMixture": lambda here, words: said(lambda: fit()),
    }),
    Followed(
        "no longer have a shape, a volume", lambda here: refused(lambda: held_within()), {
            "max_ratio=None": lambda here, words: said(lambda: held_within(**keywords(words))),
            "one of (.*)": lambda here, words: said(
                lambda: [held_within(covariance_type=one) for one in words.split(", ")]
            ),
        },
    ),
    Followed(
        "scales and means_ of shape", lambda here: warm_tails(),
        {"warm_start=False": lambda here, words: warm_tails(**keywords(words))},
    ),
    Followed(
        "the last fit was of n_components=", lambda here: warm_counts(),
        {"warm_start=False": lambda here, words: warm_counts(**keywords(words))},
    ),
    Followed("the last fit has cluster_centers_ of shape", lambda here: warm_clusters(), {
        "warm_start=False": lambda here, words: warm_clusters(**keywords(words)),
    }),
    Followed("init={}: expected one of", lambda here: said(lambda: clusters(init=3)), {
        "one of (.*), or an array": lambda here, words: said(
            lambda: [clusters(init=one) for one in each_of(words)]
        ),
        "an array of centres": lambda here, words: said(
            lambda: clusters(init=X[:2])
        ),
    }),
    Followed("spherical={}: expected", lambda here: said(lambda: clusters(spherical="x")), {
        "(True) or (False)": lambda here, words: said(
            lambda: [clusters(spherical=one) for one in (True, False)]
        ),
    }),
    Followed(
        "the last fit was of other groups of columns", lambda here: warm_groups(),
        {"warm_start=False": lambda here, words: warm_groups(**keywords(words))},
    ),
    Followed("needs rows to score", lambda here: chosen(criterion="holdout"), {
        r"holdout=[\d.]+": lambda here, words: chosen(criterion="holdout", **keywords(words)),
    }),
    Followed("K-means has none", lambda here: chosen(estimator=KMeans, holdout=0.1), {
        "Leave hold-out away": lambda here, words: chosen(estimator=KMeans),
        r"criterion='bic'": lambda here, words: chosen(estimator=KMeans, **keywords(words)),
        r"\(or ('aic', 'icl')\)": lambda here, words: refused(lambda: [
            select(X, [1, 2], estimator=KMeans, criterion=one) for one in code(words)
        ]),
        "the elbow of the inertia, which table": elbow_told,
        "the silhouette: with keep_all=True": silhouettes_told,
    }),
    Followed("drew none of any weight", lambda here: chosen(criterion="holdout", holdout=1e-9), {
        "hold more out": lambda here, words: chosen(criterion="holdout", holdout=0.2),
    }),
    Followed("holdout={}: expected", lambda here: chosen(holdout=2.0), {
        "a number of at least 0 and below 1": lambda here, words: "".join(
            chosen(holdout=share) for share in (0, 0.1, 0.2)
        ),
    }),
    Followed("criterion={}: expected", lambda here: chosen(criterion="other"), {
        "one of (.*)": each_criterion
    }),
    Followed("covariance_type={}: expected", lambda here: said(lambda: fit(covariance_type="x")), {
        "one of (.*)": each_covariance
    }),
    Followed("dtype={}: expected", lambda here: labelled("f4"), {
        r"such as (\w+)": lambda here, words: labelled(words),
    }),
    Followed("callbacks={}: expected", lambda here: said(lambda: fit(callbacks=3)), {
        "a list of callables": lambda here, words: said(lambda: fit(callbacks=[lambda state: 0])),
        "None": lambda here, words: said(lambda: fit(callbacks=code(words))),
    }),
    Followed("checkpoint={}: expected", lambda here: said(lambda: fit(checkpoint=3)), {
        "the path of a folder": lambda here, words: said(
            lambda: fit(checkpoint=here.path("kept"))
        ),
        "Checkpointing": lambda here, words: said(
            lambda: fit(checkpoint=code(words, Checkpointing=Checkpointing)(here.path("other")))
        ),
    }),
    Followed("random_state={}: expected", lambda here: said(lambda: fit(random_state="x")), {
        r"2\*\*32 - 1": lambda here, words: said(lambda: fit(random_state=code(words))),
        r"numpy\.random\.RandomState": lambda here, words: said(
            lambda: fit(random_state=code(f"{words}(0)", numpy=np))
        ),
        "None": lambda here, words: said(lambda: fit(random_state=code(words))),
    }),
    Followed("'cuda' cannot be had in", lambda here: said(lambda: fit(device="cuda")), {
        "device='cpu'": lambda here, words: said(lambda: fit(**keywords(words))),
    }),
    Followed("fitted to rows with weights", lambda here: weighted(here), {
        "sample_weight": lambda here, words: "with weights" * (
            "with weights" in weighted(here, **{words: np.full(400, 2.0)})
        ),
    }),
    Followed("{} exists; choose another name or pass", lambda here: said(
        lambda: fit().save(saved(here))
    ), {
        "overwrite=True": lambda here, words: said(
            lambda: fit().save(here.path("m.npz"), **keywords(words))
        ),
        "choose another name": lambda here, words: said(lambda: fit().save(here.path("n.npz"))),
    }, "storage/outputs/files.py"),
]  # fmt: skip


# -- checkpoints -------------------------------------------------------------------------


def stopped(here: Here, rows: Any = X) -> None:
    """Leave the unfinished fit of some rows in a folder."""

    def stop(state: EMState) -> None:
        raise KeyboardInterrupt

    try:
        fit(rows, checkpoint=here.path("kept"), callbacks=[stop])
    except KeyboardInterrupt:
        return
    raise AssertionError("the fit was not stopped")


def going_on_in(here: Here, rows: Any, how: dict[str, Any], **options: Any) -> str:
    """What another fit says in that folder."""
    checkpoint = Checkpointing(here.path("kept"), **how)
    return said(lambda: fit(rows, checkpoint=checkpoint, **options))


def after_stop(rows: Any, **options: Any) -> Callable[[Here], str]:
    def going_on_after_it(here: Here) -> str:
        stopped(here)
        return going_on_in(here, rows, {}, **options)

    return going_on_after_it


def other_data(here: Here) -> str:
    """Go on without the survey that was kept, with other numbers in the same place."""
    stopped(here, stored(here))
    here.path("kept/survey.npz").unlink()
    zarr.open_array(here.path("x.zarr"))[:] = NEARLY
    return going_on_in(here, here.path("x.zarr"), {})


def with_other_data(here: Here, words: str) -> str:
    return going_on_in(here, here.path("x.zarr"), keywords(words))


def with_the_same(here: Here, words: str) -> str:
    """Go on with the data that were there at first; then leave all as it was found."""
    zarr.open_array(here.path("x.zarr"))[:] = X
    return going_on_in(here, here.path("x.zarr"), {})


CHECKPOINTS = [
    Followed("pass resume=False to throw it away and start anew", after_stop(X, n_components=3), {
        "resume=False": lambda here, words: going_on_in(here, X, keywords(words), n_components=3),
    }, "storage/checkpoint.py"),
    Followed(", pass force=True where they are", after_stop(NEARLY), {
        "force=True": lambda here, words: going_on_in(here, NEARLY, keywords(words)),
    }),
    Followed("what their survey summed differs", other_data, {"give the same data": with_the_same}),
    Followed("what their survey summed differs", other_data, {"force=True": with_other_data}),
    Followed("what their survey summed differs", other_data, {"resume=False": with_other_data}),
]  # fmt: skip
