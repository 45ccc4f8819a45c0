"""Gaussian mixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from ..core.em import EMState
from ..core.engine import Engine
from ..core.mixture import Mixture
from ..data.options import MissingChunks, Names, NonFinite
from ..errors import UsageError
from ..families.factor.constraints import NAMES as FACTOR_NAMES
from ..families.gaussian.constraints import CONSTRAINTS, constraint_of, known_constraints
from ..fitting.observers import Observer
from .gaussian_questions import GaussianQuestions
from .noise import NoisyEstimator
from .options import MissingValues, check_choice, check_number
from .registry import register_estimator


@register_estimator("gaussian-mixture")
class GaussianMixture(NoisyEstimator, GaussianQuestions):
    """Gaussian mixture fitted by Expectation-Maximization to data of any size.

    Each pass reads every chunk once, computes the responsibilities
    r_nk = w_k N(x_n; mu_k, Sigma_k) / sum_j w_j N(x_n; mu_j, Sigma_j) and sums them
    into sum_n r, sum_n r x and sum_n r x x^T, from which the M-step takes the new
    parameters (Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2).

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical", "EII", ..., "VVV"}, default="full"
        scikit-learn's four, or one of the fourteen structures of Celeux and Govaert (Pattern
        Recognition 28, 1995) by mclust's names: EII VII EEI VEI EVI VVI EEE VEE EVE VVE EEV VEV
        EVV VVV. The letters say of volume, shape and orientation of the clusters in turn whether
        they are equal for all (E), free (V), or those of the axes or of a ball (I); "full" is
        VVV, "tied" EEE, "diag" VVI, "spherical" VII. For many columns see `FactorMixture`.
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    reg_covar : float, default=1e-6
        Added to every variance, in squared units of the data. Pass 0 where columns
        are small: a warning says so.
    prior : {"conjugate"}, optional
        Fraley and Raftery's conjugate prior (Journal of Classification 24, 2007) with their
        defaults: each M-step adds to the sums of a component a hundredth of a row at the mean of
        the data, and the scatter of d + 2 rows of the data's covariance over K^(2/d); of diagonal
        covariances that of the columns' mean variance, so scale columns to like units. Then
        no component narrows to a single value, whatever the data. EM raises the posterior density;
        log-likelihoods that are told are of the data alone.
    max_ratio : float, optional
        The ratio that the largest eigenvalue of all covariances may have to the smallest, in the
        units of the data: 1 for balls of one size (Garcia-Escudero et al., Annals of Statistics
        36, 2008; truncated as by Fritz et al. 2013). Scale columns to like units.
    missing_values : {"error", "mar"}, default="error"
        What NaN is: an error, or a value that is missing at random. Then a row counts by the
        density of its observed columns, in the fit and in all answers, and means and covariances
        are those of the largest likelihood of what is observed (Ghahramani and Jordan 1994). A
        fitted model is told by `set_params`; `impute` fills what is missing. On the CPU.
    noise : bool or float, default=False
        Put noise beside the components, of the constant density 1 / V, for rows that lie far from
        all of them (mclust's `initialization$noise`). Its rows have the label -1, and the last
        column of `predict_proba`. The start takes for noise what lies sparsely in the sample
        (Byers and Raftery 1998), or as large a share of the rows as a number here says; rows that
        `labels_init` says are noise have the label k there, and `weights_init` are those of the
        components among themselves. Not with missing values.
    noise_volume : float, optional
        V, in the units of the data; by default that of the box of all rows of the fit.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init : int, default=1
        Starts tried on the sample; the best goes on to the full data. Where the algorithm
        and `init_params` are "auto" there are 2 to 4, by what they cost, or `n_init` if that
        is more; they are fitted by the workers, unless the sample is above 32 MiB.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
        How responsibilities of the sample are made. "auto", the default, is k-means in
        scaled space followed by EM on the sample; the others are scikit-learn's, on
        scaled rows of the sample, and enter the full data without it.
    weights_init, means_init, precisions_init : array, optional
        The user's own start, of scikit-learn's shapes. With all three given the
        sample is not used.
    fixed : set of {"weights", "means", "covariances"}, or mapping of these to components, optional
        Parameters that stay as they start, of all components or of some: {"means"}, or
        {"means": [0], "covariances": [0]} for a known background. Means are those of
        `means_init`, covariances the inverses of `precisions_init`, and weights those of
        `weights_init`, equal where they are not given; other weights share what is left. What is
        held is no free parameter, in BIC too, and components are neither split nor merged.
    algorithm : {"auto", "em"}, default="auto"
        "auto" makes steps on the sample, corrected by every pass, or mixes earlier steps
        (Anderson); what a pass shows to be worse is rejected. "em" is plain EM, iteration
        for iteration.
    sample_size : int, optional
        Rows of the uniform sample that the start is made from; by default 20 000 to
        100 000 by the number of free parameters, at most 64 MiB.
    nonfinite : {"error", "drop"}, default="error"
        What becomes of rows that hold NaN or infinity: "drop" leaves them out of the fit,
        with a warning that counts them, and of whatever is later done with the model: their
        label is -1, all else NaN.
    missing_chunks : {"error", "fill"}, default="error"
        What becomes of Zarr chunks that are not there, in the fit and in whatever is later
        done with the model: "fill" reads them as the array's fill value, as Zarr does. Zarr
        does not write chunks of nothing but that value unless it is told to, so nobody can tell
        such a chunk from a lost one.
    columns, exclude : str or sequence of str, optional
        Names of the columns that are fitted, in this order, and of those that are not; or
        patterns of names: "flux_*". All by default. Later reads find them by name.
    features : str, optional
        The dimension of a grid that holds the variables: each cell of the others is a row.
    raw : bool, default=False
        Take packed numbers (`scale_factor`, `_FillValue`, ...) as they are stored.
    random_state : int, RandomState or None
    warm_start : bool, default=False
        Start from the last result; on the same data with the same options, go on from where the
        last fit ended, whose log-likelihood the gains are measured from.
    max_passes : int, optional
        Full passes at most, the survey counted: at least 2.
    max_time : float, optional
        Seconds after which the fit ends with the best that it has, counted from the call of
        `fit`: a pass under way is given up, but for the survey and the first after it.
    callbacks : sequence of callable or Observer, optional
        Each is called with the `EMState` after every pass, when it is in the checkpoint.
        What one raises ends the fit.
    checkpoint : path, URL or Checkpointing, optional
        A folder in which the fit keeps what it needs, after every pass and every five minutes
        within one. A fit that was killed goes on there when `fit` is called again with the
        same options and data, and ends with the same bits. The folder stays until it is
        removed. `dask_em.Checkpointing` says more than where.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Where full passes and predictions compute: "cuda" moves each block of a chunk to
        the worker's GPU through CuPy (the extra `gpu`), "auto" does so if this process has
        one. A namespace module of the array API standard works too.
    verbose : int, default=0
        Above zero, a progress bar for each pass; where there is no terminal, a line in the log,
        or on standard error where nobody reads the log, as in a notebook.

    Attributes
    ----------
    weights_ : (k,) array
        They sum to one, with `noise_weight_` where there is noise.
    noise_weight_, noise_volume_ : float
        The share of noise, 0 where there is none, and its volume.
    means_ : (k, d) array
    covariances_, precisions_, precisions_cholesky_ : array
        (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical; of other structures (k,) EII,
        (k, d) those that end with I, else (k, d, d). float32 where X is; the state,
        model files and what is computed keep float64.
    converged_ : bool
    status_ : Status
        Why the fit ended; `status_.value` says what to try.
    warnings_ : list of str
        What is odd about the components, as the fit warned: those in `degenerate_`, where many
        rows hold one value of a column and `reg_covar` alone gives a component its width.
    n_iter_ : int
        Passes of EM, and M-steps; those that were rejected among them.
    lower_bound_ : float
        Mean log-likelihood per row at the best pass, in nats; `lower_bounds_` after every
        pass, which never falls by a rejected one.
    n_reads_ : int
        How often the data were read: the survey, and the passes of EM and of sweeps.
    n_sample_passes_ : float
        Work on the sample, which reads nothing, in passes over the data that would compute as
        much.
    n_passes_ : float
        The sum of both.
    n_dropped_ : int
        Rows that `nonfinite="drop"` left out.
    history_ : list of dict
        One record a pass: phase, number, seconds, rows, bytes, log_likelihood, and of
        passes of EM whether they were accepted.
    n_features_in_ : int
    feature_names_in_ : array of str
        Only where X has names: a table's columns, or a DataArray's coordinate of strings.
    state_ : EMState
        Parameters of the best pass paired with their statistics.
    provenance_ : dict
        What was fitted: source, shape, dtype, and a fingerprint of the survey's sums; with a
        checkpoint, the ID of the fit.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(1.0, 1.0, (200, 2)), rng.normal(9.0, 1.0, (100, 2))])
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> np.sort(model.means_, axis=0).round().tolist()
    [[1.0, 1.0], [9.0, 9.0]]
    >>> labels = model.predict(X)
    >>> sorted(np.bincount(labels).tolist()), bool(labels[0] == labels[-1])
    ([100, 200], False)

    Of rows whose noise is known, here of variance 0.5, covariances are those without it:

    >>> known = GaussianMixture(2, random_state=0).fit(X, noise_covariance=np.full(X.shape, 0.5))
    >>> np.abs(model.covariances_ - known.covariances_).mean(axis=0).round(1).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """

    kind_option = "covariance_type"
    array_options = ("weights_init", "means_init", "precisions_init")

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        prior: str | None = None,
        max_ratio: float | None = None,
        missing_values: MissingValues = "error",
        noise: bool | float = False,
        noise_volume: float | None = None,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        fixed: Any = None,
        algorithm: str = "auto",
        sample_size: int | None = None,
        max_passes: int | None = None,
        max_time: float | None = None,
        nonfinite: NonFinite = "error",
        missing_chunks: MissingChunks = "error",
        columns: Names = None,
        exclude: Names = None,
        features: str | None = None,
        raw: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        callbacks: Sequence[Callable[[EMState], object] | Observer] | None = None,
        checkpoint: Any = None,
        device: Any = "cpu",
        verbose: int = 0,
    ) -> None:
        super().__init__(
            n_components, tol=tol, max_iter=max_iter, n_init=n_init, init_params=init_params,
            weights_init=weights_init, fixed=fixed, algorithm=algorithm, sample_size=sample_size,
            max_passes=max_passes, max_time=max_time, nonfinite=nonfinite,
            missing_chunks=missing_chunks, columns=columns, exclude=exclude, features=features,
            raw=raw, random_state=random_state, warm_start=warm_start, callbacks=callbacks,
            checkpoint=checkpoint, device=device, verbose=verbose,
        )  # fmt: skip
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.prior = prior
        self.max_ratio = max_ratio
        self.missing_values = missing_values
        self.noise = noise
        self.noise_volume = noise_volume
        self.means_init = means_init
        self.precisions_init = precisions_init

    @classmethod
    def from_parameters(
        cls, weights: Any, means: Any = None, covariances: Any = None, **given: Any
    ) -> Self:
        """Return a fitted mixture of these parameters: nothing is read, and nothing fitted.

        It predicts, scores, draws, is saved and exported as any. A fit starts from it with
        `warm_start=True`. Its `status_` is GIVEN.

        Parameters
        ----------
        weights : (k,) array
            Not negative; they sum to one.
        means : (k, d) array
        covariances : array
            In the shape of `covariances_`: (k, d, d), unless another `covariance_type` is given.
        **given
            `feature_names`, and options, such as covariance_type="diag" or warm_start=True.

        Raises
        ------
        ValueError
            A parameter, or an option, is none of those allowed.

        Examples
        --------
        >>> import numpy as np
        >>> two = GaussianMixture.from_parameters(
        ...     [0.25, 0.75], [[0.0], [9.0]], [[1.0], [1.0]], covariance_type="diag"
        ... )
        >>> two.predict([[1.0], [8.0]]).tolist(), two.status_.name
        ([0, 1], 'GIVEN')
        >>> X = np.random.default_rng(0).normal([[0.0], [8.0]], 1.0, (100, 2, 1)).reshape(-1, 1)
        >>> two.set_params(warm_start=True).fit(X).means_.round().astype(int).ravel().tolist()
        [0, 8]
        """
        arrays = {"means": means, "covariances": covariances}
        told = {name: value for name, value in arrays.items() if value is not None}
        return super().from_parameters(weights, **told, **given)

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        check_number("reg_covar", self.reg_covar, float, 0)
        if self.prior is not None:
            check_choice("prior", self.prior, ("conjugate",))
        if self.max_ratio is not None:
            check_number("max_ratio", self.max_ratio, float, 1)
        check_choice("missing_values", self.missing_values, ("error", "mar"))
        if self.missing_values == "mar" and self.device not in ("cpu", "auto"):
            raise ValueError(
                f"device={getattr(self.device, '__name__', self.device)!r} with "
                'missing_values="mar": rows of which values are missing are computed on the CPU; '
                'pass device="cpu"'
            )
        if self.covariance_type in ("factor", "lowrank", *FACTOR_NAMES):
            name = {"factor": "UUU", "lowrank": "UUC"}.get(
                self.covariance_type, self.covariance_type
            )
            raise ValueError(
                f"covariance_type={self.covariance_type!r}: covariances of few factors are those "
                f"of FactorMixture(n_factors=q, factor_constraint={name!r})"
            )
        if self.covariance_type not in CONSTRAINTS:
            check_choice("covariance_type", self.covariance_type, known_constraints())
        if self.max_ratio is not None and not constraint_of(self.covariance_type).clipped:
            allowed = ", ".join(name for name, rule in CONSTRAINTS.items() if rule.clipped)
            raise ValueError(
                f"max_ratio={self.max_ratio!r} with covariance_type={self.covariance_type!r}: "
                "eigenvalues that are held within a ratio would no longer have a shape, a volume "
                f"or axes in common; pass max_ratio=None, or one of {allowed}"
            )
        self.check_noise()
        self.check_no_holes()

    def check_no_holes(self) -> None:
        """Raise `ValueError` where there is noise, and rows may lack values."""
        if (self.noise or self.fitted_box is not None) and self.missing_values == "mar":
            raise UsageError(
                'missing_values="mar" with noise=True: the density of noise is that of whole rows; '
                'pass missing_values="error", or fit without noise'
            )

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted attributes as a mixture, whitened by its own moments."""
        self.check_no_holes()
        return super().mixture(engine)

    def engine(self, dtype: Any = np.float64, n_rows: int | None = None) -> Engine:
        """Return what computes: with missing values, "auto" is the CPU."""
        found = super().engine(dtype, n_rows)
        aside = self.missing_values == "mar" and self.device == "auto"
        return replace(found, device="cpu") if aside else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing_values == "mar"
        return tags
