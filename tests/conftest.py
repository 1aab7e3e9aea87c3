"""One thread, fixed seeds, the shared reference data, and processes that can be killed."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
matplotlib.use("agg")
sys.path.insert(0, str(ROOT / "tests" / "tasks"))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data, FOURFOLD_SHARED or ../shared."""
    folder = Path(os.environ.get("FOURFOLD_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        # A merge is never checked without the reference data.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no reference data at {folder}: set FOURFOLD_SHARED")
    return folder


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (minus the signal that killed it) and all it printed."""

    status: int | None
    output: str


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[..., Ended]:
    """Run a function in a process of its own, in an empty folder.

    A fork of this process, so that it starts without the seconds that importing torch takes, and can be killed.
    """

    def run(
        function: Callable[..., Any], *args: Any, timeout: float = 120, cwd: Path = tmp_path, **environ: str
    ) -> Ended:
        with tempfile.NamedTemporaryFile("r+", encoding="utf-8") as log:
            process = multiprocessing.get_context("fork").Process(
                target=_child, args=(function, args, environ, cwd, log.name)
            )
            process.start()
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
                pytest.fail(f"the process did not end within {timeout} s; it printed:\n{log.read()}")
            return Ended(process.exitcode, log.read())

    return run


def _child(function: Callable[..., Any], args: Any, environ: dict[str, str], cwd: Path, log: str) -> None:
    os.chdir(cwd)
    os.environ.update(environ)
    target = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(target, stream)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    status = 70
    try:
        status = function(*args)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0)
