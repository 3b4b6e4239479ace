"""A notebook in JupyterLab, in a real browser: nothing is cut off."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from helpers import paths, triton_server

LESSON = "04_inspect_tensorrt_engine"  # tables, figures, a provoked failure
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SCREENSHOTS = paths.ARTIFACTS / "screenshots"

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is not installed: apt install chromium"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the lesson, away from the checkout."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copy(paths.NOTEBOOKS / f"{LESSON}.ipynb", root)
    return root


@pytest.fixture(scope="module")
def lab(folder):
    """URL of a JupyterLab on the copy, by theme."""
    servers, urls = [], {}
    for theme in "Light", "Dark":
        settings = folder / theme / "@jupyterlab"
        for name, content in {
            "apputils-extension/themes": {"theme": f"JupyterLab {theme}"},
            # else cells outside the window are not drawn
            "notebook-extension/tracker": {"windowingMode": "none"},
            "apputils-extension/notification": {"fetchNews": "false"},
        }.items():
            file = settings / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
        (port,) = triton_server.free_ports(1)
        command = [
            sys.executable,
            "-m",
            "jupyter",
            "lab",
            "--no-browser",
            "--allow-root",
        ]
        command += [
            "--ip=127.0.0.1",
            f"--port={port}",
            "--IdentityProvider.token=secret",
        ]
        command.append(f"--ServerApp.root_dir={folder}")
        environment = {
            **os.environ,
            "JUPYTERLAB_SETTINGS_DIR": str(folder / theme),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / theme / "workspaces"),
        }
        with (folder / f"{theme}.log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        servers.append(process)
        urls[theme] = f"http://127.0.0.1:{port}", folder / f"{theme}.log"
    for url, log in urls.values():
        wait_for(f"{url}/api/status?token=secret", log)
    yield {theme: url for theme, (url, _) in urls.items()}
    for process in servers:
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


def opened(browser, url, width):
    """The lesson in a window of this width, with nothing beside it."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.goto(f"{url}/lab/tree/{LESSON}.ipynb?token=secret")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    page.keyboard.press("Control+b")  # the file browser
    return page


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_is_wider_than_the_window(browser, lab, theme, width):
    page = opened(browser, lab[theme], width)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    notebook = page.locator(".jp-WindowedPanel-outer").first
    for i, cell in enumerate(page.locator(".jp-OutputArea-output img").all()[:3]):
        cell.scroll_into_view_if_needed()
        page.screenshot(path=SCREENSHOTS / f"{LESSON[:2]}_{theme}_{width}_{i}.png")
    wide = page.evaluate(
        """() => [...document.querySelectorAll(
            '.jp-Notebook .jp-OutputArea-output, .jp-Notebook .jp-RenderedMarkdown')]
            .filter(x => x.scrollWidth > x.clientWidth + 1)
            .map(x => x.innerText.slice(0, 80))"""
    )
    assert not wide
    assert notebook.evaluate("x => x.scrollWidth <= x.clientWidth + 1")
    page.close()
