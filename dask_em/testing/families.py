"""The laws of a family of distributions: inherit `FamilyTests`, and write `family` and `rows`."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.testing import assert_allclose

from ..core.additive import Array
from ..core.codec import Packer, digest, unpack
from ..core.family import Family
from ..core.formula import NumpyOperators
from ..core.mixture import Mixture
from ..core.responsibilities import Assignment

CLOSE = 1e-9

N_DRAWS = 20_000


class FamilyTests:
    """Check what every family does; pytest collects a subclass.

    Attributes
    ----------
    assignment : {"soft", "hard"}
        Of the rows by the E-steps of the mixtures in which the family stands.

    Examples
    --------
    >>> from dask_em.families.gaussian.family import Gaussian
    >>> from dask_em.families.gaussian.matrices import Full
    >>> from dask_em.families.gaussian.whitening import Whitening
    >>> class TestGaussian(FamilyTests):
    ...     def family(self):
    ...         unit = Whitening(np.zeros(2), np.ones(2))
    ...         means = np.array([[0.0, 0.0], [3.0, 1.0]])
    ...         return Gaussian(means, Full(np.stack([np.eye(2)] * 2)), unit)
    ...     def rows(self):
    ...         return np.random.default_rng(0).normal(1.0, 2.0, (500, 2))
    >>> TestGaussian().test_an_m_step_is_never_worse()
    """

    assignment: ClassVar[Assignment] = "soft"

    def family(self) -> Family[Any]:
        """Make two components or more, none of them alike, that overlap."""
        raise NotImplementedError

    def rows(self) -> Array:
        """Make some hundred rows (n, d) that the family can describe."""
        raise NotImplementedError

    def mixture(self) -> Mixture:
        """Return the components with weights of their own."""
        weights = np.arange(1.0, 1 + self.family().n_components)
        log_weights = np.log(weights / weights.sum())
        return Mixture(log_weights, self.family(), assignment=self.assignment)

    def resp(self) -> Array:
        """Compute the responsibilities of all rows, (n, k)."""
        mixture = self.mixture()
        joint = mixture.components.log_prob(self.rows()) + mixture.log_weights
        joint = np.exp(joint - joint.max(axis=1, keepdims=True))
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    # -- sums ---------------------------------------------------------------------

    def test_sums_of_parts_add_up_to_those_of_all(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        whole = family.sufficient_statistics(rows, resp)
        cut = len(rows) // 3
        parts = family.sufficient_statistics(rows[:cut], resp[:cut])
        parts = parts + family.sufficient_statistics(rows[cut:], resp[cut:])
        assert_close(whole, parts)

    def test_a_row_of_weight_two_is_two_rows(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        twice = family.sufficient_statistics(np.repeat(rows, 2, axis=0), np.repeat(resp, 2, axis=0))
        assert_close(family.sufficient_statistics(rows, 2 * resp), twice)

    def test_sums_tell_the_expected_log_joint(self) -> None:
        mixture, rows, resp = self.mixture(), self.rows(), self.resp()
        family = mixture.components
        sums = family.sufficient_statistics(rows, resp)
        told = family.expected_log_joint(mixture.log_weights, resp.sum(axis=0), sums)
        direct = (resp * (family.log_prob(rows) + mixture.log_weights)).sum()
        assert_allclose(told, direct, rtol=CLOSE, atol=CLOSE)

    def test_sums_tell_it_of_other_parameters_too(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        sums, total = family.sufficient_statistics(rows, resp), resp.sum(axis=0)
        other, _ = family.maximize(total, sums)
        here, there = ((resp * f.log_prob(rows)).sum() for f in (family, other))
        if family.linear:
            moved = family.recentre(total, sums, other)
            told = other.expected_log_joint(np.zeros(len(total)), total, moved)
            assert_allclose(told, there, rtol=CLOSE, atol=CLOSE)
        told_gain = family.gain(total, sums, other)
        assert told_gain <= there - here + CLOSE * abs(here)
        if family.linear:
            assert_allclose(told_gain, there - here, rtol=CLOSE, atol=CLOSE * abs(here))

    def test_sums_tell_the_slope_at_their_parameters(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        total, vector = resp.sum(axis=0), family.to_unconstrained()
        sums, zeros = family.sufficient_statistics(rows, resp), np.zeros(len(total))
        rng = np.random.default_rng(3)
        for _ in range(3):
            step = 1e-5 * rng.normal(size=len(vector))
            ends = [family.from_unconstrained(vector + sign * step) for sign in (1, -1)]
            up, down = ((resp * f.log_prob(rows)).sum() for f in ends)
            told_up, told_down = (
                f.expected_log_joint(zeros, total, family.recentre(total, sums, f)) for f in ends
            )
            assert_allclose(told_up - told_down, up - down, rtol=1e-4, atol=1e-9 * abs(up))

    # -- the M-step ------------------------------------------------------------------

    def test_an_m_step_is_never_worse(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        total = resp.sum(axis=0)
        after, collapsed = family.maximize(total, family.sufficient_statistics(rows, resp))
        assert not list(collapsed)
        before, now = ((resp * f.log_prob(rows)).sum() for f in (family, after))
        assert now >= before

    def test_a_component_without_rows_is_kept_or_put_where_some_are(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        resp[:, 0] = 0.0
        sums = family.sufficient_statistics(rows, resp)
        after, collapsed = family.maximize(resp.sum(axis=0), sums)
        moved = list(family.relocated(resp.sum(axis=0), sums))
        if not family.shares_statistics:
            assert [*collapsed, *moved] == [0]
        found = after.log_prob(rows)
        assert np.isfinite(found).all()
        if moved:
            without = np.delete(found, moved, axis=1)
            assert found.max(axis=1).sum() > without.max(axis=1).sum()

    def test_plain_em_never_gets_worse(self) -> None:
        mixture, rows = self.mixture(), self.rows()
        values = []
        for _ in range(10):
            fold = mixture.fold()
            fold.update(0, rows, None)
            sums = fold.result()
            values.append(sums.mean_log_likelihood)
            mixture = mixture.m_step(sums)[0]
        assert (np.diff(values) >= -1e-9 * np.abs(values[0])).all()

    # -- parameters ----------------------------------------------------------------------

    def test_components_can_be_taken_and_joined(self) -> None:
        family, rows = self.family(), self.rows()
        if family.shares_statistics:
            return
        parts = [family.take([k]) for k in range(family.n_components)]
        joined = parts[0].joined(parts)
        assert_allclose(joined.log_prob(rows), family.log_prob(rows), rtol=CLOSE, atol=CLOSE)
        assert_allclose(parts[1].log_prob(rows)[:, 0], family.log_prob(rows)[:, 1])

    def test_the_order_of_components_does_not_matter(self) -> None:
        family, rows = self.family(), self.rows()
        order = list(reversed(range(family.n_components)))
        there = family.take(order).log_prob(rows)
        assert_allclose(there, family.log_prob(rows)[:, order], rtol=CLOSE, atol=CLOSE)

    def test_unconstrained_parameters_come_back(self) -> None:
        family, rows = self.family(), self.rows()
        vector = family.to_unconstrained()
        again = family.from_unconstrained(vector)
        assert_allclose(again.log_prob(rows), family.log_prob(rows), rtol=CLOSE, atol=CLOSE)
        assert len(family.information_scale(np.ones(family.n_components))) == len(vector)
        # Any vector is a family.
        moved = family.from_unconstrained(vector + 0.01)
        assert np.isfinite(moved.log_prob(rows)).all()

    def test_parameters_are_all_that_determines_components(self) -> None:
        family, rows = self.family(), self.rows()
        given = family.parameters()
        assert {*family.optional_parameters} < given.keys()
        again = family.with_parameters(given)
        assert_allclose(again.log_prob(rows), family.log_prob(rows), rtol=1e-7, atol=1e-7)

    def test_a_formula_is_the_density(self) -> None:
        family, rows = self.family(), np.asarray(self.rows(), dtype=np.float64)
        rows = rows[~np.isnan(rows).any(axis=1)]
        try:
            formula = family.formula(NumpyOperators(), rows)
        except NotImplementedError:
            # Its models are exported as documents alone.
            return
        common = 0.0 if formula.common is None else formula.common()
        assert_allclose(formula.components + common, family.log_prob(rows), rtol=1e-7, atol=1e-7)

    def test_files_hold_the_parameters_to_the_bit(self) -> None:
        family, packer = self.family(), Packer()
        again = unpack(packer.pack(family, "family"), packer.arrays)
        assert digest(again) == digest(family)
        again.validate(family.kernel().statistics())

    def test_attributes_have_the_shapes_that_are_told(self) -> None:
        family = self.family()
        shapes = {name: array.shape for name, array in family.attributes().items()}
        assert family.attribute_shapes() == shapes

    def test_no_row_s_merge_gains(self) -> None:
        family, rows, resp = self.family(), self.rows(), self.resp()
        (loss,) = family.merge_losses([(0, 1)], resp.sum(axis=0), rows, resp)
        assert loss >= -1e-6 * len(rows)

    # -- draws ------------------------------------------------------------------------------

    def test_draws_have_the_moments(self) -> None:
        family = self.family()
        assert family.n_features == self.rows().shape[1]
        means, variances = family.moments()
        rng = np.random.default_rng(1)
        for k in range(family.n_components):
            draws = family.sample(k, N_DRAWS, rng)
            error = 6 * np.sqrt(variances[k] * (1 / N_DRAWS + 1 / 4096)) + 1e-12
            assert (np.abs(draws.mean(axis=0) - means[k]) < error).all()

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        family = self.family()
        rows = family.sample(0, N_DRAWS, np.random.default_rng(2))
        resp = np.zeros((len(rows), family.n_components))
        resp[:, 0] = 1.0
        near = family.near(rows, resp + 1e-3)
        sums = near.sufficient_statistics(rows, resp)
        found, _ = near.maximize(resp.sum(axis=0), sums)
        gain = found.log_prob(rows)[:, 0] - family.log_prob(rows)[:, 0]
        # Twice the gain is about chi-squared of as many degrees as there are parameters.
        assert -1e-6 * len(rows) <= gain.sum() < 10 + 3 * family.n_parameters


def assert_close(one: Any, other: Any) -> None:
    """Raise where the arrays of two sums differ."""
    assert type(one) is type(other)
    if isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
        return
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray | float):
            assert_allclose(value, vars(other)[name], err_msg=name, rtol=CLOSE, atol=CLOSE)
        else:
            assert_close(value, vars(other)[name])
