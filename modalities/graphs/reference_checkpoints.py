r"""Published GDSS checkpoint files, read without executing anything in them, turned into :class:`ReferenceGDSS`.

A file is a zip of tensors and a pickle that names four globals: ``collections.OrderedDict``, ``easydict.EasyDict`` and
the two functions that rebuild float tensors. It is read with ``torch.load(weights_only=True)`` and ``EasyDict`` read as
an ordered dict; anything else in the pickle is refused. Its keys and shapes must be exactly those that the settings
stored beside the weights imply. The layout is checked before a single weight is used.

=====================================  =========================================================
published key                          here
=====================================  =========================================================
layers.L.weight, bias                  one channel of ``Convolution``
layers.L.attn.C.gnn_q|k|v.weight       row C of ``layers.L.query|key|value.weight``
layers.L.mlp.linears.K, final.linears  the same
layers.L.multi_channel.linears.K       the same
=====================================  =========================================================

The parameters that reach no output (see :mod:`.reference_networks`) must be there and are left out.
"""

from __future__ import annotations

import collections
import logging
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .reference_gdss import ReferenceGDSS
from .reference_networks import NETWORKS, GraphAttention, ScoreNetworkX
from .reference_settings import ATOMS, NODE_COUNTS, published_sampler

__all__ = ["CheckpointError", "convert_gdss", "dead_keys", "from_published", "published_shapes", "read_checkpoint"]

_ATTENTION = {"gnn_q": "query", "gnn_k": "key", "gnn_v": "value"}


class CheckpointError(ValueError):
    """A file is not a published GDSS checkpoint, or not one that can be used."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a published file: nested plain dicts, lists, numbers, strings and tensors.

    Args:
        path: the ``.pth`` file.

    Raises:
        CheckpointError: Not such a file, or its pickle asks for anything but tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a GDSS checkpoint: it is not in torch's zip format, or is cut short")
    try:
        with torch.serialization.safe_globals([(collections.OrderedDict, "easydict.EasyDict")]):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"its pickle asks for {foreign.group(1)}" if foreign else "its pickle holds more than plain values"
        raise CheckpointError(
            f"{path} is refused: {reason}; a GDSS checkpoint holds only tensors and settings, and nothing is executed"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a GDSS checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} is not a GDSS checkpoint: it holds a {type(content).__name__}, not a dict")
    return _plain(content)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def convert_gdss(path: str | Path) -> ReferenceGDSS:
    """A published file as a model; averaged weights are kept beside the others where the file has them.

    Args:
        path: the ``.pth`` file.

    Raises:
        CheckpointError: Not such a file, foreign content, settings, keys or shapes that do not fit.
    """
    path = Path(path)
    content = read_checkpoint(path)
    required = ("model_config", "params_x", "params_adj", "x_state_dict", "adj_state_dict")
    missing = [key for key in required if not isinstance(content.get(key), dict)]
    if missing:
        raise CheckpointError(f"{path} is not a GDSS checkpoint: it has no {', '.join(missing)}")
    model = _model(path, content)
    dropped: list[str] = []
    for name in ("x", "adj"):
        published = content[f"{name}_state_dict"]
        dropped += from_published(model.networks()[name], published, f"{path}: {name}_state_dict")
        if model.averages is not None:
            averaged = _averages(content[f"ema_{name}"], published, f"{path}: ema_{name}")
            from_published(model.averages[name], averaged, f"{path}: ema_{name}")
    if dropped:
        model.origin = f"{model.origin}; {len(dropped)} published tensors that reach no output were left out"
        logging.getLogger(__name__).info("%s: left out %d tensors that reach no output", path, len(dropped))
    return model.eval()


def _model(path: Path, content: dict[str, Any]) -> ReferenceGDSS:
    config = content["model_config"]
    try:
        data, sdes = config["data"], config["sde"]
        name = str(data["data"])
        networks = {part: _arguments(content[f"params_{part}"]) for part in ("x", "adj")}
        sampler = published_sampler(name, networks["x"]["kind"], config)
        averaged = "ema_x" in content and "ema_adj" in content
        if sampler is not None and sampler["use_ema"] and not averaged:
            raise CheckpointError(f"{path}: its sampler needs averaged weights, and it has none")
        counts = NODE_COUNTS.get(name)
        return ReferenceGDSS(
            networks,
            {part: {key: sdes[part][key] for key in ("type", "beta_min", "beta_max")} for part in ("x", "adj")},
            **({} if sampler is None else {"sampler": sampler}),
            max_nodes=int(data["max_node_num"]),
            atoms=ATOMS.get(name),
            node_counts=None if counts is None else list(counts.items()),
            averaged=averaged,
            steps=int(sdes["adj"].get("num_scales", 1000)),
            origin=f"published GDSS checkpoint {path.name} (data {name})",
        )
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its settings cannot be used: {error!r}") from error


def _arguments(parameters: Mapping[str, Any]) -> dict[str, Any]:
    arguments = dict(parameters)
    kind = arguments.pop("model_type")
    if kind not in NETWORKS:
        raise CheckpointError(f"unknown network {kind!r}; known: {', '.join(NETWORKS)}")
    if arguments.pop("conv", "GCN") != "GCN":
        raise CheckpointError("attention by MLP instead of graph convolution is not supported")
    arguments.pop("max_node_num", None)
    return {"kind": kind, **arguments}


def _averages(stored: Any, published: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Averages are stored without names, in the order of the state dict."""
    values = stored.get("shadow_params") if isinstance(stored, Mapping) else None
    if not isinstance(values, list) or len(values) != len(published):
        raise CheckpointError(f"{where} must list {len(published)} averaged tensors")
    return dict(zip(published, values, strict=True))


