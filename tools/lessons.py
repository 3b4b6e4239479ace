"""Which lessons there are."""

from helpers import paths


def lesson_paths():
    """Paths of the lessons' notebooks, in their order."""
    return sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
