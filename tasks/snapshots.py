"""What a run was started with, kept beside its results."""

from __future__ import annotations

import difflib
import platform
import sys
from contextlib import suppress
from importlib import metadata
from typing import Any

import yaml
from filelock import FileLock, Timeout
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from .errors import UserError
from .runs import RunFolder, write_json

_SECTIONS = ("seed_everything", "trainer", "model", "data")
_PACKAGES = ("fourfold", "torch", "lightning", "jsonargparse", "numpy", "gluonts")


class ConfigSnapshot(Callback):
    """Saves the configuration: config.yaml at the first start, config.resume-N.yaml later, never over another.

    Only what every command understands is kept, so `--run` can read it back for `sample` or `evaluate`; in particular
    not `ckpt_path`.

    Args:
        parser: The parser of the command `fit`.
        config: What it parsed.
        run: The run folder.
    """

    def __init__(self, parser: ArgumentParser, config: Namespace, run: RunFolder) -> None:
        dumped = yaml.safe_load(parser.dump(config, skip_validation=True, format="yaml"))
        self._text = yaml.safe_dump({k: dumped[k] for k in _SECTIONS if k in dumped}, sort_keys=False)
        self._resuming = config.get("ckpt_path") is not None
        self._run = run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._run.path.mkdir(parents=True, exist_ok=True)
        if not self._resuming or not self._run.config.exists():
            self._start_anew()
        else:
            self._continue()
        write_json(self._run.environment, environment())

    def _start_anew(self) -> None:
        for path in (*self._run.path.glob("config.resume-*.yaml"), self._run.metrics_csv, self._run.metrics_json):
            path.unlink(missing_ok=True)
        for path in (*self._run.path.glob("events.out.*"), self._run.best, self._run.last):
            path.unlink(missing_ok=True)
        self._run.config.write_text(self._text, encoding="utf-8")

    def _continue(self) -> None:
        first = self._run.config.read_text(encoding="utf-8")
        number = 1
        while (path := self._run.path / f"config.resume-{number}.yaml").exists():
            number += 1
        path.write_text(self._text, encoding="utf-8")
        changed = difflib.unified_diff(first.splitlines(), self._text.splitlines(), lineterm="", n=0)
        lines = [line for line in changed if not line.startswith(("---", "+++", "@@"))]
        if lines:
            print("changed since the run was started:", *lines, sep="\n  ", flush=True)


class RunLock(Callback):
    """Keeps two trainings from writing into one run folder. The lock goes when the process does, however it ends."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._lock = FileLock(run.path / ".lock")

    def take(self) -> bool:
        """Whether the folder, which exists, is now this training's."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Give the folder free."""
        self._lock.release(force=True)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not trainer.is_global_zero:
            return
        self._run.path.mkdir(parents=True, exist_ok=True)
        if not self.take():
            raise UserError(f"another training is running in {self._run.path}: choose another --run NAME")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.release()


class TakeBack(Callback):
    """Removes what a new run has written if it fails before its first step, so that it can be tried again.

    A context around the training: `with TakeBack(run, lock) as callback: trainer.fit(...)`. Only files of a run's own
    names that were not there before are removed, and folders only if that leaves them empty; nothing in a folder that
    held a run already or in which another training is running. A stop by Ctrl-C or SIGTERM is no failure.

    Args:
        run: The run folder, not yet touched.
        lock: Its lock.
    """

    def __init__(self, run: RunFolder, lock: RunLock) -> None:
        self._run, self._lock = run, lock
        self._new = not run.used()
        self._before = set(run.beginning())
        self._missing = [folder for folder in (run.checkpoints, run.path, *run.path.parents) if not folder.exists()]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._new = False

    def __enter__(self) -> TakeBack:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._new or not isinstance(error, Exception) or not self._run.path.is_dir() or not self._lock.take():
            return
        for path in self._run.beginning():
            if path not in self._before:
                path.unlink(missing_ok=True)
        self._lock.release()
        for folder in self._missing:
            with suppress(OSError):  # not empty
                folder.rmdir()


def environment() -> dict[str, Any]:
    """Versions that influence a result, as plain values."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"python": sys.version.split()[0], "platform": platform.platform(), "packages": versions}
