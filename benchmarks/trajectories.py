"""Cost and quality of trajectory models: both faces beside a straightforward implementation with lists of edges.

    python benchmarks/trajectories.py                       # cost, a few minutes
    python benchmarks/trajectories.py --full                # also at the published size (6 layers of 128)
    python benchmarks/trajectories.py --quality springs     # error against evaluations of the shipped model
    python benchmarks/trajectories.py --write docs/benchmarks-trajectories.md

The list-of-edges implementation below runs the published network the way graph libraries suggest: gather both ends of
every edge, a message per edge and frame, scatter the sum; attention along time with a tensor over pairs of frames and
features. It shares the weights of `ReferenceEGTN`, and its outputs are checked to be the same before anything is timed.

CPU-seconds are process time of one thread; memory is the peak resident size of a process that does nothing else, minus
what it has before the first step. The authors' figures were measured on another day and include their own imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from fourfold.core import NoiseSource
from fourfold.modalities.trajectories import GeoTDM, ReferenceEGTN, ReferenceGeoTDM, TrajectoryBatch
from fourfold.modalities.trajectories.reference_egtn import sinusoidal

AGENTS, OBSERVED, TARGET, STEPS = 5, 10, 20, 100


@dataclass(frozen=True)
class Size:
    """What is measured: layers and width of the network, systems per step."""

    layers: int
    hidden: int
    batch: int

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.hidden}, {self.batch} systems"


SIZES = {"reduced": Size(3, 32, 32), "published": Size(6, 128, 8)}
# The authors' code, one thread: CPU-seconds of a training step, peak resident MB of the process, CPU-seconds of one
# evaluation in sampling (100 steps for 64 systems took 44.8).
OFFICIAL = {"reduced": (0.482, 1043, 44.8 / 100 / 64 * 32), "published": (1.40, 1427, None)}
METHODS = ("lists of edges", "geotdm-reference", "geotdm")


class EdgeLists:
    """The published network on nodes (B N, D, T) and edges (2, M), time last."""

    def __init__(self, network: ReferenceEGTN) -> None:
        self.network = network

    def __call__(
        self, x: Tensor, h: Tensor, tau: Tensor, edges: Tensor, attributes: Tensor, observed: Tensor
    ) -> Tensor:
        """Displacements of the noisy frames, (B N, D, T); tau (B N,)."""
        network = self.network
        whole = torch.cat((observed, x), -1)
        frames = whole.shape[-1]
        time = sinusoidal(tau.float(), network.time_emb_dim)
        h = torch.cat((h, time), -1).unsqueeze(-1).expand(-1, -1, frames)
        h = network.input_linear(h.transpose(1, 2)).transpose(1, 2)
        moved = whole
        for spatial, temporal in zip(network.s_modules, network.t_modules, strict=True):
            moved, h = self._spatial(spatial, moved, h, edges, attributes)
            moved, h = self._temporal(temporal, moved, h)
        return (moved - whole)[..., observed.shape[-1] :]

    def anchor(self, observed: Tensor, h: Tensor, edges: Tensor, attributes: Tensor) -> Tensor:
        """The learnt prior of the target frames, (B N, D, T)."""
        network = self.network
        frames = observed.shape[-1]
        h = network.input_linear_ref(h).unsqueeze(-1).expand(-1, -1, frames)
        x = observed
        for spatial, temporal in zip(network.s_modules_ref, network.t_modules_ref, strict=True):
            x, h = self._spatial(spatial, x, h, edges, attributes)
            x, h = self._temporal(temporal, x, h)
        free = h.mean(1)[:, None, :-1] * network.ws[None, :, None]
        weights = torch.cat((free, 1 - free.sum(-1, keepdim=True)), -1)
        return torch.einsum("nts,nds->ndt", weights, x)

    @staticmethod
    def _spatial(module: Any, x: Tensor, h: Tensor, edges: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        to, source = edges
        d = x[to] - x[source]
        r = (d**2).sum(1, keepdim=True)
        e = attributes.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        inputs = torch.cat((h[to], h[source], r, e), 1).transpose(1, 2)
        m = torch.nn.functional.silu(module.edge_mlp(inputs))
        c = module.coord_mlp(m).transpose(1, 2) / ((r + 1e-8).sqrt() + 1)
        m = m.transpose(1, 2)
        count = torch.zeros(len(x)).index_add(0, to, torch.ones(len(to))).clamp(min=1)
        x = x + torch.zeros_like(x).index_add(0, to, c * d) / count[:, None, None]
        gathered = torch.zeros(h.shape).index_add(0, to, m)
        h = module.node_mlp(torch.cat((h, gathered), 1).transpose(1, 2)).transpose(1, 2)
        return x, h

    @staticmethod
    def _temporal(module: Any, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        frames = x.shape[-1]
        tokens = h.transpose(1, 2)
        q, k, v = module.q_mlp(tokens), module.k_mlp(tokens), module.v_mlp(tokens)
        steps = torch.arange(frames, dtype=x.dtype)
        psi = module.time_emb(sinusoidal(steps[:, None] - steps[None], module.time_emb.in_features))
        keys, values = k[:, None] + psi, v[:, None] + psi
        a = (q[:, :, None] * keys).sum(-1).softmax(-1)
        tokens = tokens + (a.unsqueeze(-1) * values).sum(2)
        w = a * module.x_mlp(v).transpose(1, 2)
        difference = x.unsqueeze(-1) - x.unsqueeze(-2)
        return x + (w[:, None] * difference).sum(-1), tokens.transpose(1, 2)


def batch_of(size: int) -> TrajectoryBatch:
    """Charged-like systems; what they hold does not change the cost."""
    generator = torch.Generator().manual_seed(0)
    frames = OBSERVED + TARGET
    present = torch.ones(size, AGENTS, frames, dtype=torch.bool)
    walk = torch.randn(size, AGENTS, frames, 3, generator=generator).cumsum(2) * 0.1
    charges = torch.randn(size, AGENTS, 1, generator=generator).sign()
    return TrajectoryBatch(
        positions=walk + torch.randn(size, AGENTS, 1, 3, generator=generator),
        features=charges,
        present=present,
        times=torch.arange(frames).float().expand(size, -1).contiguous(),
        ego=torch.ones(size, AGENTS, dtype=torch.bool),
        edge_features=charges.unsqueeze(2) * charges.unsqueeze(1),
        observed=present & (torch.arange(frames) < OBSERVED),
    )


def reference(size: Size) -> ReferenceGeoTDM:
    """The published model at a size, with 100 diffusion steps."""
    torch.manual_seed(0)
    network = {
        "n_layers": size.layers,
        "node_dim": 1,
        "edge_dim": 1,
        "hidden_dim": size.hidden,
        "time_emb_dim": 32,
        "learn_ref_frame": True,
        "num_w": TARGET,
    }
    return ReferenceGeoTDM(network, OBSERVED, TARGET, num_timesteps=STEPS)


def recommended(size: Size, batch: TrajectoryBatch) -> GeoTDM:
    """The recommended model with as many layers of the same width."""
    torch.manual_seed(0)
    model = GeoTDM(1, 1, OBSERVED, TARGET, hidden=size.hidden, layers=size.layers)
    model.measure_units([batch])
    return model


class EdgeListModel:
    """Loss and sampling of the published model through lists of edges."""

    def __init__(self, model: ReferenceGeoTDM, batch: TrajectoryBatch) -> None:
        self.model, self.network = model, EdgeLists(model.network)
        size = len(batch)
        pairs = torch.tensor([(i, j) for i in range(AGENTS) for j in range(AGENTS) if i != j]).T
        self.edges = (pairs[:, None] + AGENTS * torch.arange(size)[None, :, None]).reshape(2, -1)
        assert batch.edge_features is not None
        self.attributes = batch.edge_features[:, pairs[0], pairs[1]].reshape(-1, 1)
        flat = batch.positions.flatten(0, 1).transpose(1, 2)
        self.observed, self.target = flat[..., :OBSERVED], flat[..., OBSERVED:]
        self.h = batch.features.flatten(0, 1)
        self.size = size

    def predict(self, u: Tensor, k: Tensor, anchor: Tensor) -> Tensor:
        """Predicted noise at steps k (B,)."""
        tau = k.repeat_interleave(AGENTS)
        return self.network(u + anchor, self.h, tau, self.edges, self.attributes, self.observed)

    def anchor(self) -> Tensor:
        """x_r."""
        return self.network.anchor(self.observed, self.h, self.edges, self.attributes)

    def loss(self, k: Tensor, eps: Tensor) -> Tensor:
        """Mean squared error of the noise."""
        anchor = self.anchor()
        u = self.model.diffusion.perturb(self.target - anchor, k.repeat_interleave(AGENTS), eps)
        return ((eps - self.predict(u, k, anchor)) ** 2).mean()


def check_equal() -> float:
    """Largest difference of the losses and gradients of the two implementations of the published network."""
    batch, model = batch_of(2), reference(Size(2, 16, 2))
    lists, k = EdgeListModel(model, batch), torch.tensor([3, 70])
    eps = torch.randn(2, AGENTS, TARGET, 3, generator=torch.Generator().manual_seed(1))
    ours = model.errors(batch, k, eps).mean()
    theirs = lists.loss(k, eps.flatten(0, 1).transpose(1, 2))
    parameters = list(model.parameters())
    gradients = [torch.autograd.grad(value, parameters) for value in (ours, theirs)]
    differences = [(a - b).abs().max().item() for a, b in zip(*gradients, strict=True)]
    return max(abs(ours.item() - theirs.item()), *differences)


def measure(method: str, what: str, size: Size) -> dict[str, float]:
    """CPU-seconds and peak memory of one method, in this process."""
    torch.set_num_threads(1)
    batch = batch_of(size.batch)
    before = _resident()
    run = _training(method, size, batch) if what == "training" else _evaluation(method, size, batch)
    seconds = cpu_seconds(run, 3)
    return {"seconds": seconds, "megabytes": _resident() - before, "peak": _resident()}


def _training(method: str, size: Size, batch: TrajectoryBatch) -> Callable[[], object]:
    if method == "geotdm":
        model: Any = recommended(size, batch)
        loss = lambda: model.loss(batch, NoiseSource(0, range(len(batch)))).mean()  # noqa: E731
    elif method == "geotdm-reference":
        model = reference(size)
        loss = lambda: model.loss(batch, NoiseSource(0, range(len(batch)))).mean()  # noqa: E731
    else:
        model = reference(size)
        lists, k = EdgeListModel(model, batch), torch.full((len(batch),), 50)
        eps = torch.randn_like(lists.target)
        loss = lambda: lists.loss(k, eps)  # noqa: E731
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _evaluation(method: str, size: Size, batch: TrajectoryBatch) -> Callable[[], object]:
    """One network evaluation of a sampling run."""
    if method == "geotdm":
        model = recommended(size, batch).eval()
        assert batch.observed is not None
        told, _, _ = model.condition(batch, batch.observed)
        denoiser, u = model.denoiser(), torch.randn_like(batch.positions)
        asked = batch.present & ~batch.observed
        return torch.no_grad()(lambda: denoiser(u, torch.tensor(0.5, dtype=torch.float64), mask=asked, condition=told))
    model = reference(size).eval()
    k = torch.full((len(batch),), 50)
    if method == "geotdm-reference":
        anchor, target, given = model._prepare(batch)
        return torch.no_grad()(lambda: model._predict(target - anchor, k, anchor.detach(), batch, given))
    lists = EdgeListModel(model, batch)
    anchor = lists.anchor().detach()
    return torch.no_grad()(lambda: lists.predict(lists.target - anchor, k, anchor))


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """Process time of one call, after a warm-up call."""
    function()
    begin = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - begin) / repeats


def quality(
    name: str, systems: int = 64, samples: int = 5, root: str | None = None
) -> list[tuple[int, float, float, float]]:
    """(evaluations, ADE, FDE, CPU-seconds per system and sample) of the shipped model of a data set."""
    import fourfold
    from fourfold.data.trajectories import load_dataset
    from fourfold.modalities.trajectories import collate
    from fourfold.modalities.trajectories.metrics import ade, fde

    torch.set_num_threads(1)
    model, data = fourfold.load(f"geotdm-{name}"), load_dataset(name, root)
    assert isinstance(model, GeoTDM)
    records = data.test[:: max(1, len(data.test) // systems)][:systems]
    truth = collate(records).positions.numpy()[:, None, :, data.observed_frames :]
    known = [r.frames(0, data.observed_frames) for r in records]
    rows = []
    for steps in (1, 2, 4, 6, 8, 10, 20, 100):
        begin = time.process_time()
        drawn = model.forecast(known, samples, steps, frames=truth.shape[3])
        spent = (time.process_time() - begin) / (len(records) * samples)
        rows.append((steps, float(ade(drawn, truth)), float(fde(drawn, truth)), spent))
    return rows


def cost_table(sizes: Sequence[str]) -> str:
    """Markdown table; every measurement runs in a process of its own."""
    lines = [
        "| size | method | training step, CPU-s | memory, MB | peak of the process, MB | evaluation, CPU-s | "
        "evaluations | sampling run, CPU-s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in sizes:
        step, peak, evaluation = OFFICIAL[name]
        lines.append(
            f"| {SIZES[name]} | authors' code | {step} | | {peak} | "
            + ("| | |" if evaluation is None else f"{evaluation:.3g} | {STEPS} | {STEPS * evaluation:.3g} |")
        )
        print(lines[-1], flush=True)
        first: dict[str, float] = {}
        for method in METHODS:
            training, evaluation = (_child(method, what, name) for what in ("training", "evaluation"))
            steps = 8 if method == "geotdm" else STEPS
            values = {
                "step": training["seconds"],
                "memory": training["megabytes"],
                "evaluation": evaluation["seconds"],
                "run": steps * evaluation["seconds"],
            }
            first = first or values
            shown = {key: f"{value:.3g} ({first[key] / value:.1f}x)" for key, value in values.items()}
            lines.append(
                f"| {SIZES[name]} | {method} | {shown['step']} | {shown['memory']} | {training['peak']:.0f} | "
                f"{shown['evaluation']} | {steps} | {shown['run']} |"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def quality_table(name: str, root: str | None) -> str:
    """Markdown table of error against evaluations."""
    lines = [
        "| model | evaluations | average ADE | average FDE | CPU-s per sample |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for steps, ade, fde, spent in quality(name, root=root):
        lines.append(f"| geotdm-{name} | {steps} | {ade:.4f} | {fde:.4f} | {spent:.4f} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _child(method: str, what: str, size: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", method, what, size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _resident() -> float:
    """Peak resident size in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help="also at the published size")
    parser.add_argument("--quality", nargs="*", default=[], help="shipped models to measure: springs charged ...")
    parser.add_argument("--root", default=None, help="data root")
    parser.add_argument("--write", type=Path, default=None, help="file for the page")
    arguments = parser.parse_args()
    if arguments.child:
        method, what, size = arguments.child
        print(json.dumps(measure(method, what, SIZES[size])))
        return
    difference = check_equal()
    print(f"lists of edges and geotdm-reference: losses and gradients differ by at most {difference:.1e}")
    if difference > 1e-4:
        raise SystemExit("the two implementations of the published network do not agree")
    parts = [
        f"# Trajectories: cost and quality\n\n`python {' '.join(['benchmarks/trajectories.py', *sys.argv[1:]])}`\n\n"
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread; charged-like systems of "
        f"{AGENTS} agents, {OBSERVED} -> {TARGET} frames. In brackets: times less than lists of edges.",
        cost_table(["reduced", "published"] if arguments.full else ["reduced"]),
        *(quality_table(name, arguments.root) for name in arguments.quality),
    ]
    if arguments.write is not None:
        arguments.write.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
