"""Small separators, and a batch for them."""

from types import SimpleNamespace

import torch

from fourfold.modalities.audio.flowsep import FlowSep
from fourfold.modalities.audio.mask_regression import MaskRegression

FRONT = {"sample_rate": 8000, "n_fft": 256, "hop_length": 80, "num_bands": 16, "f_max": 4000.0}
UNET = {"channels": 8, "multipliers": [1, 2], "attention_levels": [1], "norm_groups": 4, "head_channels": 8}
TEXT = {"name": "ngrams", "channels": 8, "buckets": 64}
SMALL = {
    "front": FRONT,
    "unet": UNET,
    "text": TEXT,
    "seconds": 0.32,
    "representation": {"name": "log-ratio", "patch": [4, 4]},
}


def randomized(model, seed=0):
    """New networks begin as constants: give every weight a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval()


def flowsep(**options):
    return randomized(FlowSep(**{**SMALL, **options}))


def mask_regression(**options):
    return randomized(MaskRegression(**{**SMALL, **options}))


def batch(size=3, length=2560, seed=1):
    generator = torch.Generator().manual_seed(seed)
    target = 0.1 * torch.randn(size, length, generator=generator)
    mixture = target + 0.1 * torch.randn(size, length, generator=generator)
    return Batch(mixture=mixture, target=target, queries=("a bell", "rain", "a dog barking")[:size])


class Batch(SimpleNamespace):
    def __len__(self):
        return len(self.mixture)
