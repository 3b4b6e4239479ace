"""Every figure of the series, in one style that also reads without colour.

Functions draw and return a Figure; a notebook shows it with ``plt.show()``.
"""

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.ticker import LogLocator, NullLocator

# Okabe and Ito's palette, told apart with every common colour blindness
# https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#999999",
)
PALETTE = [BLUE, ORANGE, GREEN, PURPLE, GREY]
HATCHES = ["", "//", "..", "xx"]
PRECISIONS = {
    "TF32": (BLUE, "o"),
    "FP16": (ORANGE, "s"),
    "INT8": (GREEN, "^"),
    "FP32": (GREY, "D"),
}

plt.rcParams.update(
    {
        "axes.prop_cycle": cycler(linestyle=["-", "--", ":"])
        * (
            cycler(color=[BLUE, ORANGE, GREEN, PURPLE])
            + cycler(marker=["o", "s", "^", "D"])
        ),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": "medium",
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",  # legible on JupyterLab's dark theme as well
        "font.size": 10,
        "legend.frameon": False,
    }
)


def _make_logarithmic(axes):
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _digits(value):
    """Four digits, and all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def bars(values, unit, title=None, ranges=None, limits=None):
    """Horizontal bars with their values, such as operator counts or sizes.

    Args:
        values: a dict of label and number, drawn from top to bottom.
        unit: what the numbers count, for the axis.
        title: of the figure.
        ranges: a dict of label and (lowest, highest), drawn as a line on the bar.
        limits: a name, and a dict of label and number: pale bars behind the others.
    """
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.32 * len(values)))
    if limits:
        name, numbers = limits
        most = [numbers[label] for label in values]
        axes.barh(list(values), most, color="#dddddd", label=name)
        figure.legend(loc="outside lower center")
    drawn = axes.barh(list(values), list(values.values()), color=BLUE)
    axes.bar_label(drawn, map(_digits, values.values()), padding=3)
    for text, label in zip(axes.texts, values):
        if ranges:
            place = len(axes.lines)
            axes.plot(ranges[label], [place] * 2, "-", color="black", marker="|")
            text.xy = max(ranges[label]), place  # beside the end of the line
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel=unit, title=title)
    return figure


def grouped_bars(table, unit, title=None):
    """Bars side by side: a group for each row, a colour and hatch for each column.

    Args:
        table: a DataFrame of numbers.
        unit: of the numbers.
        title: of the figure.
    """
    figure, axes = plt.subplots(figsize=(7, 3.2))
    width = 0.8 / len(table.columns)
    places = np.arange(len(table))
    for i, column in enumerate(table.columns):
        offset = (i - (len(table.columns) - 1) / 2) * width
        drawn = axes.bar(
            places + offset,
            table[column],
            width,
            label=column,
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
        )
        axes.bar_label(drawn, fmt="{:.3g}", padding=2, fontsize=8)
    axes.set_xticks(places, table.index)
    axes.set(ylabel=unit, title=title)
    axes.legend()
    return figure


def stacked_bars(table, unit, title=None):
    """Horizontal bars in parts: a bar for each row, a part for each column.

    Args:
        table: a DataFrame of numbers that add up along a row.
        unit: of the numbers.
        title: of the figure.
    """
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.4 * len(table)))
    left = np.zeros(len(table))
    for i, (name, column) in enumerate(table.items()):
        axes.barh(
            table.index,
            column,
            left=left,
            label=name,
            color=PALETTE[i % len(PALETTE)],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
        )
        left += column.to_numpy()
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.3g}", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set(xlabel=unit, title=title)
    figure.legend(ncols=3, loc="outside lower center")
    return figure


def curves(lines, xlabel, ylabel, title=None, log=False):
    """Lines through measured points, each with its marker.

    Args:
        lines: a dict of name and (x, y) or (x, y, notes beside the points).
        xlabel, ylabel: what the axes show, with units.
        title: of the figure.
        log: whether the y axis is logarithmic.
    """
    outside = len(lines) > 4  # a legend inside would lie on the points
    figure, axes = plt.subplots(figsize=(7, 4.4 if outside else 3.6))
    for name, (x, y, *notes) in lines.items():
        (line,) = axes.plot(x, y, label=name)
        for at, height, note in zip(x, y, *notes) if notes else ():
            axes.annotate(
                note,
                (at, height),
                xytext=(6, 4),
                textcoords="offset points",
                color=line.get_color(),
            )
    if log:
        _make_logarithmic(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    if outside:
        figure.legend(ncols=2, loc="outside lower center")
    else:
        axes.legend()
    return figure


def over_time(seconds, series, title=None, marks=None):
    """What was read from a server while it worked, one small plot below the other.

    Args:
        seconds: when it was read.
        series: a dict of label (with its unit) and values.
        title: of the figure.
        marks: a dict of event and the second at which it began, drawn as lines across.
    """
    figure, axes = plt.subplots(
        len(series), figsize=(7, 1.5 * len(series)), sharex=True, squeeze=False
    )
    for axis, (label, values) in zip(axes[:, 0], series.items()):
        axis.plot(seconds, values, color=BLUE, marker=".", linestyle="-")
        axis.set_ylim(0, max(max(values) * 1.1, 1e-9))
        axis.set_title(label, loc="left", fontsize=9)
        axis.grid(alpha=0.3)
        for second in (marks or {}).values():
            axis.axvline(second, color="black", linestyle=":")
    for event, second in (marks or {}).items():
        axes[0, 0].annotate(
            event,
            (second, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 18),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes[-1, 0].set_xlabel("time (s)")
    figure.suptitle(title)
    return figure


def waterfall(spans, unit, title=None):
    """When each part of something began and ended, a row for each place.

    Args:
        spans: a dict of row and {part: (begin, end)}, drawn from top to bottom.
        unit: of the times.
        title: of the figure.
    """
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.5 * len(spans)))
    parts = list(dict.fromkeys(part for row in spans.values() for part in row))
    for i, part in enumerate(parts):
        found = {y: row[part] for y, row in enumerate(spans.values()) if part in row}
        axes.barh(
            list(found),
            [end - begin for begin, end in found.values()],
            left=[begin for begin, _ in found.values()],
            label=part,
            color=PALETTE[i % len(PALETTE)],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor="white",
        )
    axes.set_yticks(range(len(spans)), spans)
    axes.invert_yaxis()
    axes.set(xlabel=f"time ({unit})", title=title)
    figure.legend(ncols=len(parts), loc="outside lower center")
    return figure


def latencies(curves, title=None):
    """Latency against batch size, both on logarithmic axes.

    Args:
        curves: a dict of name and {batch size: milliseconds}. In a name such as
            ``PyTorch FP16`` the precision chooses colour and marker, and the words
            before it choose the line.
        title: of the figure.
    """
    many, families = len(curves) > 5, {}
    figure, axes = plt.subplots(figsize=(9, 4.2) if many else (7, 3.6))
    for name, curve in curves.items():
        precision = next((x for x in PRECISIONS if x in name), None)
        color, marker = PRECISIONS.get(precision, (PURPLE, "v"))
        family = name.partition(precision or name)[0]
        line = families.setdefault(family, ["-", "--", ":", "-."][len(families) % 4])
        style = {"color": color, "marker": marker, "linestyle": line}
        axes.plot(list(curve), list(curve.values()), label=name, **style)
    batches = sorted({batch for curve in curves.values() for batch in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, batches)
    _make_logarithmic(axes)
    axes.set(xlabel="images in a batch", ylabel="latency (ms)", title=title)
    axes.grid(alpha=0.3)
    axes.legend(**({"loc": "center left", "bbox_to_anchor": (1, 0.5)} if many else {}))
    return figure


def predictions(images, probabilities, labels, names=None, columns=4):
    """Pictures with the bars of their five most likely classes below them.

    Args:
        images: (height, width, 3) uint8 arrays.
        probabilities: (images, classes) array.
        labels: the class names.
        names: a title for each picture.
        columns: pictures in a row.
    """
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        2 * rows,
        columns,
        figsize=(3.1 * columns, 3.7 * rows),
        height_ratios=[2.2, 1.5] * rows,
        squeeze=False,
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, (image, p) in enumerate(zip(images, probabilities)):
        row, column = divmod(i, columns)
        picture, bar = axes[2 * row, column], axes[2 * row + 1, column]
        picture.imshow(image)
        picture.set_title(names[i] if names else None)
        best = np.argsort(p)[::-1][:5]
        bar.axis("on")
        bar.barh(range(5), p[best], color=[BLUE] + [GREY] * 4)
        bar.invert_yaxis()
        bar.set(xlim=(0, 1), yticks=[], xticks=[0, 0.5, 1])
        if row == rows - 1:
            bar.set_xlabel("probability")
        bar.spines["left"].set_visible(False)
        for place, k in enumerate(best):
            text = f"{labels[k].split(',')[0]}  {p[k]:.2f}"
            inside = p[k] > 0.55
            bar.text(
                0.02 if inside else p[k] + 0.02,
                place,
                text,
                va="center",
                fontsize=9,
                color="white" if inside else "black",
            )
    return figure


def preprocessing(picture, tensor):
    """A picture beside what is left of it for the network.

    Args:
        picture: (height, width, 3) uint8, RGB.
        tensor: (3, crop, crop) float, normalised.
    """
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), width_ratios=[1.5, 1])
    axes[0].imshow(picture)
    axes[0].set_title("picture: {1} × {0} pixels".format(*picture.shape))
    low, high = tensor.min(), tensor.max()
    axes[1].imshow(((tensor - low) / (high - low)).transpose(1, 2, 0))
    axes[1].set_title("input: {2} × {1}, contrast stretched".format(*tensor.shape))
    for axis in axes:
        axis.axis("off")
    return figure
