"""Log a fit to MLflow: a metric after every pass, what was fitted, and the model.

pip install mlflow && python examples/mlflow_passes.py [TRACKING_URI]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np

from dask_em import GaussianMixture
from dask_em.core.em import EMState


def log_pass(state: EMState) -> None:
    """Log what the pass reached: `callbacks=[log_pass]` calls it after every one."""
    mlflow.log_metric("log_likelihood", state.reported, step=state.n_iter)


def main(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    rng = np.random.default_rng(0)
    X = rng.normal([[0.0, 0.0], [5.0, 1.0], [2.0, 6.0]], 1.0, (1000, 3, 2)).reshape(-1, 2)

    with mlflow.start_run() as run:
        gm = GaussianMixture(3, random_state=0, callbacks=[log_pass]).fit(X)
        # A function of this script is no part of the model.
        gm.set_params(callbacks=None)
        mlflow.log_params({"n_components": gm.n_components, "status": gm.status_.name})
        mlflow.set_tag("print", gm.provenance_["fingerprint"])
        # Pickle is what mlflow.sklearn writes unless it is told otherwise: load what you trust.
        info = mlflow.sklearn.log_model(gm, name="model", serialization_format="cloudpickle")
        # The checksummed file without pickle, for `dask-em predict`, lies beside it.
        with tempfile.TemporaryDirectory() as scratch:
            gm.save(Path(scratch, "model.npz"))
            mlflow.log_artifact(str(Path(scratch, "model.npz")))

    again = mlflow.sklearn.load_model(info.model_uri)
    metrics = mlflow.MlflowClient().get_metric_history(run.info.run_id, "log_likelihood")
    print(f"{len(metrics)} passes are logged, the last at {metrics[-1].value:.4f} nats per row")
    print("the loaded model agrees:", bool((again.predict(X) == gm.predict(X)).all()))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(f"sqlite:///{folder}/mlflow.db")
