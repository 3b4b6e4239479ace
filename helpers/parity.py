"""How far apart two sets of logits are, in the same units along the whole series."""

import numpy as np

from helpers import paths

COLUMNS = ["max abs error", "relative L2", "cosine", "top-1 agree", "top-5 agree"]


def compare(reference, candidate):
    """Compare two sets of logits for the same images.

    Args:
        reference, candidate: (images, classes) arrays of any float type.

    Returns:
        A dict: the largest absolute error (in logits), the relative L2 error
        ``|c - r| / |r|``, the cosine of the angle between them, and the shares of
        images for which the best class and the set of the five best are the same.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    r, c = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    if r.shape != c.shape or r.ndim != 2:
        raise ValueError(
            f"expected two arrays of one shape (images, classes), "
            f"found {r.shape} and {c.shape}"
        )
    if not (np.isfinite(r).all() and np.isfinite(c).all()):
        raise ValueError("there are values that are not finite (NaN or infinity)")
    best = [np.argsort(-x, axis=1, kind="stable")[:, :5] for x in (r, c)]
    same_five = [set(a) == set(b) for a, b in zip(*best, strict=True)]
    return {
        "max abs error": np.abs(c - r).max(),
        "relative L2": np.linalg.norm(c - r) / np.linalg.norm(r),
        "cosine": (r * c).sum() / (np.linalg.norm(r) * np.linalg.norm(c)),
        "top-1 agree": (best[0][:, 0] == best[1][:, 0]).mean(),
        "top-5 agree": np.mean(same_five),
    }


def reset():
    """Forget the rows of an earlier run of the series."""
    (paths.ARTIFACTS / "parity.csv").unlink(missing_ok=True)


def record(step, against, measures):
    """Put a row into the parity table of the series, in place of one of the same name.

    Args:
        step: what was measured, such as ``Triton gRPC``.
        against: what it was compared with.
        measures: what ``compare`` returned.
    """
    import pandas as pd

    path = paths.ARTIFACTS / "parity.csv"
    path.parent.mkdir(exist_ok=True)
    row = pd.DataFrame({"against": against, **measures}, index=[step])
    if path.exists():
        rows = pd.read_csv(path, index_col=0)
        row = pd.concat([rows.drop(index=step, errors="ignore"), row])
    row.to_csv(path, index_label="step")


def table(measures=None):
    """Format measures for reading.

    Args:
        measures: a dict of names and what ``compare`` returned; None for the parity
            table of the series.

    Returns:
        A DataFrame of strings.
    """
    import pandas as pd

    if measures is None:
        frame = pd.read_csv(paths.artifact("parity.csv"), index_col=0)
        frame.index.name = None
    else:
        frame = pd.DataFrame(measures).T
    formats = dict(zip(COLUMNS, ["{:.1e}", "{:.1e}", "{:.6f}", "{:.0%}", "{:.0%}"]))
    for column, form in formats.items():
        frame[column] = frame[column].map(form.format)
    return frame
