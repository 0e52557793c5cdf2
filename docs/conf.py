"""The documentation site: ``make docs`` builds it from the Markdown pages beside this file and from the docstrings."""

import importlib
import inspect
import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "sb3_fcdl"
author = "sb3_fcdl contributors"
copyright = "sb3_fcdl contributors"
release = version = version_of("sb3_fcdl")

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"sb3_fcdl {release}"
html_show_sphinx = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Notebooks are shown with the outputs that they were saved with; `make notebooks` runs them. Nothing is loaded for widgets.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

# A link to a heading is written as on GitHub, page.md#heading, and is checked.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# A long signature has a line for each parameter.
maximum_signature_line_length = 100

REPOSITORY = "https://github.com/sb3-fcdl/sb3_fcdl/blob/main"
# Files outside of docs/ that are also pages.
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def _link_out(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files outside of docs/, relative as GitHub needs them, lead to the repository, or to their page."""

    def target(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        return f"]({PAGES[path]}{anchor})" if path in PAGES else f"]({REPOSITORY}/{path}{anchor})"

    source[0] = re.sub(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)", target, source[0])


def _include_docstrings(app: Sphinx, name: str, source: list[str]) -> None:
    """
    A comment ``<!-- docstring: module.Class -->`` is replaced by the docstring of an environment, which is Markdown, as in
    Gymnasium. Its parameters become a list.
    """

    def text(match: re.Match[str]) -> str:
        module, _, what = match[1].rpartition(".")
        docstring = inspect.getdoc(getattr(importlib.import_module(module), what)) or ""
        listed = re.sub(r"^:param (\w+):", r"* `\1`:", docstring.replace("``", "`"), flags=re.MULTILINE)
        return re.sub(r"^:raises (\w+):", r"* raises `\1`:", listed, flags=re.MULTILINE)

    source[0] = re.sub(r"<!-- docstring: (\S+) -->", text, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _link_out)
    app.connect("source-read", _include_docstrings)