def published_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published state dict of this network, in the published order, dead parameters included."""
    return {key: shape for key, shape, _ in _layout(network)}


def dead_keys(network: nn.Module) -> set[str]:
    """Published parameters that reach no output of this network."""
    return {key for key, _, target in _layout(network) if target is None}


def from_published(network: nn.Module, published: Mapping[str, Any], where: str = "the state dict") -> list[str]:
    """Copy published weights into a network.

    Args:
        network: one of :data:`.reference_networks.NETWORKS`.
        published: published keys and tensors; a prefix ``module.`` is ignored.
        where: named in errors.

    Returns:
        The keys that were checked and left out because they reach no output.

    Raises:
        CheckpointError: Missing or unknown keys, wrong shapes or types, values that are not finite.
    """
    given = {key.removeprefix("module."): value for key, value in published.items()}
    layout = list(_layout(network))
    expected = {key: shape for key, shape, _ in layout}
    missing, unknown = (sorted(a - b) for a, b in ((expected.keys(), given.keys()), (given.keys(), expected.keys())))
    if missing or unknown:
        words = [
            f"{len(keys)} {name}, e.g. {keys[0]}" for keys, name in ((missing, "missing"), (unknown, "unknown")) if keys
        ]
        raise CheckpointError(f"{where} does not fit its settings: keys {'; '.join(words)}")
    for key, shape in expected.items():
        value = given[key]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{where}: {key} must be a tensor of floats, got {type(value).__name__}")
        if tuple(value.shape) != shape:
            raise CheckpointError(f"{where}: {key} has shape {tuple(value.shape)}, the settings imply {shape}")
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{where}: {key} holds values that are not finite")
    with torch.no_grad():
        for key, _, target in layout:
            if target is not None:
                target.copy_(given[key].reshape(target.shape))
    return [key for key, _, target in layout if target is None]


def _layout(network: nn.Module) -> Iterator[tuple[str, tuple[int, ...], Tensor | None]]:
    """(published key, its shape, the place it goes to or None) of every published parameter."""
    layers: Any = network.layers
    for index, layer in enumerate(layers):
        prefix = f"layers.{index}"
        if isinstance(network, ScoreNetworkX):
            yield f"{prefix}.weight", tuple(layer.weight.shape[1:]), layer.weight[0]
            yield f"{prefix}.bias", tuple(layer.bias.shape[2:]), layer.bias[0, 0]
        else:
            yield from _attention_layout(prefix, layer)
    yield from _mlp_layout("final", network.final)


def _attention_layout(prefix: str, layer: GraphAttention) -> Iterator[tuple[str, tuple[int, ...], Tensor | None]]:
    shape = layer.shape
    for channel in range(shape.channels):
        for published, ours in _ATTENTION.items():
            convolution = getattr(layer, ours)
            out = shape.out if ours == "value" else shape.attention
            place = (None, None) if convolution is None else (convolution.weight[channel], convolution.bias[channel, 0])
            yield f"{prefix}.attn.{channel}.{published}.weight", (shape.width, out), place[0]
            yield f"{prefix}.attn.{channel}.{published}.bias", (out,), place[1]
    yield from _mlp_layout(f"{prefix}.mlp", layer.mlp, shape.edge_sizes)
    yield from _mlp_layout(f"{prefix}.multi_channel", layer.multi_channel, shape.node_sizes)


def _mlp_layout(
    prefix: str, mlp: Any, sizes: tuple[int, ...] | None = None
) -> Iterator[tuple[str, tuple[int, ...], Tensor | None]]:
    widths: tuple[int, ...] = mlp.sizes if sizes is None else sizes
    for k, (before, after) in enumerate(pairwise(widths)):
        # a single layer is published as `linear`, several as `linears.K`
        name = f"{prefix}.linear" if len(widths) == 2 else f"{prefix}.linears.{k}"
        linear = None if mlp is None else mlp.linears[k]
        yield f"{name}.weight", (after, before), None if linear is None else linear.weight
        yield f"{name}.bias", (after,), None if linear is None else linear.bias
