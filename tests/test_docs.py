"""The Python examples of the documentation run: blocks marked as complete programs, page by page, in one namespace."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMPLETE = {"core.md": ("class Network(torch", "from fourfold.core.testing import")}


@pytest.mark.parametrize("page", COMPLETE)
def test_examples_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    chosen = [block for block in blocks if any(mark in block for mark in COMPLETE[page])]
    assert len(chosen) == len(COMPLETE[page])
    namespace: dict[str, object] = {}
    for block in chosen:
        exec(block, namespace)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or page.stem in index, f"docs/{page.name} is not in the table of contents"
