"""Let ``pytest --nbval notebooks/`` run on any machine and fail once per cause."""

from pathlib import Path

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from tools.run_series import NOT_HERE, answer_as_stored

SANITIZE = Path(__file__).parent / "tests" / "data" / "nbval_sanitize.cfg"
STOPPED = pytest.StashKey[str]()  # why the rest of a notebook is skipped


def tags(item):
    """A cell's tags; an ordinary test has none."""
    return item.cell.metadata.get("tags", ()) if isinstance(item, IPyNbCell) else ()


def pytest_configure(config):
    config.option.nbval_sanitize_with = str(SANITIZE)
    answer_as_stored()


def pytest_collectstart(collector):
    """Compare what the reader is taught, not what a library happens to log."""
    if isinstance(collector, IPyNbFile):
        collector.skip_compare += ("stderr", "text/html", "image/png", "image/svg+xml")


def pytest_runtest_setup(item):
    """Skip the rest of a notebook once one of its cells has raised."""
    if reason := item.parent.stash.get(STOPPED, None):
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Let a cell tagged ``timeout=900`` outlive ``--nbval-cell-timeout``.

    A cell that needs what this kind of machine cannot have is skipped.
    """
    with pytest.MonkeyPatch.context() as patch:
        for tag in tags(item):
            if tag.startswith("timeout="):
                seconds = float(tag.removeprefix("timeout="))
                patch.setattr(item.config.option, "nbval_cell_timeout", seconds)
        try:
            return (yield)
        except NbCellError as error:
            name, _, reason = (error.inner_traceback or "").strip().partition(": ")
            if name not in NOT_HERE:
                raise
            item.parent.stash[STOPPED] = reason
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    differs = report.failed and str(call.excinfo.value) == "Cell outputs differ"
    if isinstance(item, IPyNbCell) and report.failed and not differs:
        item.parent.stash[STOPPED] = f"{item.name} raised"
    return report
