"""Published files become models; anything else is refused with a reason, and nothing in a file is executed."""

from __future__ import annotations

import collections
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fourfold
from fourfold.modalities.graphs.reference_checkpoints import (
    CheckpointError,
    convert_gdss,
    dead_keys,
    read_checkpoint,
)
from fourfold.modalities.graphs.reference_gdss import ReferenceGDSS


@pytest.fixture
def published(shared: Path) -> Path:
    return shared / "checkpoints" / "gdss" / "gdss_qm9.pth"


def changed(published: Path, tmp_path: Path, change: Any) -> Path:
    content = read_checkpoint(published)
    change(content)
    torch.save(content, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


@pytest.mark.parametrize("file", ["community_small", "ego_small", "qm9", "zinc250k_v2"])
def test_convert_load_reproduces(file: str, shared: Path, tmp_path: Path) -> None:
    out = fourfold.convert("gdss", shared / "checkpoints" / "gdss" / f"gdss_{file}.pth", tmp_path / "model")
    model = fourfold.load(out)
    assert isinstance(model, ReferenceGDSS)
    golden = np.load(
        shared / "golden" / "gdss" / f"golden_net_{file.replace('qm9', 'QM9').replace('zinc', 'ZINC')}.npz"
    )
    x, adj, flags, t = (torch.from_numpy(golden[key]) for key in ("x", "adj", "flags", "t"))
    for tag in ("raw", "ema"):
        if f"score_x_{tag}" not in golden.files:
            with pytest.raises(ValueError, match="no averaged weights"):
                model.scores({"x": x, "adj": adj}, t, mask=flags, ema=True)
            continue
        with torch.no_grad():
            scores = model.scores({"x": x, "adj": adj}, t, mask=flags, ema=tag == "ema")
        for name, value in scores.items():
            torch.testing.assert_close(value, torch.from_numpy(golden[f"score_{name}_{tag}"]), atol=1e-4, rtol=1e-4)
    assert "left out" in model.origin


def test_published_settings_are_kept(shared: Path) -> None:
    folder = shared / "checkpoints" / "gdss"
    models = {name: convert_gdss(folder / f"gdss_{name}.pth").config() for name in ("community_small", "qm9")}
    assert models["community_small"]["sampler"].items() >= {
        "predictor": "Euler", "corrector": "Langevin", "snr": 0.05, "scale_eps": 0.7, "n_steps": 1, "use_ema": False
    }.items()  # fmt: skip
    assert models["qm9"]["sampler"]["snr"] == 0.2
    assert models["qm9"]["atoms"] == ["C", "N", "O", "F"]
    assert models["qm9"]["node_counts"][-1] == [9, 98230]
    assert models["community_small"]["averaged"]
    assert not models["qm9"]["averaged"]
    assert convert_gdss(folder / "gdss_zinc250k_v2.pth").config()["sampler"]["scale_eps"] == 0.8


def test_dead_parameters_are_known(shared: Path) -> None:
    model = convert_gdss(shared / "checkpoints" / "gdss" / "gdss_community_small.pth")
    dead = dead_keys(model.networks()["adj"])
    assert len(dead) == 20
    assert "layers.4.attn.7.gnn_v.weight" in dead
    assert "layers.4.multi_channel.linears.1.bias" in dead
    assert dead_keys(model.networks()["x"]) == set()
    zinc = convert_gdss(shared / "checkpoints" / "gdss" / "gdss_zinc250k_v2.pth")
    assert {key.rsplit(".", 1)[0] for key in dead_keys(zinc.networks()["x"]) if "attn.0" in key} == {
        "layers.1.attn.0.gnn_q", "layers.1.attn.0.gnn_k"
    }  # fmt: skip


DEAD = "layers.2.attn.0.gnn_v.weight"
LIVE = "layers.2.attn.0.gnn_q.weight"
DEFECTS = {
    "a live key is missing": (lambda c: c["adj_state_dict"].pop(LIVE), f"1 missing, e.g. {LIVE}"),
    "a dead key is missing": (lambda c: c["adj_state_dict"].pop(DEAD), f"1 missing, e.g. {DEAD}"),
    "an unknown key": (lambda c: c["x_state_dict"].update(other=torch.zeros(1)), "1 unknown, e.g. other"),
    "a wrong shape": (
        lambda c: c["adj_state_dict"].update({LIVE: torch.zeros(16, 8)}),
        r"gnn_q.weight has shape \(16, 8\), the settings imply \(16, 16\)",
    ),
    "a wrong shape of a dead key": (
        lambda c: c["adj_state_dict"].update({DEAD: torch.zeros(2)}),
        "gnn_v.weight has shape",
    ),
    "no tensor": (lambda c: c["x_state_dict"].update({"layers.0.bias": 1.0}), "must be a tensor of floats, got float"),
    "integers": (
        lambda c: c["x_state_dict"].update({"layers.0.bias": torch.zeros(16).long()}),
        "must be a tensor of floats",
    ),
    "not finite": (lambda c: c["x_state_dict"]["layers.0.bias"].fill_(torch.nan), "not finite"),
    "no weights": (lambda c: c.pop("adj_state_dict"), "it has no adj_state_dict"),
    "unknown network": (lambda c: c["params_x"].update(model_type="Other"), "unknown network 'Other'"),
    "unknown SDE": (lambda c: c["model_config"]["sde"]["x"].update(type="Other"), "unknown SDE 'Other'"),
    "other depth": (lambda c: c["params_adj"].update(num_layers=4), "missing"),
    "no settings": (lambda c: c["model_config"].pop("sde"), "its settings cannot be used: KeyError"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_named(defect: str, published: Path, tmp_path: Path) -> None:
    change, message = DEFECTS[defect]
    path = changed(published, tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        convert_gdss(path)
    with pytest.raises(CheckpointError, match=message):
        fourfold.convert("gdss", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_averages_must_fit(shared: Path, tmp_path: Path) -> None:
    published = shared / "checkpoints" / "gdss" / "gdss_ego_small.pth"
    path = changed(published, tmp_path, lambda c: c["ema_adj"]["shadow_params"].pop())
    with pytest.raises(CheckpointError, match="must list 250 averaged tensors"):
        convert_gdss(path)


def test_prefix_of_data_parallel_is_accepted(published: Path, tmp_path: Path) -> None:
    def prefix(content: dict[str, Any]) -> None:
        content["x_state_dict"] = {f"module.{key}": value for key, value in content["x_state_dict"].items()}

    convert_gdss(changed(published, tmp_path, prefix))


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_foreign_pickle_content_is_refused(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = changed(published, tmp_path, lambda c: c["model_config"].update(command=Command()))
    with pytest.raises(CheckpointError, match=r"changed.pth is refused: its pickle asks for .*system"):
        convert_gdss(path)
    path = changed(published, tmp_path, lambda c: c.update(extra=collections.deque([1])))
    with pytest.raises(CheckpointError, match=r"refused: its pickle asks for .*deque"):
        convert_gdss(path)
    assert not (tmp_path / "executed").exists()


def test_reading_allows_nothing_afterwards(published: Path) -> None:
    before = [str(allowed) for allowed in torch.serialization.get_safe_globals()]
    read_checkpoint(published)
    assert sorted(before) == sorted(str(allowed) for allowed in torch.serialization.get_safe_globals())


def test_other_files_are_refused(published: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.pth"
    text.write_text("hello")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(published.read_bytes()[:100_000])
    archive = tmp_path / "archive.pth"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "hello")
    tensor = tmp_path / "tensor.pth"
    torch.save(torch.zeros(3), tensor)
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {"a": torch.zeros(3)}}, other)
    for path, message in (
        (text, "not in torch's zip format"),
        (cut, "not in torch's zip format, or is cut short"),
        (archive, "damaged or not a GDSS checkpoint"),
        (tensor, "it holds a Tensor, not a dict"),
        (other, "it has no model_config"),
        (tmp_path, "is not a file"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_gdss(path)
    with pytest.raises(FileNotFoundError):
        fourfold.convert("gdss", tmp_path / "nothing.pth", tmp_path / "out")
