"""Families of component distributions: one file each."""

from .gaussian import Gaussian, GaussianStatistics

__all__ = ["Gaussian", "GaussianStatistics"]
