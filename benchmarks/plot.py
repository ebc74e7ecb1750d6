"""Draws a results.json: one panel per measurement, one bar per system.

    PYTHON_OF_THE_PEERS plot.py results.json results.svg

Runs on the interpreter that has matplotlib, so it imports nothing of ours.
"""

import json
import sys
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "zodworker"
from matplotlib import pyplot as plt  # noqa: E402 - after the choice of the backend

PANELS = {
    ("drain", "jobs/s"): "drain, jobs/s",
    ("enqueue-one", "jobs/s"): "enqueue one by one, jobs/s",
    ("enqueue-bulk", "jobs/s"): "enqueue in bulk, jobs/s",
    ("latency", "call p50 ms"): "latency, idle queue, ms (median)",
}
COLOURS = {"ours": "#1b6e53", "floor": "#bbbbbb"}


def main(source: Path, target: Path) -> None:
    """Write the plot."""
    figures = json.loads(source.read_text())["figures"]
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for figure in figures:
        panel = values.setdefault((figure["measurement"], figure["name"]), {})
        panel.setdefault(figure["system"], []).append(figure["value"])
    panels = [key for key in PANELS if key in values]
    if not panels:
        sys.exit("Nothing that is plotted was measured.")
    heights = [len(values[key]) + 1.5 for key in panels]
    chart, axes = plt.subplots(
        len(panels), figsize=(8, sum(heights) * 0.28), height_ratios=heights, squeeze=False
    )
    for axis, key in zip(axes[:, 0], panels, strict=True):
        systems = list(values[key])[::-1]
        middles = [median(values[key][system]) for system in systems]
        spread = [
            [middle - min(values[key][one]) for one, middle in zip(systems, middles, strict=True)],
            [max(values[key][one]) - middle for one, middle in zip(systems, middles, strict=True)],
        ]
        colours = [COLOURS.get(system.split("-")[0], "#6c8ebf") for system in systems]
        axis.barh(systems, middles, xerr=spread, color=colours, ecolor="#444444")
        axis.set_title(PANELS[key], loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    chart.tight_layout()
    chart.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
