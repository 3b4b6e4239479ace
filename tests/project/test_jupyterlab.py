"""A notebook in JupyterLab, in a real browser: "Run all", and how it looks."""

import json
import os
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

import embedded_triton
from helpers import paths

pytestmark = pytest.mark.slow

LESSON = "04_run_and_inspect_an_engine"  # tables, figures, provoked failures
SCREENSHOTS = paths.ARTIFACTS / "screenshots"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else it draws a part
    "apputils-extension/notification": {"fetchNews": "false"},
}


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(paths.NOTEBOOKS / f"{LESSON}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, artifacts, stored):
    """A copy of the lesson without outputs, away from the checkout."""
    root = tmp_path_factory.mktemp("lab")
    (root / "artifacts").symlink_to(artifacts)
    (root / "notebooks").mkdir()
    notebook = nbformat.from_dict(stored)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, root / f"notebooks/{LESSON}.ipynb")
    return root


@pytest.fixture(scope="module")
def lab(folder):
    """URL of a JupyterLab on the copy."""
    for name, content in SETTINGS.items():
        file = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    (port,) = embedded_triton.free_ports(1)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=secret"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    log = folder / "lab.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/api/status?token=secret", log)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url, log):
    deadline = time.monotonic() + 60
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)


def command(page, name, **arguments):
    """Carry out a command of a menu, and wait for its end."""
    page.evaluate(
        """async ([name, arguments]) => {
            await window.jupyterapp.commands.execute(name, arguments)
        }""",
        [name, arguments],
    )


@pytest.fixture(scope="module")
def page(browser, lab):
    """The lesson after "Run All Cells" and "Save", with nothing beside it."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{lab}/lab/tree/notebooks/{LESSON}.ipynb?token=secret")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.evaluate(  # cells that are run before the kernel answers are lost
        """async () => {
            const context = window.jupyterapp.shell.currentWidget.sessionContext
            await context.ready
            await context.session.kernel.info
        }"""
    )
    command(page, "filebrowser:toggle-main")
    command(page, "notebook:run-all-cells")
    page.wait_for_function(  # the last cell's number comes a little later
        """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
            .every(x => /\\d/.test(x.innerText))"""
    )
    command(page, "docmanager:save")
    yield page
    page.close()


def test_run_all_goes_through(page, folder, stored):
    executed = nbformat.read(folder / f"notebooks/{LESSON}.ipynb", as_version=4)
    for now, before in zip(executed.cells, stored.cells, strict=True):
        assert now.source == before.source
        if now.cell_type == "markdown":
            continue
        assert now.execution_count == before.execution_count
        kinds = [
            [(x.output_type, "image/png" in x.get("data", ())) for x in cell.outputs]
            for cell in (now, before)
        ]
        assert kinds[0] == kinds[1], now.source


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_is_wider_than_the_window(page, theme, width):
    page.set_viewport_size({"width": width, "height": 1000})
    command(page, "apputils:change-theme", theme=f"JupyterLab {theme}")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    figures = page.locator(".jp-OutputArea-output img").all()
    assert figures
    for i, figure in enumerate(figures):
        figure.scroll_into_view_if_needed()
        page.screenshot(path=SCREENSHOTS / f"{LESSON[:2]}_{theme}_{width}_{i}.png")
    for kind in ".jp-OutputArea-output", ".jp-RenderedMarkdown":
        found = page.evaluate(
            """kind => [...document.querySelectorAll(`.jp-Notebook ${kind}`)]
                .map(x => [x.scrollWidth - x.clientWidth, x.innerText.slice(0, 80)])""",
            kind,
        )
        assert found and not [text for wide, text in found if wide > 1]
    notebook = page.locator(".jp-WindowedPanel-outer").first
    assert notebook.evaluate("x => x.scrollWidth <= x.clientWidth + 1")
