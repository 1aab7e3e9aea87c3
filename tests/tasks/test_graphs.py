"""The graph commands as a user types them, on small models."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

from fourfold.core import NoiseSource
from fourfold.modalities.graphs import GDSS, PARD, GraphRecord, collate
from fourfold.modalities.graphs.graph_transformer import TransformerBackbone
from fourfold.tasks import names
from fourfold.tasks.graphs import GraphTask, main

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = [
    "--model.adapter.init_args.backbone.init_args.node_width=8",
    "--model.adapter.init_args.backbone.init_args.pair_width=4",
    "--model.adapter.init_args.backbone.init_args.heads=2",
    "--model.adapter.init_args.backbone.init_args.products=2",
    "--model.adapter.init_args.backbone.init_args.layers=1",
    "--model.adapter.init_args.sampling_steps=4",
    "--model.picture_samples=2",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=16",
    "--data.repeats=1",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOURFOLD_DATA", str(tmp_path / "data"))
    return tmp_path


def test_train_sample_evaluate_and_export_plain_graphs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "graphs/gdss-community_small-cpu", "--run", "r", *TINY]) == 0
    run = folder / "runs" / "graphs" / "r"
    assert list((run / "samples").glob("samples-step*.png"))
    capsys.readouterr()
    assert main(["sample", "--run", "r", "--num_samples", "3", "--num_nodes", "12", "--seed", "4"]) == 0
    with np.load(run / "samples" / "graphs.npz") as stored:
        assert stored["num_nodes"].tolist() == [12] * 3
    assert len(nx.read_graphml(run / "samples" / "graphs" / "2.graphml")) == 12
    assert (run / "samples" / "samples.png").stat().st_size > 5_000

    assert main(["evaluate", "--run", "r", "--num_samples", "2"]) == 0
    shown = capsys.readouterr().out
    stored = json.loads((run / "metrics.json").read_text())
    table = stored["evaluate"]["metrics"]
    assert list(table) == ["gdss", "train sample (floor)", "Erdos-Renyi"]
    assert "first 20 generated graphs against 20 test graphs" in shown
    assert stored["evaluate"]["protocol"] in shown
    assert table["train sample (floor)"]["average emd"] < table["Erdos-Renyi"]["average emd"]
    assert stored["evaluate_protocol"]["num_generated"] == 20
    for command in ("validate", "test"):
        assert main([command, "--run", "r"]) == 0
    assert main(["export", "--run", "r", "--out", "model"]) == 0
    model = GDSS.load("model")
    assert model.statistics.max_nodes == 20
    again = model.sample(3, num_nodes=12, seed=4)
    with np.load(run / "samples" / "graphs.npz") as drawn:
        assert [g.number_of_edges() for g in again] == np.diff(drawn["edge_ptr"]).tolist()


def test_a_run_continues_where_it_stopped(folder: Path) -> None:
    from runs import digest

    fit = ["fit", "--config", "graphs/gdss-community_small-cpu", *TINY, "--model.picture_samples=0"]
    assert main([*fit, "--run", "whole", "--trainer.max_epochs=2"]) == 0
    assert main([*fit, "--run", "parts"]) == 0
    assert main([*fit, "--run", "parts", "--trainer.max_epochs=2", "--ckpt_path", "last"]) == 0
    runs = folder / "runs" / "graphs"
    assert digest(runs / "whole" / "checkpoints" / "last.ckpt") == digest(runs / "parts" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("name", [n for n in names.shipped() if n.startswith("graphs/")])
def test_shipped_configurations_load(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["fit", "--config", name, "--print_config"])
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert "class_path: fourfold.modalities.graphs" in shown.out
    assert names.describe(name)


def test_every_published_setting_has_both_faces() -> None:
    shipped = set(names.shipped())
    sets = ("community_small", "ego_small", "enzymes", "grid", "qm9", "zinc250k")
    assert {f"graphs/gdss-{s}" for s in (*sets, "moses")} <= shipped
    assert {f"graphs/gdss-reference-{s}" for s in sets} <= shipped
    assert {f"graphs/gdss-{s}-cpu" for s in ("community_small", "ego_small", "qm9")} <= shipped
    assert {f"graphs/pard-{s}" for s in ("community", "planar", "sbm", "grid", "cora", "breast")} <= shipped
    assert {f"graphs/pard-{s}" for s in ("qm9", "zinc250k", "zinc12k", "moses", "own")} <= shipped
    assert {f"graphs/pard-{s}-cpu" for s in ("community", "fragments", "qm9")} <= shipped


def test_pard_trains_draws_and_is_judged(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourfold.tasks.graphs._LARGE", 10)
    small = [f"--model.adapter.init_args.{k}" for k in ("width=8", "pair_width=4", "heads=2", "layers=1", "steps=3")]
    short = [word for word in TINY if "init_args" not in word]
    assert main(["fit", "--config", "graphs/pard-community-cpu", "--run", "r", *small, *short]) == 0
    assert list((folder / "data" / "cache" / "graphs" / "blocks").glob("blocks-*.npz"))
    assert main(["sample", "--run", "r", "--num_samples", "3", "--num_nodes", "7", "--steps", "2"]) == 0
    with np.load(folder / "runs" / "graphs" / "r" / "samples" / "graphs.npz") as stored:
        assert stored["num_nodes"].tolist() == [7] * 3
    assert main(["evaluate", "--run", "r", "--num_samples", "2", "--steps", "1"]) == 0
    assert "pard" in capsys.readouterr().out
    assert main(["export", "--run", "r", "--out", "model"]) == 0
    model = PARD.load("model")
    assert all(len(g) == 7 for g in model.sample(2, num_nodes=7, steps=1))
    assert main(["sample", "--run", "r", "--num_nodes", "50"]) == 2
    error = capsys.readouterr().err
    assert "room for graphs of at most" in error
    assert "Traceback" not in error


def small_task(**options: object) -> GraphTask:
    model = GDSS(backbone=TransformerBackbone(8, 4, 2, 2, 1))
    model.learn([GraphRecord(3, np.array([[0, 1]]))])
    return GraphTask(model, **options)  # pyright: ignore[reportArgumentType]


def test_epoch_decay_multiplies_the_rate_after_every_epoch() -> None:
    task = small_task(epoch_decay=0.5, warmup_steps=0)
    configured = task.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "epoch"
    rate = configured["optimizer"].param_groups[0]["lr"]
    configured["optimizer"].step()
    configured["lr_scheduler"]["scheduler"].step()
    assert configured["optimizer"].param_groups[0]["lr"] == pytest.approx(rate / 2)
    with pytest.raises(ValueError, match="epoch_decay"):
        small_task(epoch_decay=2.0)
    with pytest.raises(ValueError, match="excludes decay_steps"):
        small_task(epoch_decay=0.9, decay_steps=100)


def test_networks_are_clipped_one_by_one() -> None:
    task = small_task(clip_per_network=1.0)
    batch = collate([GraphRecord(3, np.array([[0, 1]]))])
    (task.adapter.loss(batch, NoiseSource(0, [0])) * 1000).sum().backward()
    task.configure_gradient_clipping(torch.optim.SGD(task.parameters()), None, None)

    def norm(network: nn.Module) -> float:
        return float(torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm())

    norms = [norm(c) for c in task.adapter.children() if any(p.grad is not None for p in c.parameters())]
    assert norms == pytest.approx([1.0] * len(norms), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_nodes", "50"], "at most 20 nodes, asked for 50"),
        (["--target", "logp=2"], "this model generates for no target, not for 'logp'"),
        (["--target", "two"], "expected VALUE or NAME=VALUE"),
        (["--num_samples", "0"], "n must be at least 1"),
    ],
)
def test_mistakes_in_sampling_are_one_line(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("runs/graphs/r").exists():
        assert main(["fit", "--config", "graphs/gdss-community_small-cpu", "--run", "r", *TINY]) == 0
    assert main(["sample", "--run", "r", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_unknown_target_names_the_known_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", "graphs/gdss-community_small-cpu", "--run", "r", *TINY]
    assert main([*words, "--model.adapter.init_args.target=beauty"]) == 1
    assert "beauty" in capsys.readouterr().err


def test_molecules_with_a_target_and_the_published_face(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smiles = ["CCO", "CC(=O)[O-]", "C[NH3+]", "CC#N", "c1ccoc1", "CC(C)O", "NCC=O", "OCCO", "CN", "CCOC"] * 3
    Path("my.smi").write_text("\n".join(smiles))
    own = ["fit", "--config", "graphs/gdss-own", "--data.file", "my.smi", *TINY, "--data.test=0.2"]
    assert main([*own, "--run", "r", "--model.adapter.init_args.target=logp"]) == 0
    capsys.readouterr()
    assert main(["sample", "--run", "r", "--num_samples", "5", "--target", "logp=1.5", "--out", "out"]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(f).name for f in written] == [
        "graphs.npz",
        "graphs",
        "molecules.smi",
        "molecules.sdf",
        "molecules.svg",
        "samples.png",
    ]
    assert main(["sample", "--run", "r", "--target", "qed=1"]) == 2
    assert "this model generates for logp, not for 'qed'" in capsys.readouterr().err
    assert main(["evaluate", "--run", "r", "--num_samples", "6"]) == 0
    assert "strict validity" in capsys.readouterr().out

    published = ["fit", "--config", "graphs/gdss-reference-qm9", "--data.name=null", "--data.file", "my.smi"]
    short = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert main([*published, *short, "--run", "p"]) == 0
    assert main(["evaluate", "--run", "p", "--num_samples", "6", "--steps", "2"]) == 0
    assert "gdss-reference" in capsys.readouterr().out
