"""pomegranate's GeneralMixtureModel: `python -m peers.pomegranate float64|float32`."""

from __future__ import annotations

import sys

import torch
from pomegranate.distributions import Normal
from pomegranate.gmm import GeneralMixtureModel

from .worker import Case, Data, Fit, Run, serve


def load(case: Case, rows: Data, dtype: str) -> Run:
    kind = getattr(torch, dtype)
    X = torch.as_tensor(rows.X, dtype=kind)
    means, weights = (torch.as_tensor(a, dtype=kind) for a in (rows.means, rows.weights))
    unit = torch.ones(case.d, dtype=kind)
    covariance = torch.diag(unit) if case.kind == "full" else unit

    def run(iterations: int) -> Fit:
        # An update writes into the parameters that it was given.
        components = [
            Normal(mean.clone(), covariance.clone(), covariance_type=case.kind) for mean in means
        ]
        model = GeneralMixtureModel(components, priors=weights.clone())
        for _ in range(iterations):
            model.summarize(X)
            model.from_summaries()
        return Fit(iterations, torch.stack([c.means for c in components]).numpy())

    return run


if __name__ == "__main__":
    precision = sys.argv[1]
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    serve(lambda case, rows: load(case, rows, precision), "pomegranate", "torch", "numpy")
