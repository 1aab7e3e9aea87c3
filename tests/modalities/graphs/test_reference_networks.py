"""Golden outputs of the published networks, independence of padding, and the laws the fast evaluation rests on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fourfold.modalities.graphs.reference_checkpoints import convert_gdss, published_shapes
from fourfold.modalities.graphs.reference_gdss import ReferenceGDSS
from fourfold.modalities.graphs.reference_networks import (
    ScoreNetworkA,
    ScoreNetworkX,
    ScoreNetworkXGMH,
    from_pairs,
    to_pairs,
)

FILES = {"community_small": "community_small", "ego_small": "ego_small", "qm9": "QM9", "zinc250k_v2": "ZINC250k_v2"}
SMALL = {"num_linears": 2, "c_init": 2, "c_hid": 4, "c_final": 3, "adim": 8, "num_heads": 2}


def tensors(path: Path, *names: str) -> list[Tensor]:
    stored = np.load(path)
    return [torch.from_numpy(stored[name]) for name in names]


@pytest.mark.parametrize("file", FILES)
def test_published_outputs(file: str, shared: Path) -> None:
    model = convert_gdss(shared / "checkpoints" / "gdss" / f"gdss_{file}.pth")
    golden = shared / "golden" / "gdss" / f"golden_net_{FILES[file]}.npz"
    x, adj, flags, t = tensors(golden, "x", "adj", "flags", "t")
    mask = flags.bool()
    tags = ["raw"] if model.averages is None else ["raw", "ema"]
    assert (len(tags) == 2) == (file in ("community_small", "ego_small"))
    for tag in tags:
        networks = model.networks(tag == "ema")
        net_x, net_adj, score_x, score_adj = tensors(
            golden, f"net_x_{tag}", f"net_adj_{tag}", f"score_x_{tag}", f"score_adj_{tag}"
        )
        with torch.no_grad():
            out_x = networks["x"](x, to_pairs(adj), mask)
            out_adj = from_pairs(networks["adj"](x, to_pairs(adj), mask), x.shape[1])
            scores = model.scores({"x": x, "adj": adj}, t, mask=mask, ema=tag == "ema")
        for ours, theirs in ((out_x, net_x), (out_adj, net_adj), (scores["x"], score_x), (scores["adj"], score_adj)):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("file", FILES)
def test_published_key_tables(file: str, shared: Path) -> None:
    model = convert_gdss(shared / "checkpoints" / "gdss" / f"gdss_{file}.pth")
    table = json.loads((shared / "golden" / "gdss" / f"keys_gdss_{file}.json").read_text())
    for name in ("x", "adj"):
        expected = {key: tuple(shape) for key, shape in table[f"{name}_state_dict"].items()}
        ours = published_shapes(model.networks()[name])
        assert ours == expected
        assert list(ours) == list(expected)  # averages are stored without names, in this order


def networks() -> list[tuple[torch.nn.Module, int]]:
    torch.manual_seed(3)
    return [
        (ScoreNetworkX(5, 3, 8), 5),
        (ScoreNetworkXGMH(5, 3, 8, **SMALL), 5),
        (ScoreNetworkA(5, 8, 3, **SMALL), 5),
    ]


@pytest.mark.parametrize("index", range(3))
def test_outputs_do_not_depend_on_padding(index: int) -> None:
    network, features = networks()[index]
    x, adj = torch.randn(2, 6, features), torch.randn(2, 6, 6)
    adj = (adj + adj.transpose(1, 2)) * (1 - torch.eye(6))
    wide_x, wide_adj = torch.zeros(2, 10, features), torch.zeros(2, 10, 10)
    wide_x[:, :6], wide_adj[:, :6, :6] = x, adj
    mask = torch.arange(10).expand(2, 10) < 6
    with torch.no_grad():
        narrow = network(x, to_pairs(adj))
        wide = network(wide_x, to_pairs(wide_adj), mask)
    if narrow.ndim == 2:
        narrow, wide = from_pairs(narrow, 6), from_pairs(wide, 10)
        assert (wide[:, :6, 6:] == 0).all()
        wide = wide[:, :6, :6]
    else:
        assert (wide[:, 6:] == 0).all()
        wide = wide[:, :6]
    torch.testing.assert_close(wide, narrow, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("index", range(3))
def test_equivariant_to_permutations(index: int) -> None:
    network, features = networks()[index]
    x, adj = torch.randn(1, 7, features), torch.randn(1, 7, 7)
    adj = (adj + adj.transpose(1, 2)) * (1 - torch.eye(7))
    order = torch.randperm(7)
    with torch.no_grad():
        straight = network(x, to_pairs(adj))
        permuted = network(x[:, order], to_pairs(adj[:, order][:, :, order]))
    if straight.ndim == 2:
        expected = from_pairs(straight, 7)[:, order][:, :, order]
        permuted = from_pairs(permuted, 7)
    else:
        expected = straight[:, order]
    torch.testing.assert_close(permuted, expected, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(expected, straight if straight.ndim == 3 else from_pairs(straight, 7))


def test_pairs_and_matrices() -> None:
    matrix = torch.arange(16.0).reshape(1, 4, 4)
    matrix = (matrix + matrix.transpose(1, 2)) * (1 - torch.eye(4))
    assert to_pairs(matrix).tolist() == [[5, 10, 15, 15, 20, 25]]
    assert torch.equal(from_pairs(to_pairs(matrix), 4), matrix)
    assert torch.equal(from_pairs(to_pairs(matrix), 4, diagonal=7.0).diagonal(dim1=1, dim2=2), torch.full((1, 4), 7.0))


def test_every_parameter_reaches_the_output() -> None:
    for network, features in networks():
        adj = torch.randn(2, 5, 5)
        network(torch.randn(2, 5, features), to_pairs(adj + adj.transpose(1, 2))).square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_published_initialisation() -> None:
    network = ScoreNetworkA(5, 8, 3, **SMALL)
    weight, bias = network.layers[1].query.weight, network.layers[1].query.bias
    assert weight.abs().max() <= (6 / 16) ** 0.5
    assert weight.abs().max() > 0.9 * (6 / 16) ** 0.5
    assert (bias == 0).all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 8"):
        ScoreNetworkA(5, 8, 2, **{**SMALL, "num_heads": 3})


def test_unknown_network() -> None:
    networks = {"x": {"kind": "ScoreNetworkA"}, "adj": {"kind": "ScoreNetworkA"}}
    sdes = {name: {"type": "VP", "beta_min": 0.1, "beta_max": 1.0} for name in ("x", "adj")}
    with pytest.raises(ValueError, match="unknown network 'ScoreNetworkA' for 'x'"):
        ReferenceGDSS(networks, sdes)


def test_training_after_inference_mode() -> None:
    network, features = networks()[2]
    x, pairs = torch.randn(1, 11, features), torch.randn(1, 55)
    with torch.inference_mode():
        network(x, pairs)
    network(x, pairs).sum().backward()
