"""The series as a site: ``make site`` builds it with Sphinx into ``artifacts/site``."""

import json
import shutil
from pathlib import Path

project = "PyTorch to Triton"
extensions = ["myst_nb", "sphinx.ext.githubpages", "sphinx_copybutton"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "notebooks/**.ipynb"]
exclude_patterns = [".venv*", "artifacts", "my_network"]

html_theme = "furo"
html_title = project
html_show_copyright = html_show_sphinx = False
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

nb_execution_mode = "off"  # the stored outputs, which the tests compare
nb_merge_streams = True
suppress_warnings = [
    "misc.highlighting_failure",  # of `!command \` over several lines
    "toc.not_included",  # solutions: the lessons link to them
]
myst_heading_anchors = 3
# The anchors that Jupyter gives headings; links in the notebooks lead to them.
myst_heading_slug_func = "nbconvert.filters.strings._convert_header_id"

CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: 1 · The path

notebooks/0[0-8]*
```

```{toctree}
:hidden:
:glob:
:caption: 2 · Faster

notebooks/09*
notebooks/1[0-2]*
```

```{toctree}
:hidden:
:glob:
:caption: 3 · In service

notebooks/1[3-8]*
```

```{toctree}
:hidden:
:caption: Further

docs/gpu_and_docker
docs/several_servers
docs/stand_in
docs/check_a_repository
docs/hostile_pictures
docs/benchmark
docs/tensorrt_8
docs/troubleshooting
docs/settings
docs/glossary
docs/old_numbers
```

```{toctree}
:hidden:
:caption: The project

docs/contributing
docs/licences
README.zh-CN
```
"""


def add_contents(app, docname, source):
    """The README on GitHub has no use for the side bar's table of contents."""
    if docname == root_doc:
        source[0] += CONTENTS


def describe_figures(app, docname, source):
    """Give a cell's figures the alternative text in its metadata, as nbconvert does."""
    if docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if "alt" in cell["metadata"]:
                image = {"image": {"alt": cell["metadata"]["alt"]}}
                cell["metadata"]["mystnb"] = image
        source[0] = json.dumps(notebook)


def add_index(app, exception):
    """The first page under the name that a web server looks for."""
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir)
        shutil.copy(folder / "README.html", folder / "index.html")


def setup(app):
    app.connect("source-read", add_contents)
    app.connect("source-read", describe_figures)
    app.connect("build-finished", add_index)
