"""FlowSep at its published size, and the small separator: CPU seconds and memory on one thread.

    python benchmarks/audio.py                 # U-Net step, small separator
    python benchmarks/audio.py --training      # also a training step of the published U-Net (needs 6 GB)
    python benchmarks/audio.py --stages        # also the published first stage and vocoder
    python benchmarks/audio.py --quality flowsep-vae-synthetic flowsep-synthetic     # what shipped weights reach

CPU seconds are process time of one thread, the smallest of three runs; weights are random, which costs the same. The
published code on the same kind of machine: U-Net step 4.0, training step 14.5 with 5.2 GB, VAE 6.1 (encoder) and 10.2
(decoder), vocoder 9.3; all for 10.24 s, batch 1. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from fourfold.data.audio import SeparationDataModule
from fourfold.modalities.audio import KLVAE, BigVGAN, SeparationUNet
from fourfold.modalities.audio.metrics import separation_scores, summarize
from fourfold.modalities.zoo import load, zoo

REFERENCE = {
    "U-Net step": 4.0,
    "U-Net training step": 14.5,
    "VAE encoder": 6.1,
    "VAE decoder": 10.2,
    "vocoder": 9.3,
    "small separator, 10 steps, 2.56 s": 0.5,
}
MEMORY_BAR = 5.2


def cpu_seconds(run: Callable[[], object], times: int = 3) -> float:
    """Smallest process time of some runs."""
    spent = []
    for _ in range(times):
        begin = time.process_time()
        run()
        spent.append(time.process_time() - begin)
    return min(spent)


def unet_step() -> float:
    """One evaluation of the published U-Net at 10.24 s, batch 1, 50 text states."""
    unet = SeparationUNet().eval()
    x, context = torch.randn(1, 16, 256, 16), torch.randn(1, 50, 1024)
    mask = torch.ones(1, 50, dtype=torch.bool)
    with torch.inference_mode():
        return cpu_seconds(lambda: unet(x, torch.tensor(0.5), context, mask))


def training_step() -> tuple[float, float]:
    """Forward, backward and AdamW of the published U-Net at batch 1; CPU seconds and peak memory in GB."""
    unet = SeparationUNet().train()
    unet.checkpoint_activations = True
    optimizer = torch.optim.AdamW(unet.parameters(), lr=5e-5)
    x, context = torch.randn(1, 16, 256, 16), torch.randn(1, 50, 1024)

    def step() -> None:
        loss = (unet(x, torch.rand(1), context)[:, :8] - 1.0).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    spent = cpu_seconds(step, 2)
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def stages() -> dict[str, float]:
    """The published first stage and vocoder at 10.24 s."""
    vae, vocoder = KLVAE().eval(), BigVGAN().eval()
    mel, latent = torch.randn(1, 1024, 64), torch.randn(1, 8, 256, 16)
    with torch.inference_mode():
        return {
            "VAE encoder": cpu_seconds(lambda: vae.encode(mel), 1),
            "VAE decoder": cpu_seconds(lambda: vae.decode(latent), 1),
            "vocoder": cpu_seconds(lambda: vocoder.waveform(mel), 1),
        }


def small_separator() -> float | None:
    """Ten steps of the shipped separator on a window of 2.56 s, everything included."""
    if "flowsep-vae-synthetic" not in zoo():
        return None
    model = load("flowsep-vae-synthetic")
    wave = 0.1 * torch.randn(model.window)
    return cpu_seconds(lambda: model.separate(wave, model.sample_rate, "a bell ringing", steps=10))


def quality(name: str, root: str | None) -> None:
    """Prints what a shipped separator, with its rounded weights, reaches on the 100 test pairs."""
    data = SeparationDataModule("esc10" if "esc10" in name else "synthetic", root=root)
    data.setup()
    model, scores = load(name), []
    for batch in data.test_dataloader():
        made = model.sample(batch.mixture, batch.queries)
        scores.append(separation_scores(made, batch.target, batch.mixture, model.front)["si_sdri"])
    row = summarize({"si_sdri": torch.cat(scores)})
    print(
        f"{name}: SI-SDR {row['si_sdri']:+.2f} dB, median {row['si_sdri_median']:+.2f}, {row['improved']:.0%} improve"
    )


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--quality", nargs="+", default=[], help="shipped separators to judge, and nothing else")
    parser.add_argument("--root", help="folder of data sets")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.quality:
        quality(name, options.root)
    if options.quality:
        return 0
    torch.manual_seed(0)
    missed = False
    rows: dict[str, float] = {}
    memory = None
    if options.training:
        # First, so that the peak of the process is its own.
        rows["U-Net training step"], memory = training_step()
    rows["U-Net step"] = unet_step()
    if options.stages:
        rows |= stages()
    small = small_separator()
    if small is not None:
        rows["small separator, 10 steps, 2.56 s"] = small
    for name, spent in rows.items():
        bar = REFERENCE[name]
        missed = missed or spent > bar
        print(f"{name:36} {spent:7.2f} CPU-s   (bar {bar:g})")
    if memory is not None:
        missed = missed or memory > MEMORY_BAR
        print(f"{'peak memory of the training step':36} {memory:7.2f} GB      (bar {MEMORY_BAR:g})")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
