"""The roofline of a results file: how near each point is to what the machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from coordinator.device_worker import copied

COLOURS = {"har-cnn": "#2563eb", "lenet": "#b45309", "conv2": "#047857", "conv4": "#be185d"}
MARKERS = {1: "v", 16: "o", 32: "s"}


def write_roofline(path: Path, result: dict[str, Any]) -> None:
    """Draw the sparse runtime's points under the machine's two roofs, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    peak, bandwidth = result["fma_peak_gflops"], copied() / 1e9
    rows = [row for row in result["rows"] if row["runtime"] == "sparse"]
    figure, axes = pyplot.subplots(figsize=(8, 5))
    intensity = np.geomspace(0.5, 2000, 200)
    axes.plot(intensity, np.minimum(peak, bandwidth * intensity), color="#111827", linewidth=1.5)
    axes.annotate(f"{peak:.0f} GFLOP/s measured peak", (1900, peak * 1.06), ha="right", fontsize=8)
    axes.annotate(f"{bandwidth:.0f} GB/s copy", (0.55, bandwidth * 0.75), fontsize=8, rotation=38)
    for row in rows:
        axes.plot(
            row["intensity"],
            row["fma_peak_share"] * peak,
            marker=MARKERS.get(row["batch"], "D"),
            color=COLOURS.get(row["net"], "#6b7280"),
            markersize=4 + 12 * row["density"],
            alpha=0.8,
            linestyle="",
        )
    for net, colour in COLOURS.items():
        axes.plot([], [], marker="o", linestyle="", color=colour, label=net)
    for batch, marker in MARKERS.items():
        axes.plot([], [], marker=marker, linestyle="", color="#6b7280", label=f"batch {batch}")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="operations on kept weights per byte moved (estimated)",
        ylabel="GFLOP/s on kept weights, whole step",
        title=f"sparse kernels, {result['machine']['cpu']}, one core, {result['date']} (larger: denser)",
    )
    axes.title.set_fontsize(9)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(visible=True, which="major", linewidth=0.3)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
