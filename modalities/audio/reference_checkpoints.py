"""FlowSep's published files, read into our networks: all of what is needed, nothing guessed, nothing executed.

    v2_100k.ckpt   Lightning, `state_dict`: `model.diffusion_model.*` (U-Net), `model_ema.*` (its averaged copy, names
                   without dots), `first_stage_model.{encoder,decoder,quant_conv,post_quant_conv}.*` (VAE),
                   `first_stage_model.vocoder.*` (weight norm removed), `scale_factor`; text encoder, training losses
                   and unused schedules are skipped
    vae.ckpt       the same first stage without its prefix
    g_01000000     `generator`: the vocoder with weight norm

Read with `weights_only` and memory-mapped: a 6 GB file needs no 6 GB of memory. Weights are checked by name, shape and
a few facts every such file fulfils; what does not fit is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..foreign_checkpoints import ForeignCheckpointError, read_plain
from .bigvgan import BigVGAN, fold_weight_norm, kaiser_sinc
from .klvae import KLVAE
from .separation_unet import SeparationUNet

__all__ = ["Architecture", "FlowSepParts", "LayoutError", "read_first_stage", "read_flowsep", "read_vocoder"]

_UNET, _EMA, _FIRST_STAGE, _VOCODER = "model.diffusion_model.", "model_ema.", "first_stage_model.", "vocoder."
_SKIPPED = ("cond_stage_models.0.model.",)
_LOSS = "loss."
_SCHEDULES = frozenset(
    [
        "logvar",
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    ]
)


M = TypeVar("M", bound=nn.Module)


class LayoutError(ValueError):
    """A file is not what its kind promises; the message says what differs."""


@dataclass(frozen=True)
class Architecture:
    """How to make the (empty) networks a file fills; the default is the published one."""

    unet: Callable[[], SeparationUNet] = SeparationUNet
    vae: Callable[[], KLVAE] = KLVAE
    vocoder: Callable[[], BigVGAN] = BigVGAN


PUBLISHED = Architecture()


@dataclass(frozen=True)
class FlowSepParts:
    """What a published checkpoint holds.

    Args:
        unet: The generator, averaged weights unless asked otherwise.
        vae: The first stage.
        vocoder: BigVGAN.
        scale_factor: Latents are multiplied by it before the generator sees them.
        report: What was read, checked and skipped, one line each.
    """

    unet: SeparationUNet
    vae: KLVAE
    vocoder: BigVGAN
    scale_factor: float
    report: tuple[str, ...] = field(default=())


def read_flowsep(
    path: str | Path,
    vocoder_path: str | Path | None = None,
    *,
    averaged: bool = True,
    architecture: Architecture = PUBLISHED,
) -> FlowSepParts:
    """Read a complete FlowSep checkpoint.

    Args:
        path: `v2_100k.ckpt` or a file of its layout.
        vocoder_path: `g_01000000`; default: the vocoder inside `path`.
        averaged: Take the generator's averaged weights, which the publication samples with.
        architecture: Of the networks in the file.

    Returns:
        The filled networks, in evaluation mode.

    Raises:
        FileNotFoundError: No such file.
        LayoutError: Not a checkpoint of this layout; the message names the keys or the fact that differ.
    """
    state = _read(Path(path), "state_dict")
    name = Path(path).name
    first_stage = _part(state, _FIRST_STAGE)
    own = {k: v for k, v in first_stage.items() if not k.startswith((_VOCODER, _LOSS))}
    known = (_UNET, _EMA, _FIRST_STAGE, *_SKIPPED)
    strange = [k for k in state if not k.startswith(known) and k not in _SCHEDULES and k != "scale_factor"]
    if strange:
        raise LayoutError(f"{name}: {len(strange)} entries do not belong to FlowSep: {_shorten(strange)}")
    raw = _part(state, _UNET)
    if not raw:
        raise LayoutError(f"{name}: no generator, nothing starts with {_UNET!r}")
    ema = _averaged_state(name, state, raw)
    unet = _fill(f"{name}, generator", architecture.unet, ema if averaged else raw)
    vae = _fill(f"{name}, first stage", architecture.vae, own)
    if vocoder_path is None:
        vocoder = _fill_vocoder(f"{name}, vocoder", _part(first_stage, _VOCODER), architecture.vocoder)
        origin = f"from {name}"
    else:
        vocoder, origin = read_vocoder(vocoder_path, architecture=architecture), f"from {Path(vocoder_path).name}"
    scale_factor = _scale_factor(name, state)
    dead = _check_dead_channels(name, unet)
    report = [
        f"generator: {len(raw)} tensors, {'averaged' if averaged else 'raw'} weights "
        f"({_check_averages(name, raw, ema)})",
        f"generator: output channels {dead} are zero as published, and unused",
        f"first stage: {len(own)} tensors, scale factor {scale_factor:.6g}",
        f"vocoder: {len(vocoder.state_dict())} tensors {origin}, anti-aliasing filters as computed",
    ]
    skipped = [k for k in state if k.startswith(_SKIPPED) or k in _SCHEDULES]
    losses = [k for k in first_stage if k.startswith(_LOSS)]
    report.append(
        f"skipped: {len(skipped) - len(_SCHEDULES & state.keys())} tensors of the text encoder, {len(losses)} of "
        f"training losses, {len(_SCHEDULES & state.keys())} unused schedules"
    )
    return FlowSepParts(unet, vae, vocoder, scale_factor, tuple(report))


def read_first_stage(path: str | Path, *, architecture: Architecture = PUBLISHED) -> KLVAE:
    """Read `vae.ckpt`; raises as :func:`read_flowsep`."""
    state = _read(Path(path), "state_dict")
    own = {k: v for k, v in state.items() if not k.startswith((_VOCODER, _LOSS))}
    return _fill(Path(path).name, architecture.vae, own)


def read_vocoder(path: str | Path, *, architecture: Architecture = PUBLISHED) -> BigVGAN:
    """Read `g_01000000`, with or without weight norm and with or without a compiler's prefix.

    Raises as :func:`read_flowsep`.
    """
    state = {k.removeprefix("_orig_mod."): v for k, v in _read(Path(path), "generator").items()}
    return _fill_vocoder(Path(path).name, state, architecture.vocoder)


def _read(path: Path, key: str) -> dict[str, Tensor]:
    try:
        content = read_plain(path, mmap=True)
    except ForeignCheckpointError as error:
        raise LayoutError(str(error)) from error
    state = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        found = _shorten(sorted(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
        raise LayoutError(f"{path.name}: has no {key!r}; it holds {found}")
    wrong = [k for k, v in state.items() if not isinstance(v, Tensor)]
    if wrong:
        raise LayoutError(f"{path.name}: {key!r} holds things that are no tensors: {_shorten(wrong)}")
    return dict(state)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _fill(where: str, make: Callable[[], M], state: Mapping[str, Tensor]) -> M:
    with torch.device("meta"):
        module = make()
    expected = module.state_dict()
    missing, extra = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or extra:
        raise LayoutError(
            f"{where}: {len(missing)} of {len(expected)} tensors are missing ({_shorten(sorted(missing))}), "
            f"{len(extra)} are not known ({_shorten(sorted(extra))})"
        )
    wrong = [
        f"{k} {tuple(state[k].shape)} not {tuple(v.shape)}" for k, v in expected.items() if state[k].shape != v.shape
    ]
    if wrong:
        raise LayoutError(f"{where}: {len(wrong)} shapes differ: {_shorten(wrong)}")
    for k, v in state.items():
        if not v.is_floating_point() or not torch.isfinite(v).all():
            raise LayoutError(f"{where}: {k} is not finite floating-point ({v.dtype})")
    # The tensors themselves become the parameters; copying would need the memory twice.
    module.load_state_dict({k: v.float() for k, v in state.items()}, strict=True, assign=True)
    return module.requires_grad_(True).eval()


def _fill_vocoder(where: str, state: Mapping[str, Tensor], make: Callable[[], BigVGAN]) -> BigVGAN:
    try:
        vocoder = _fill(where, make, fold_weight_norm(state))
    except LayoutError:
        raise
    except ValueError as error:
        raise LayoutError(f"{where}: {error}") from error
    filters = kaiser_sinc()
    for k, v in vocoder.state_dict().items():
        if k.endswith(".filter") and not torch.allclose(v.flatten(), filters, atol=1e-4):
            raise LayoutError(f"{where}: {k} is not the Kaiser-windowed sinc of BigVGAN")
    return vocoder


def _averaged_state(name: str, state: Mapping[str, Tensor], raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Dots were dropped from the names; only the generator's own names say where they were.
    names = {f"diffusion_model.{k}".replace(".", ""): k for k in raw}
    if len(names) != len(raw):
        raise LayoutError(f"{name}: the averaged weights cannot be told apart, {len(raw) - len(names)} names collide")
    ema = _part(state, _EMA)
    missing = [k for k in names if k not in ema]
    extra = [k for k in ema if k not in names and k not in ("decay", "num_updates")]
    if missing or extra:
        raise LayoutError(
            f"{name}: the averaged weights do not match the generator: {len(missing)} missing "
            f"({_shorten(missing)}), {len(extra)} not known ({_shorten(extra)})"
        )
    return {names[k]: v for k, v in ema.items() if k in names}


def _check_averages(name: str, raw: Mapping[str, Tensor], ema: Mapping[str, Tensor]) -> str:
    # A few rows of the large convolutions and projections are enough, and quick for a pair of gigabytes.
    large = sorted((k for k in raw if raw[k].ndim > 1), key=lambda k: (-raw[k].numel(), k))[:8]
    pairs = [torch.stack([raw[k][:8].flatten().double(), ema[k][:8].flatten().double()]) for k in large]
    together = torch.cat(pairs, 1)
    if torch.equal(together[0], together[1]):
        return "identical to the raw ones"
    correlation = float(torch.corrcoef(together)[0, 1])
    if not correlation > 0.5:
        raise LayoutError(
            f"{name}: averaged and raw weights correlate by {correlation:.3f} only: they cannot belong together"
        )
    return f"correlation with the raw ones {correlation:.4f}"


def _scale_factor(name: str, state: Mapping[str, Tensor]) -> float:
    if "scale_factor" not in state or state["scale_factor"].numel() != 1:
        raise LayoutError(f"{name}: no scalar 'scale_factor', without which latents have the wrong size")
    value = float(state["scale_factor"])
    if not 0.1 < value < 10:
        raise LayoutError(f"{name}: scale_factor is {value:.6g}, outside the plausible (0.1, 10)")
    return value


def _check_dead_channels(name: str, unet: SeparationUNet) -> str:
    last = unet.out[-1]
    assert isinstance(last, nn.Conv2d)
    used = last.out_channels // 2
    if bool(last.weight[used:].any()):
        raise LayoutError(
            f"{name}: output channels {used} to {last.out_channels - 1} of the generator are not zero; in FlowSep they "
            "are never trained"
        )
    return f"{used} to {last.out_channels - 1}"


def _shorten(names: list[str], most: int = 4) -> str:
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f", ... {len(names) - most} more" if len(names) > most else "")
