"""Gaussian components: parameters, covariance structures, and kernels that compute them."""
