"""Runs on the device side of `test_arm64.py`: trains given tickets with the installed wheel, compares, prints JSON.

Needs what a device has and nothing else: numpy, `wire` and `edge_client`; no torch, no pytest.

    python arm64_parity.py FOLDER

FOLDER/*.npz hold one case each: `bundle` (bytes), `batch`, `threads`, `x`, `y`, `weights`, `scores`, what the
reference found for them, `loss`, `correct`, `gradient`, `logits`, and after as many Adam steps as `losses` is
long, `losses` and `trained` (scores).
"""

from __future__ import annotations

import json
import platform
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edge_client.kernels import library
from edge_client.runtimes import registry
from wire.bundle import decode_bundle
from wire.settings import Training


def compare(case: dict[str, Any]) -> dict[str, float]:
    """The largest differences between the runtime here and the reference, relative to the largest number expected."""
    data = case["bundle"].tobytes()
    bundle = decode_bundle(data, expected_id=sha256(data).digest())
    runtime: Any = registry.open_runtime(bundle, Training(batch=int(case["batch"])), threads=int(case["threads"]))
    x, y, weights = case["x"], case["y"], case["weights"]
    worst = {"loss": 0.0, "correct": 0.0, "gradient": 0.0}
    for _ in range(2):  # the second time on memory that the first has used
        runtime.set_scores(case["scores"])
        result, gradient = runtime.gradient(x, y, weights)
        layers = [
            float(np.abs(gradient[layer.slice] - case["gradient"][layer.slice]).max())
            / max(float(np.abs(case["gradient"][layer.slice]).max()), 1e-2)
            for layer in bundle.ticket.kept_layers
        ]
        found = {
            "loss": abs(result.loss / float(case["loss"]) - 1),
            "correct": abs(result.correct - float(case["correct"])),
            "gradient": max(layers),
        }
        worst = {name: max(value, found[name]) for name, value in worst.items()}
    difference = np.abs(runtime.logits(x) - case["logits"]).max()
    worst["logits"] = float(difference / np.abs(case["logits"]).max())
    runtime.set_scores(case["scores"])
    losses = np.array([runtime.step(x, y, weights).loss for _ in case["losses"]])
    trained = runtime.scores()
    worst["losses"] = float(np.abs(losses / case["losses"] - 1).max(initial=0))
    worst["signs"] = float(np.mean((trained >= 0) != (case["trained"] >= 0)))
    worst["scores"] = float(np.mean(np.abs(trained - case["trained"]) > 1e-3))
    return worst


def main(folder: Path) -> int:
    """Print what was compared, and where."""
    report = {
        "machine": platform.machine(),
        "kernels": str(library.library_path()),
        "vector_floats": int(library.load().hs_vector_width()),
        "cases": {path.stem: compare(dict(np.load(path))) for path in sorted(folder.glob("*.npz"))},
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
