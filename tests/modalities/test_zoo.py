"""Every model that is shipped loads, is small, says where it comes from, and draws."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch

import fourfold
from fourfold.modalities.audio import MelAutoencoder
from fourfold.modalities.graphs import PARD
from fourfold.modalities.zoo import ZOO, zoo


def test_there_are_models() -> None:
    assert len(zoo()) >= 3
    assert {"pard-community_small", "pard-qm9"} <= set(zoo())


@pytest.mark.parametrize("name", zoo())
def test_shipped_models_load_and_draw(name: str) -> None:
    folder = ZOO / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3 * 2**20
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("**data**", "**seed**", "**metrics**", "CPU-seconds"))
    model = fourfold.load(name)
    if isinstance(model, MelAutoencoder):
        log_mel = model.front(0.1 * torch.randn(1, 40_960, generator=torch.Generator().manual_seed(0)))
        assert float((model.sample(log_mel) - log_mel).abs().mean()) < 1.0
    elif hasattr(model, "separate"):
        wave = 0.1 * np.random.default_rng(0).normal(size=20_000)
        out = model.separate(wave, 16_000, "a bell ringing", seed=0)
        assert out.samples.shape == (20_000,)
        assert bool(out.samples.isfinite().all())
    elif hasattr(model, "forecast"):
        positions = np.random.default_rng(0).normal(size=(3, model.observed_frames, 3 if "hotel" not in name else 2))
        given = {"features": np.zeros((3, model.features)), "edge_features": np.zeros((3, 3, model.edge_features))}
        drawn = model.forecast(positions, num_samples=2, steps=2, seed=0, **given)
        assert np.isfinite(np.asarray(drawn)).all()
        assert np.asarray(drawn).shape[-4] == 2
    else:
        records = model.sample_records(3, steps=3, seed=0)
        assert len(records) == 3
        assert all(math.isfinite(record.num_nodes) and record.num_nodes > 0 for record in records)


def test_shipped_pard_weights_complete_and_rate_graphs() -> None:
    model = fourfold.load("pard-community_small")
    assert isinstance(model, PARD)
    drawn = model.sample(16, seed=1)
    # trained weights: two communities in one piece, far from what a guess of edges would give
    assert sum(nx.is_connected(graph) for graph in drawn) >= 14
    assert np.mean([nx.transitivity(graph) for graph in drawn]) > 0.4
    part = nx.complete_graph(4)
    for graph in model.complete(part, n=3, seed=0):
        assert graph.subgraph(range(4)).number_of_edges() == 6
    edges = nx.gnm_random_graph(16, 37, seed=0)
    real, noise = model.log_likelihood_bound([drawn[0], edges], seed=0)
    assert real > noise + 20

    molecules = fourfold.load("pard-qm9").sample(16, seed=1)
    assert sum(molecule is not None for molecule in molecules) >= 10
