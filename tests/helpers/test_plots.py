"""Every kind of figure is drawn."""

import numpy as np
import pandas as pd

from helpers import (
    images,
    plots,
)

NUMBERS = {"resize": 256, "crop": 224, "mean": [0.5] * 3, "std": [0.25] * 3}


def test_figures_are_drawn():
    table = pd.DataFrame({"a": [1.0, 2], "b": [2.0, 3]}, index=["x", "y"])
    pictures = [images.read(images.sample(name)) for name in ("coffee", "camera")]
    labels = [f"class {i}" for i in range(10)]
    figures = [
        plots.bars({"Conv": 53, "Relu": 49}, "nodes"),
        plots.bars(
            {"on": 9, "off": 5}, "images/s", ranges={"on": (8, 9), "off": (5, 5)}
        ),
        plots.grouped_bars(table, "milliseconds"),
        plots.stacked_bars(table, "milliseconds"),
        plots.curves({"a": ([1, 2], [3, 4], ["x", "y"])}, "x", "y"),
        plots.curves({"a": ([1, 2], [3, 4000])}, "x", "y", log=True),
        plots.over_time([0, 1], {"a": [0, 0], "b": [1, 2]}),
        plots.over_time([0, 1], {"a": [0, 0]}, marks={"start": 0.5}),
        plots.waterfall(
            {"x": {"queue": (0, 1), "run": (1, 3)}, "y": {"run": (2, 3)}}, "ms"
        ),
        plots.predictions(pictures, np.eye(10)[:2], labels, ["one", "two"]),
        plots.preprocessing(pictures[0], images.preprocess(pictures[0], **NUMBERS)),
    ]
    for figure in figures:
        figure.canvas.draw()
        plots.plt.close(figure)
