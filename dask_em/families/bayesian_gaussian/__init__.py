"""Gaussian components whose parameters have a distribution: variational Bayes."""
