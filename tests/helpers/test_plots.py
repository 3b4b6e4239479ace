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


def texts(axes):
    return [x.get_text().strip() for x in axes.texts]


def test_figures_show_the_numbers_that_they_are_given():
    table = pd.DataFrame({"a": [1.0, 2], "b": [2.0, 3]}, index=["x", "y"])
    (bars,) = plots.bars({"many": 12345.6, "few": 0.123456}, "runs").axes
    assert texts(bars) == ["12,346", "0.1235"] and bars.yaxis_inverted()
    marked = {"off": 7, "on": 8}  # in another order than the bars
    figure = plots.bars({"on": 5, "off": 4}, "a second", limits=("most", marked))
    assert [bar.get_width() for bar in figure.axes[0].patches] == [8, 7, 5, 4]
    assert figure.legends[0].get_texts()[0].get_text() == "most"
    (stacked,) = plots.stacked_bars(table, "ms").axes
    assert texts(stacked) == ["3", "5"] and stacked.yaxis_inverted()
    (grouped,) = plots.grouped_bars(table, "ms").axes
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in grouped.patches]
    assert np.mean(edges) == np.mean(grouped.get_xticks())  # a group stands at its tick
    (waterfall,) = plots.waterfall({"x": {"queue": (0, 1), "run": (1, 3)}}, "ms").axes
    assert [(bar.get_x(), bar.get_width()) for bar in waterfall.patches] == [
        (0, 1),
        (1, 2),
    ]
    names = "TensorRT FP16", "TensorRT TF32", "PyTorch FP16"
    (latencies,) = plots.latencies({name: {1: 2, 2: 3} for name in names}).axes
    half, full, other = latencies.lines
    assert half.get_color() == other.get_color() != full.get_color()
    assert half.get_linestyle() == full.get_linestyle() != other.get_linestyle()
    (curves,) = plots.curves({"a": ([1, 2], [30, 40])}, "x", "y").axes
    assert (curves.get_xlim()[0], curves.get_ylim()[0]) == (0, 0)
    plots.plt.close("all")


def test_the_likeliest_class_comes_first_and_sizes_are_width_by_height():
    picture = np.zeros((40, 60, 3), np.uint8)
    probabilities = np.array([[0.1, 0.6, 0.2, 0.04, 0.03, 0.03]])
    _, bar, *_ = plots.predictions([picture], probabilities, "abcdef", columns=1).axes
    assert texts(bar)[:3] == ["b  0.60", "c  0.20", "a  0.10"]
    tensor = np.arange(3 * 4 * 5.0).reshape(3, 4, 5)
    left, right = plots.preprocessing(picture, tensor).axes
    assert left.get_title() == "picture: 60 × 40 pixels"
    assert right.get_title().startswith("input: 5 × 4")
    plots.plt.close("all")
