"""Trains a small GBM on a cloud, with the H2O client as people use it: train.py URL NODES."""

import contextlib
import io
import sys
import time

import h2o
from h2o.estimators import H2OGradientBoostingEstimator


def spread(frame):
    """On how many nodes lie the chunks of a frame?"""
    summary = h2o.api(f"GET /3/Frames/{frame.frame_id}/summary")["frames"][0]
    # a row per node, then sums and means over them
    rows = summary["distribution_summary"].cell_values
    return sum(1 for row in rows if ":" in row[0] and row[3])


def main():
    url, nodes = sys.argv[1], int(sys.argv[2])
    with contextlib.redirect_stdout(io.StringIO()):  # how old this version is
        h2o.connect(url=url, verbose=False)
    h2o.no_progress()
    size = h2o.cluster().cloud_size
    if size != nodes:
        sys.exit(f"the cloud has {size} nodes instead of {nodes}")

    frame = h2o.create_frame(
        frame_id="quickstart", rows=100_000, cols=10, seed=1, seed_for_column_types=1,
        categorical_fraction=0, integer_fraction=0, binary_fraction=0, time_fraction=0,
        string_fraction=0, missing_fraction=0,
    )
    score = frame["C1"] + frame["C2"] * 2 - frame["C3"]
    frame["label"] = (score > 0).ifelse("yes", "no").asfactor()

    begun = time.monotonic()
    model = H2OGradientBoostingEstimator(ntrees=20, max_depth=4, seed=1)
    model.train(x=[f"C{i}" for i in range(1, 11)], y="label", training_frame=frame)
    print(
        f"    GBM of 20 trees on {frame.nrow} rows, spread over {spread(frame)} of {nodes} nodes: "
        f"AUC {model.auc():.4f} in {time.monotonic() - begun:.1f} s"
    )
    if not 0.8 < model.auc() <= 1:
        sys.exit("that AUC cannot be right")
    h2o.connection().close()


if __name__ == "__main__":
    main()
