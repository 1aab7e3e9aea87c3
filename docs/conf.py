"""Sphinx configuration; builds offline with ``make docs``."""

import re
import tomllib
from pathlib import Path

_root = Path(__file__).parent.parent
_namespace: dict[str, str] = {}
exec((_root / "_version.py").read_text(), _namespace)

project = tomllib.loads((_root / "pyproject.toml").read_text())["project"]["name"]
copyright = "the fourfold authors"
release = _namespace["__version__"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
html_theme = "furo"
html_title = f"fourfold {release}"


def _escape_stars(_app, _what, _name, _object, _options, lines):
    # Docstrings write shapes as (B, *); reStructuredText reads the star as emphasis.
    lines[:] = [re.sub(r"(?<=, )\*(?=[,)\]])", r"\\*", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _escape_stars)
