"""Components of factor analyzers: few factors and a diagonal of noise in place of a covariance."""
