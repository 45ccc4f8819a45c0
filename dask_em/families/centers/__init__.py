"""Centres of clusters: the components of K-means, of one fixed variance."""
