"""Pictures of fitted mixtures and of choices among them, with matplotlib (the extra `plot`).

`MixtureDisplay.from_estimator(model, X)` shows a mixture of any family over rows sampled from any
data. Each function draws into Axes that it is given, or into a new figure, and returns the Axes;
rows X are then a sample that fits in memory: all of them are drawn. Within
`matplotlib.rc_context(publication())` pictures are made for print. matplotlib is imported when
the first is drawn.

Examples
--------
>>> import numpy as np
>>> from dask_em import plots, select
>>> from matplotlib.figure import Figure
>>> X = np.random.default_rng(0).normal(size=(200, 2))
>>> found = select(X, [1, 2], random_state=0)
>>> figure = Figure()
>>> left, right = figure.subplots(1, 2)
>>> plots.selection(found, ax=left).get_ylabel()
'BIC'
>>> plots.MixtureDisplay.from_estimator(found.best, X, ax=right).ax_.get_ylabel()
'column 1'
"""

from __future__ import annotations

from .report.answers import plot_answers as answers
from .report.choices import plot_elbow as elbow
from .report.choices import plot_selection as selection
from .report.discriminants import plot_discriminants as discriminants
from .report.display import MixtureDisplay
from .report.iterations import plot_objective as objective
from .report.marginals import plot_marginal as marginal
from .report.merge_tree import plot_merge_tree as merge_tree
from .report.overlap import plot_overlap as overlap
from .report.plots import plot_components as components
from .report.plots import plot_log_likelihood as history
from .report.plots import plot_pairs as pairs
from .report.plots import plot_profiles as profiles
from .report.plots import plot_sharpness as sharpness
from .report.plots import plot_weights as weights
from .report.profile_matrix import plot_profile_matrix as profile_matrix
from .report.publication import publication
from .report.sequence import plot_sequence as iterations

__all__ = [
    "MixtureDisplay",
    "answers",
    "components",
    "discriminants",
    "elbow",
    "history",
    "iterations",
    "marginal",
    "merge_tree",
    "objective",
    "overlap",
    "pairs",
    "profile_matrix",
    "profiles",
    "publication",
    "selection",
    "sharpness",
    "weights",
]
