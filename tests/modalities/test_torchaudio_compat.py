"""torchaudio's transforms work whatever its compiled half does."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from fourfold.modalities.audio import torchaudio_compat


def test_transforms():
    mel = torchaudio_compat.torchaudio.transforms.MelSpectrogram(16000, n_fft=1024, hop_length=160, n_mels=64)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    power = mel(tone)
    assert power.shape == (64, 101)
    # 1000 Hz is 15 mel on the scale 2595 log10(1 + f/700): band 22 of 64 up to 8 kHz.
    assert int(power.mean(1).argmax()) == 22


def test_stub_where_the_compiled_half_does_not_load(monkeypatch):
    original = importlib.import_module
    attempts = []

    def failing(name, package=None):
        if name == "torchaudio" and not attempts:
            attempts.append(name)
            raise OSError("libc10_cuda.so: cannot open shared object file")
        return original(name, package)

    saved = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "torchaudio"}
    monkeypatch.setattr(importlib, "import_module", failing)
    try:
        module = torchaudio_compat.import_torchaudio()
        assert attempts
        assert not torchaudio_compat.compiled()
        assert module.transforms.Resample(16000, 8000)(torch.zeros(1600)).shape == (800,)
        with pytest.raises(RuntimeError, match="compiled half"):
            module.functional.forced_align(torch.randn(1, 4, 3), torch.zeros(1, 2, dtype=torch.int))
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules.update(saved)


def test_nothing_else_imports_torchaudio():
    import ast
    from pathlib import Path

    def imported(path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield node.module or ""

    root = Path(torchaudio_compat.__file__).parents[2]
    folders = ("core", "modalities", "data", "tasks")
    files = [p for folder in folders for p in (root / folder).rglob("*.py") if p.name != "torchaudio_compat.py"]
    assert files
    assert [p for p in files if any(name.split(".")[0] == "torchaudio" for name in imported(p))] == []
