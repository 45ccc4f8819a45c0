"""Components of Student's t: parameters, degrees of freedom, and kernels that compute them."""
