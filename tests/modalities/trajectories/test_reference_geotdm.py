"""The published model: golden values, symmetry, the variational bound in closed form, reading trained files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fourfold
from fourfold.core import NoiseSource
from fourfold.modalities.trajectories import ReferenceEGTN, ReferenceGeoTDM, TrajectoryBatch, TrajectoryRecord
from fourfold.modalities.trajectories.reference_diffusion import ReferenceDiffusion

TOLERANCE = 1e-5


class Golden:
    """A file of reference values: lists of nodes and edges, brought into dense arrays and back."""

    def __init__(self, path: Path) -> None:
        self.values = np.load(path)
        self.config = json.loads(str(self.values["config"]))
        self.meta = json.loads(str(self.values["meta"]))
        self.rows = self.values["batch"]
        sizes = np.bincount(self.rows)
        self.systems, self.agents = len(sizes), int(sizes.max())
        first = np.concatenate(([0], sizes.cumsum()[:-1]))
        self.places = np.arange(len(self.rows)) - first[self.rows]

    def state(self) -> dict[str, torch.Tensor]:
        return {k[3:]: torch.from_numpy(self.values[k]) for k in self.values.files if k.startswith("sd/")}

    def dense(self, values: np.ndarray) -> torch.Tensor:
        array = values.transpose(0, 2, 1) if values.ndim == 3 else values
        out = np.zeros((self.systems, self.agents, *array.shape[1:]), array.dtype)
        out[self.rows, self.places] = array
        return torch.from_numpy(out)

    def flat(self, values: torch.Tensor) -> np.ndarray:
        array = values.detach().numpy()[self.rows, self.places]
        return array.transpose(0, 2, 1) if array.ndim == 3 else array

    def error(self, values: torch.Tensor, name: str) -> float:
        found, expected = self.flat(values), self.values[name]
        assert found.shape == expected.shape
        return float(np.abs(found - expected).max())

    def steps(self) -> torch.Tensor:
        k = torch.zeros(self.systems, dtype=torch.long)
        k[self.rows] = torch.from_numpy(self.values["t"])
        return k

    def batch(self) -> TrajectoryBatch:
        name = "x" if "x" in self.values else "x_given"
        positions = self.dense(self.values[name])
        nodes = torch.zeros(self.systems, self.agents, dtype=torch.bool)
        nodes[self.rows, self.places] = True
        to, source = self.values["edge_index"]
        attributes = self.values["edge_attr"]
        edges = torch.zeros(self.systems, self.agents, self.agents, attributes.shape[1])
        edges[self.rows[to], self.places[to], self.places[source]] = torch.from_numpy(attributes)
        frames = positions.shape[2]
        return TrajectoryBatch(
            positions=positions,
            features=self.dense(self.values["h"]),
            present=nodes[:, :, None].expand(-1, -1, frames),
            times=torch.arange(frames).float().expand(self.systems, -1),
            ego=nodes,
            edge_features=edges,
        )

    def model(self) -> ReferenceGeoTDM:
        conditional = self.meta["mode"] == "cond"
        frames = self.batch().positions.shape[2]
        observed = int(self.values["cond_mask"].sum()) if conditional else 0
        model = ReferenceGeoTDM(self.config, observed, frames - observed, num_timesteps=self.meta["num_timesteps"])
        model.network.load_state_dict(self.state(), strict=True)
        return model.eval()


@pytest.fixture(params=["golden_A_uncond", "golden_B_cond"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return Golden(shared / "golden" / "geotdm" / f"{request.param}.npz")


def test_network_and_anchor_give_the_published_numbers(golden: Golden) -> None:
    model, batch = golden.model(), golden.batch()
    anchor, target, given = model._prepare(batch)
    out, features = model.network(target, tau=golden.steps(), **given)
    assert golden.error(out, "out_x") < TOLERANCE
    assert golden.error(features, "out_h") < TOLERANCE
    if model.observed_frames:
        assert golden.error(anchor, "x_ref") < TOLERANCE
        assert golden.error(model.anchor(batch), "x_ref") < TOLERANCE


def test_loss_projection_and_reverse_step_give_the_published_numbers(golden: Golden) -> None:
    model, batch, k = golden.model(), golden.batch(), golden.steps()
    noise = golden.dense(golden.values["noise"])
    assert golden.error(model.errors(batch, k, noise), "loss_per_node") < TOLERANCE
    state = noise
    if not model.observed_frames:
        projected = model.project(batch.positions, batch)
        assert golden.error(projected, "projected") < TOLERANCE
        state = batch.positions
    mean, clean, log_variance = model.reverse(batch, state, k)
    assert golden.error(mean, "p_mean") < TOLERANCE
    assert golden.error(log_variance, "p_logvar") < TOLERANCE
    expected = golden.values["p_xstart"]
    # At the last step the clean estimate is the state divided by 0.006.
    assert golden.error(clean, "p_xstart") < TOLERANCE * max(1.0, float(np.abs(expected).max()))


def test_chain_of_five_steps_gives_the_published_numbers(golden: Golden) -> None:
    model, batch = golden.model(), golden.batch()
    noises = [golden.dense(n) for n in golden.values["chain_noise"]]
    anchor, _, given = model._prepare(batch)
    end = model.diffusion.chain(
        lambda u, k: model._predict(u, k, anchor, batch, given),
        noises[5],
        noises.__getitem__,
        4,
        lambda u: model.project(u, batch),
    )
    assert golden.error(end + anchor, "chain_out") < TOLERANCE


@pytest.mark.parametrize("name", ["nbody_train_cond", "nbody_train_uncond", "eth_train_new"])
def test_every_published_layout_is_read_strictly(name: str, shared: Path) -> None:
    described = json.loads((shared / "golden" / "geotdm" / f"keys_{name}.json").read_text())
    network = ReferenceEGTN(**described["denoise_model"])
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == described["keys"]
    assert list(state) == list(described["keys"])
    assert sum(p.numel() for p in network.parameters()) == described["n_params"]


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 2e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("pre_norm", [False, True])
def test_equivariance(dtype: torch.dtype, bound: float, pre_norm: bool) -> None:
    torch.manual_seed(1)
    network = ReferenceEGTN(3, 2, 1, 32, 16, learn_ref_frame=True, num_w=6, pre_norm=pre_norm).to(dtype)
    x, seen, h = (
        torch.randn(2, 5, 6, 3, dtype=dtype),
        torch.randn(2, 5, 4, 3, dtype=dtype),
        torch.randn(2, 5, 2).to(dtype),
    )
    adjacency, edges = ~torch.eye(5, dtype=torch.bool).expand(2, -1, -1), torch.randn(2, 5, 5, 1, dtype=dtype)
    tau = torch.tensor([3.0, 700.0])
    out, features = network(x, h, tau, adjacency, edges, seen)
    anchor = network.anchor(seen, h, adjacency, edges)
    for trial in range(4):
        turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        turn = turn * (-1 if (torch.linalg.det(turn) > 0) == (trial % 2 == 0) else 1)  # rotations and reflections
        turn, shift = turn.to(dtype), 5 * torch.randn(3, dtype=dtype)
        moved, same = network(x @ turn + shift, h, tau, adjacency, edges, seen @ turn + shift)
        assert (moved - out @ turn).abs().max() < bound
        assert (same - features).abs().max() < bound
        assert (network.anchor(seen @ turn + shift, h, adjacency, edges) - (anchor @ turn + shift)).abs().max() < bound


def test_a_sample_does_not_depend_on_padding_or_batch_mates() -> None:
    model = _small(observed=3)
    batch = _batch(agents=4, frames=7)
    nodes = torch.ones(2, 6, dtype=torch.bool)
    nodes[:, 4:] = False
    padded = TrajectoryBatch(
        positions=torch.nn.functional.pad(batch.positions, (0, 0, 0, 0, 0, 2)),
        features=torch.nn.functional.pad(batch.features, (0, 0, 0, 2)),
        present=nodes[:, :, None].expand(-1, -1, 7),
        times=batch.times,
        ego=nodes,
    )
    alone = model.run(batch[:1], NoiseSource(0, [0]), steps=20)
    together = model.run(padded, NoiseSource(0, [0, 1]), steps=20)
    assert (alone - together[:1, :4]).abs().max() < 1e-5 * alone.abs().max()
    source = NoiseSource(0, [0, 1])
    assert torch.allclose(model.loss(batch, source), model.loss(padded, source), atol=1e-6)


def test_bound_of_a_known_distribution_is_the_sum_of_known_divergences() -> None:
    """Data that are always 0 and the perfect predictor: only the variances differ, in closed form."""
    diffusion = ReferenceDiffusion(50)
    found = diffusion.bound(
        lambda u, k: u / (1 - diffusion.bars[k]).sqrt().to(u).reshape(-1, 1),
        torch.zeros(3, 4, dtype=torch.float64),
        lambda k: NoiseSource(k, range(3)).normal(torch.empty(3, 4, dtype=torch.float64), 0),
    )
    ratio = (diffusion.posterior_variance / diffusion.betas)[1:]
    steps = 0.5 * (ratio - 1 - ratio.log()).sum()
    prior = 0.5 * (-diffusion.bars[-1] - (1 - diffusion.bars[-1]).log())
    decoder = 0.5 * (math.log(2 * math.pi) + diffusion.posterior_variance[1].log())
    assert torch.allclose(found, (steps + prior + decoder).expand(3, 4), rtol=1e-9)


def test_bound_is_above_the_entropy_of_a_gaussian_and_close_to_it() -> None:
    diffusion = ReferenceDiffusion(200)
    u_0 = NoiseSource(9, range(4000)).normal(torch.empty(4000, 1, dtype=torch.float64), 0)
    found = diffusion.bound(
        lambda u, k: u * (1 - diffusion.bars[k]).sqrt().to(u).reshape(-1, 1),
        u_0,
        lambda k: NoiseSource(k, range(4000)).normal(u_0, 1),
    ).mean()
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert entropy - 0.02 < found < entropy + 0.25


def test_chain_reproduces_a_gaussian() -> None:
    diffusion, spread = ReferenceDiffusion(100), 0.3

    def predict(u: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        bar = diffusion.bars[k].reshape(-1, 1)
        return u * (1 - bar).sqrt() / (bar * spread**2 + 1 - bar)

    source = NoiseSource(0, range(20000))
    like = torch.empty(20000, 1, dtype=torch.float64)
    drawn = diffusion.chain(predict, source.normal(like, 0), lambda k: source.normal(like, k + 1))
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(spread, rel=0.05)


def test_unconditional_samples_have_no_centre() -> None:
    model = _small(observed=0)
    like = TrajectoryRecord(np.zeros((4, 1, 3)), features=np.ones((4, 1)))
    drawn = model.sample(3, like=like, steps=20, seed=1)
    assert drawn.shape == (3, 4, 4, 3)
    assert np.abs(drawn.mean((1, 2))).max() < 1e-5 * np.abs(drawn).max()
    chained = model.sample(3, like=like, seed=1)
    assert np.abs(chained.mean((1, 2))).max() < 1e-5 * np.abs(chained).max()


def test_forecasts_are_shaped_seeded_and_follow_the_observations() -> None:
    model = _small(observed=3)
    observed = np.random.default_rng(0).normal(size=(4, 5, 3))
    ones = np.ones((4, 1))
    drawn = model.forecast(observed, 2, seed=3, steps=20, features=ones)
    assert drawn.shape == (2, 4, 4, 3)
    assert np.array_equal(drawn, model.forecast(observed, 2, seed=3, steps=20, features=ones))
    assert not np.array_equal(drawn, model.forecast(observed, 2, seed=4, steps=20, features=ones))
    moved = model.forecast(observed + 7, 2, seed=3, steps=20, features=ones)
    assert np.abs(moved - drawn - 7).max() < 1e-4 * np.abs(drawn).max()
    assert model.forecast(np.stack([observed, observed]), 2, steps=20, features=ones).shape == (2, 2, 4, 4, 3)


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model, batch = _small(observed=3), _batch(agents=4, frames=7)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss = model.loss(batch, NoiseSource(step, [0, 1])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert model.network.ws.grad is not None


def test_trained_files_are_converted(tmp_path: Path) -> None:
    network = ReferenceEGTN(2, 1, 1, 16, 8, learn_ref_frame=True, num_w=20)
    file = tmp_path / "trained.pt"
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, file)
    with pytest.warns(UserWarning, match="taken for the published configuration"):
        model = fourfold.load(fourfold.convert("geotdm", file, tmp_path / "out"))
    assert isinstance(model, ReferenceGeoTDM)
    assert (model.observed_frames, model.target_frames, model.diffusion.steps) == (10, 20, 1000)
    assert all(torch.equal(v, model.network.state_dict()[k]) for k, v in network.state_dict().items())
    (tmp_path / "trained.json").write_text('{"observed_frames": 4, "target_frames": 20, "num_timesteps": 50}')
    model = fourfold.load(fourfold.convert("geotdm", file, tmp_path / "out"))
    assert isinstance(model, ReferenceGeoTDM)
    assert (model.observed_frames, model.diffusion.steps) == (4, 50)


class _Code:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(content: Any, reason: str) -> None:
        torch.save(content, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match=reason):
            fourfold.convert("geotdm", tmp_path / "bad.pt", tmp_path / "out")

    refused(_Code(), "its pickle asks for .*print")
    assert "executed" not in capsys.readouterr().out
    refused([1, 2], "a state dict")
    refused({"a": torch.zeros(2)}, "not the weights of a trajectory network")
    state = ReferenceEGTN(1, 5, 3, 8, 8).state_dict()
    refused(state, "none of the published configurations")
    state["input_linear.bias"] = state["input_linear.bias"] * torch.nan
    refused(state, "input_linear.bias holds NaN")
    good = ReferenceEGTN(1, 1, 1, 8, 8).state_dict()
    with pytest.warns(UserWarning, match="published configuration"):
        refused({k: v for k, v in good.items() if k != "s_modules.0.node_mlp.actions.2.bias"}, "does not fit")
    (tmp_path / "bad.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        fourfold.convert("geotdm", tmp_path / "bad.pt", tmp_path / "out")


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (np.zeros((4, 2, 3)), "3 observed frames are needed, got 2"),
        (np.zeros((4, 3)), "must have shape"),
        (np.zeros((4, 0, 3)), "zero observed frames"),
        (np.full((4, 5, 3), np.nan), "NaN or infinite"),
        ([np.zeros((4, 3, 3)), np.zeros((5, 3, 3))], "different sizes"),
        (np.zeros((4, 5, 2)), "needs positions"),
    ],
)
def test_bad_observations_are_named(observed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _small(observed=3).forecast(observed, 1, steps=20)


def _small(observed: int) -> ReferenceGeoTDM:
    torch.manual_seed(0)
    network = {
        "n_layers": 1,
        "node_dim": 1,
        "edge_dim": 0,
        "hidden_dim": 8,
        "time_emb_dim": 8,
        "learn_ref_frame": observed > 0,
        "num_w": 4,
    }
    model = ReferenceGeoTDM(network, observed, 4, num_timesteps=25)
    with torch.no_grad():  # an untrained network multiplies squared distances at every step until they overflow
        for name, parameter in model.named_parameters():
            if "edge_mlp.actions.0.weight" in name:
                parameter[:, 16] = 0
    return model.eval()


def _batch(agents: int, frames: int) -> TrajectoryBatch:
    generator = torch.Generator().manual_seed(3)
    return TrajectoryBatch(
        positions=torch.randn(2, agents, frames, 3, generator=generator),
        features=torch.zeros(2, agents, 1),
        present=torch.ones(2, agents, frames, dtype=torch.bool),
        times=torch.arange(frames).float().expand(2, -1),
        ego=torch.ones(2, agents, dtype=torch.bool),
    )
