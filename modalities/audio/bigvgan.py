r"""BigVGAN's generator: log-mel frames to samples through transposed convolutions and anti-aliased snakes.

Every nonlinearity is :math:`x + \frac{1}{\beta} \sin^2(\alpha x)` (alpha, beta per channel, stored as logarithms),
applied at twice the rate between two Kaiser-windowed sinc filters, so that the harmonics it makes do not fold back.
Stage i upsamples by `upsample_rates[i]` and averages three residual stacks of dilated convolutions.

Source: Lee et al. 2023, "BigVGAN: a universal neural vocoder with large-scale training" (arXiv 2206.04658). Parameter
names follow the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BigVGAN", "fold_weight_norm", "kaiser_sinc", "split_weight_norm"]

_TAPS = 12


class BigVGAN(nn.Module):
    """The generator; defaults are the published 16 kHz, 64-band one (13.95 M parameters).

    Args:
        num_bands: Mel bands of the input.
        upsample_rates: Factor of every stage; their product is the hop length.
        upsample_kernels: Kernel of every stage's transposed convolution.
        channels: Channels before the first stage; halved by each.
        kernels: Kernel of each residual stack.
        dilations: Dilations inside every stack.
    """

    def __init__(
        self,
        num_bands: int = 64,
        upsample_rates: Sequence[int] = (5, 4, 2, 2, 2),
        upsample_kernels: Sequence[int] = (16, 16, 8, 4, 4),
        channels: int = 512,
        kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[int] = (1, 3, 5),
    ) -> None:
        super().__init__()
        if len(upsample_rates) != len(upsample_kernels):
            raise ValueError(f"{len(upsample_rates)} upsample_rates but {len(upsample_kernels)} upsample_kernels")
        if any(k < r for k, r in zip(upsample_kernels, upsample_rates, strict=True)):
            raise ValueError(f"upsample_kernels {tuple(upsample_kernels)} must not be below {tuple(upsample_rates)}")
        if channels % 2 ** len(upsample_rates):
            raise ValueError(f"channels ({channels}) must be divisible by 2^{len(upsample_rates)}")
        self.num_bands, self.hop_length = num_bands, math.prod(upsample_rates)
        self._config: dict[str, Any] = {
            "num_bands": num_bands,
            "upsample_rates": list(upsample_rates),
            "upsample_kernels": list(upsample_kernels),
            "channels": channels,
            "kernels": list(kernels),
            "dilations": list(dilations),
        }
        self.conv_pre = nn.Conv1d(num_bands, channels, 7, padding=3)
        ups, blocks = [], []
        for i, (rate, kernel) in enumerate(zip(upsample_rates, upsample_kernels, strict=True)):
            width = channels >> (i + 1)
            up = nn.ConvTranspose1d(2 * width, width, kernel, rate, padding=(kernel - rate) // 2)
            ups.append(nn.ModuleList([up]))
            blocks += [_ResidualStack(width, k, dilations) for k in kernels]
        self.ups, self.resblocks = nn.ModuleList(ups), nn.ModuleList(blocks)
        self.activation_post = _AntiAliasedSnake(channels >> len(upsample_rates))
        self.conv_post = nn.Conv1d(channels >> len(upsample_rates), 1, 7, padding=3)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and name != "conv_pre":
                nn.init.normal_(module.weight, 0.0, 0.01)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return dict(self._config)

    @property
    def overhang(self) -> int:
        """Samples more than `hop_length` per frame, half at each end: 32 for the published kernels.

        Kernel 16 with stride 5 and padding 5 gives 5 T + 1 samples; the later stages turn the one into 32.
        """
        extra = 0
        for rate, kernel in zip(self._config["upsample_rates"], self._config["upsample_kernels"], strict=True):
            extra = extra * rate + (kernel - rate) % 2
        return extra

    def forward(self, log_mel: Tensor) -> Tensor:
        """The published mapping.

        Args:
            log_mel: Natural-log mel, `(B, num_bands, T)`.

        Returns:
            Samples in (-1, 1), `(B, 1, hop_length T + overhang)`.
        """
        x = self.conv_pre(log_mel)
        per_stage = len(self.resblocks) // len(self.ups)
        for i, up in enumerate(self.ups):
            x = cast(nn.ModuleList, up)[0](x)
            stacks = self.resblocks[i * per_stage : (i + 1) * per_stage]
            total = stacks[0](x)
            for stack in stacks[1:]:
                total = total + stack(x)
            x = total / per_stage
        return torch.tanh(self.conv_post(self.activation_post(x)))

    def waveform(self, log_mel: Tensor) -> Tensor:
        """Samples aligned with the frames: the overhang is cut off evenly.

        Args:
            log_mel: Natural-log mel as :class:`.mel.LogMel` gives it, `(B, T, num_bands)`.

        Returns:
            `(B, hop_length T)`.
        """
        if log_mel.ndim != 3 or log_mel.shape[2] != self.num_bands:
            raise ValueError(f"log_mel must be (B, T, {self.num_bands}), got shape {tuple(log_mel.shape)}")
        start, length = self.overhang // 2, self.hop_length * log_mel.shape[1]
        return self(log_mel.transpose(1, 2))[:, 0, start : start + length]


class _ResidualStack(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations = nn.ModuleList(_AntiAliasedSnake(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        for i, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            x = x + plain(self.activations[2 * i + 1](dilated(self.activations[2 * i](x))))
        return x


class _AntiAliasedSnake(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = _Snake(channels)
        self.upsample = _Upsampling()
        self.downsample = _Downsampling()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))


class _Snake(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return torch.addcdiv(x, (x * alpha).sin().square(), beta + 1e-9)


class _Upsampling(nn.Module):
    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", kaiser_sinc()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        # Grouped convolutions with an expanded filter are 4-10 times faster on CPUs than one over (B C, 1, L).
        channels, edge = x.shape[1], _TAPS // 2 - 1
        padded = F.pad(x, (edge, edge), mode="replicate")
        crop = 2 * edge + (_TAPS - 2) // 2
        twice = F.conv_transpose1d(padded, 2 * self.filter.expand(channels, -1, -1), stride=2, groups=channels)
        return twice[..., crop:-crop]


class _LowPass(nn.Module):
    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", kaiser_sinc()[None, None])

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        padded = F.pad(x, (_TAPS // 2 - 1, _TAPS // 2), mode="replicate")
        return F.conv1d(padded, self.filter.expand(channels, -1, -1), stride=2, groups=channels)


class _Downsampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = _LowPass()

    def forward(self, x: Tensor) -> Tensor:
        return self.lowpass(x)


def kaiser_sinc(cutoff: float = 0.25, half_width: float = 0.3, taps: int = _TAPS) -> Tensor:
    r"""Low-pass filter :math:`2 c\, w_n \operatorname{sinc}(2 c n)` with a Kaiser window, summing to one.

    Args:
        cutoff: c, in cycles per sample; 0.25 for a change of rate by two.
        half_width: Half the width of the transition band, in cycles per sample.
        taps: Length, even.

    Returns:
        `(taps,)`. The window's beta follows Kaiser's formula from the attenuation
        :math:`A = 2.285 (taps / 2 - 1) \pi \cdot 4\, half\_width + 7.95` dB.
    """
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    n = torch.arange(taps, device="cpu") - taps / 2 + 0.5
    window = torch.kaiser_window(taps, periodic=False, beta=beta, device="cpu")
    values = 2 * cutoff * window * torch.sinc(2 * cutoff * n)
    return values / values.sum()


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    r"""A state dict with `weight_g`, `weight_v` pairs turned into plain weights :math:`g\, v / \|v\|`.

    The norm runs over all dimensions but the first. Entries without such pairs are kept, so a plain state passes
    through.

    Raises:
        ValueError: One half of a pair is missing.
    """
    folded = {}
    for name, tensor in state.items():
        if name.endswith(".weight_g"):
            if f"{name[:-1]}v" not in state:
                raise ValueError(f"{name} has no partner {name[:-1]}v")
        elif name.endswith(".weight_v"):
            gain = state.get(f"{name[:-1]}g")
            if gain is None:
                raise ValueError(f"{name} has no partner {name[:-1]}g")
            norm = torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)
            folded[name.removesuffix("_v")] = tensor * (gain / norm)
        else:
            folded[name] = tensor
    return folded


def split_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`fold_weight_norm` for a generator's state: v = w, g = its norm."""
    split = {}
    for name, tensor in state.items():
        if name.endswith(".weight"):
            dims = tuple(range(1, tensor.ndim))
            split[f"{name}_g"] = torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
            split[f"{name}_v"] = tensor
        else:
            split[name] = tensor
    return split
