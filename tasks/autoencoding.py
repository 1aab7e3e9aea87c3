"""First stages: `fourfold autoencoding fit|validate|test|evaluate|export`, autoencoders of mel spectrograms."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from ..data.audio import SeparationDataModule, collate
from ..modalities.audio.mel_autoencoder import MelAutoencoder
from ..modalities.audio.metrics import oracle_ratio_mask, separation_scores, summarize
from ..modalities.audio.pictures import mel_figure, save_figure
from ..modalities.audio.reconstruction import MixturePhaseMask
from .cli import run_cli
from .errors import UserError
from .task import DiffusionTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AutoencodingTask", "main", "mel_error"]

_SHOWN = 4
_LOUD = 40.0
_DECIBEL = 8.685889638


class AutoencodingTask(DiffusionTask):
    """Trains an autoencoder of mel spectrograms and judges it by what it costs a separator."""

    def batch_size(self, batch: Any) -> int:
        return len(batch)

    def model(self) -> MelAutoencoder:
        """The adapter, typed."""
        if not isinstance(self.adapter, MelAutoencoder):
            raise UserError(f"model.adapter must be a MelAutoencoder, not a {type(self.adapter).__name__}")
        return self.adapter

    def figures(self) -> dict[str, Figure]:
        datamodule = getattr(self.trainer, "datamodule", None)
        if not isinstance(datamodule, SeparationDataModule):
            return {}
        pairs = datamodule.validation_mixtures()
        batch = collate([pairs[i] for i in range(min(_SHOWN, len(pairs)))]).to(self.device)
        log_mel = self.model().front(batch.mixture)
        return {"reconstructions": mel_figure({"sound": log_mel, "reconstruction": self.model().sample(log_mel)})}

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """Errors in dB, and SI-SDR of the mixture-phase mask through the autoencoder beside the oracle mask.

        Decoded relative to the mixture, as separators do it, and not.
        """
        data = audio_module(datamodule, self.model())
        data.test_size = num_samples
        names = ("mel-autoencoder", "mel-autoencoder, not relative", "oracle ratio mask", "mixture")
        rows: dict[str, list[dict[str, Tensor]]] = {name: [] for name in names}
        front = self.model().front
        last: dict[str, Tensor] = {}
        for batch in data.test_dataloader():
            batch = batch.to(self.device)
            target = front(batch.target)
            rebuilt, latents = self.model().sample(target), self.model().latents
            mixture = front(batch.mixture)
            decoded = latents.decode(latents.encode(target, mixture), mixture)
            relative, direct = (
                MixturePhaseMask(front)(mel, batch.mixture[:, None])[:, 0] for mel in (decoded, rebuilt)
            )
            estimates = {
                "mel-autoencoder": (decoded, relative),
                "mel-autoencoder, not relative": (rebuilt, direct),
                "oracle ratio mask": (target, oracle_ratio_mask(batch.target, batch.mixture, front)),
                "mixture": (mixture, batch.mixture),
            }
            for name, (mel, wave) in estimates.items():
                scores = separation_scores(wave, batch.target, batch.mixture, front)
                rows[name].append({**mel_error(mel, target), **scores})
            last = {"sound": target[:_SHOWN], "reconstruction": rebuilt[:_SHOWN]}
        save_figure(mel_figure(last), out / "reconstructions.png")
        print(f"{data.protocol}\n{num_samples} test sounds; errors of mel spectrograms in dB")
        return {name: summarize(joined(scores)) for name, scores in rows.items()}


def mel_error(log_mel: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Mean absolute differences of log-mels `(B, T, bands)` in dB, `(B,)`: over all bins, and over those within 40 dB
    of the true spectrogram's loudest."""
    error = _DECIBEL * (log_mel - truth).abs()
    loud = truth >= truth.amax((1, 2), keepdim=True) - _LOUD / _DECIBEL
    inside = (error * loud).flatten(1).sum(1) / loud.flatten(1).sum(1)
    return {"mel_error": error.flatten(1).mean(1), "loud_mel_error": inside}


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def audio_module(datamodule: Any, model: Any) -> SeparationDataModule:
    if not isinstance(datamodule, SeparationDataModule):
        raise UserError(f"this command needs a SeparationDataModule, not a {type(datamodule).__name__}")
    if datamodule.sample_rate != model.sample_rate:
        raise UserError(f"data.sample_rate is {datamodule.sample_rate}, the model works at {model.sample_rate} Hz")
    return datamodule


def main(args: Sequence[str] | None = None) -> int:
    """The command line."""
    return run_cli("autoencoding", AutoencodingTask, SeparationDataModule, args)


if __name__ == "__main__":
    sys.exit(main())
