"""What ``from sb3_fcdl import ...`` offers."""

import inspect
import pathlib
import re

import sb3_fcdl


def test_public_names_are_documented():
    for name in set(sb3_fcdl.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(sb3_fcdl, name)), name


def test_public_names_are_on_the_pages_of_the_reference():
    pages = "\n".join(path.read_text() for path in (pathlib.Path(__file__).parent.parent / "docs" / "api").glob("*.md"))
    for name in set(sb3_fcdl.__all__) - {"__version__"}:
        assert getattr(getattr(sb3_fcdl, name), "__name__", name).rpartition(".")[2] in pages, name


def test_citation_and_package_have_one_version():
    root = pathlib.Path(__file__).parent.parent
    (version,) = re.findall(r'^version = "(.*)"$', (root / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text()
    assert f"\n## {version}" in (root / "CHANGELOG.md").read_text()
