"""Run pyright over the package.

The repository root is the package `fourfold`, which a type checker cannot see through an editable install's import
hook; a temporary folder with a link `fourfold -> repository` shows it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKED = ("__init__.py", "__main__.py", "configs", "core", "data", "modalities", "tasks")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "fourfold").symlink_to(ROOT, target_is_directory=True)
        settings = {
            "include": [f"fourfold/{name}" for name in CHECKED],
            "extraPaths": [folder],
            "pythonVersion": "3.11",
            "typeCheckingMode": "standard",
            "reportMissingTypeStubs": False,
            "reportMissingModuleSource": False,
        }
        (place / "pyrightconfig.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "pyright", "--project", folder, "--pythonpath", sys.executable, *sys.argv[1:]]
        return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
