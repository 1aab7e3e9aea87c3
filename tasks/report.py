"""Self-contained HTML reports: one file with text, tables and pictures, readable offline."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from .._version import __version__

__all__ = ["Figure", "Section", "Table", "write_report"]


@dataclass(frozen=True)
class Table:
    """Rows of cells; numbers are shown with four significant digits.

    Attributes:
        best: index of the row to highlight, -1 for none.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    best: int = -1


@dataclass(frozen=True)
class Figure:
    """A PNG or GIF file and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """One part of a report; ``verdict`` is the sentence that stands out, ``links`` are texts and files beside it."""

    title: str
    paragraphs: Sequence[str] = ()
    verdict: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)
    links: Sequence[tuple[str, str]] = ()
    code: str = ""


def write_report(path: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Write the report with all pictures inside.

    Args:
        path: the HTML file; its folder is created.
        title: heading.
        lead: one sentence under it.
        sections: the parts.

    Returns:
        ``path``.
    """
    source = files(__package__ or "fourfold.tasks").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(
        title=title,
        lead=lead,
        sections=[_prepared(section, path.parent) for section in sections],
        foot=f"fourfold {__version__}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _prepared(section: Section, folder: Path) -> dict[str, Any]:
    return {
        "title": section.title,
        "paragraphs": section.paragraphs,
        "verdict": section.verdict,
        "code": section.code,
        "links": [(text, os.path.relpath(file, folder)) for text, file in section.links],
        "tables": [
            {
                "columns": table.columns,
                "caption": table.caption,
                "best": table.best,
                "rows": [[_cell(cell) for cell in row] for row in table.rows],
            }
            for table in section.tables
        ],
        "figures": [
            {
                "kind": "gif" if figure.path.suffix == ".gif" else "png",
                "data": base64.b64encode(figure.path.read_bytes()).decode(),
                "caption": figure.caption,
            }
            for figure in section.figures
        ],
    }


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
