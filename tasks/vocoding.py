"""Vocoders: `fourfold vocoding fit|validate|test|sample|evaluate|export`, mel spectrograms to sound."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ..data.audio import SeparationDataModule, collate
from ..modalities.audio.files import write_audio
from ..modalities.audio.listening import write_listening_page
from ..modalities.audio.mel_vocoder import MelVocoder, multi_resolution_distance
from ..modalities.audio.metrics import log_spectral_distance
from ..modalities.audio.pictures import Example
from ..modalities.audio.reconstruction import GriffinLim
from .autoencoding import audio_module, joined, mel_error
from .cli import run_cli
from .errors import UserError
from .task import DiffusionTask

__all__ = ["VocodingTask", "main"]


class VocodingTask(DiffusionTask):
    """Trains a vocoder and judges it by the spectrograms of what it makes, never sample by sample."""

    def batch_size(self, batch: Any) -> int:
        return len(batch)

    def model(self) -> MelVocoder:
        """The adapter, typed."""
        if not isinstance(self.adapter, MelVocoder):
            raise UserError(f"model.adapter must be a MelVocoder, not a {type(self.adapter).__name__}")
        return self.adapter

    def write_samples(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> list[Path]:
        """Test sounds rendered from their mel spectrograms: WAV files and a page with players."""
        data = audio_module(datamodule, self.model())
        data.test_size = num_samples
        pairs = data.test_mixtures()
        batch = collate([pairs[i] for i in range(num_samples)]).to(self.device)
        made = self.model().sample(self.model().front(batch.target))
        rate = self.model().sample_rate
        examples = [
            Example(query, {"sound": t[: len(m)].cpu(), "estimate": m.cpu()}, rate)
            for query, t, m in zip(batch.queries, batch.target, made, strict=True)
        ]
        files = [
            write_audio(out / f"{i:03d}.wav", example.sounds["estimate"], rate, force=True)
            for i, example in enumerate(examples)
        ]
        page = write_listening_page(out / "listening.html", examples, title="Vocoded sounds", note=str(data.protocol))
        return [*files, page]

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """Errors of re-analysed mel spectrograms in dB, spectral distances, and CPU seconds per sound."""
        data = audio_module(datamodule, self.model())
        data.test_size = num_samples
        front = self.model().front
        griffin_lim = GriffinLim(front)
        batches = [batch.to(self.device) for batch in data.test_dataloader()]
        methods: dict[str, Callable[[Tensor], Tensor]] = {
            "mel-vocoder": lambda wave: self.model().sample(front(wave)),
            # Phases of white noise: what the iteration can do without the mixture's.
            "Griffin-Lim": lambda wave: griffin_lim(front(wave), _noise(wave, seed)[:, None])[:, 0],
        }
        table = {}
        for name, render in methods.items():
            begin = time.process_time()
            made = [render(batch.target) for batch in batches]
            spent = (time.process_time() - begin) / num_samples
            scores = [self._scores(m, batch.target[:, : m.shape[1]]) for m, batch in zip(made, batches, strict=True)]
            table[name] = {key: float(v.nanmean()) for key, v in joined(scores).items()} | {"cpu_s": spent}
        print(f"{data.protocol}\n{num_samples} test sounds; errors of mel spectrograms in dB")
        return table

    def _scores(self, made: Tensor, truth: Tensor) -> dict[str, Tensor]:
        front, windows = self.model().front, self.model().windows
        return {
            **mel_error(front(made), front(truth)),
            "lsd": log_spectral_distance(made, truth, front),
            "multi_resolution": multi_resolution_distance(made, truth, windows),
        }


def _noise(wave: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.01 * torch.randn(wave.shape, generator=generator).to(wave)


def main(args: Sequence[str] | None = None) -> int:
    """The command line."""
    return run_cli("vocoding", VocodingTask, SeparationDataModule, args)


if __name__ == "__main__":
    sys.exit(main())
