"""Model folders: what is saved comes back, what is damaged is refused."""

from __future__ import annotations

import json

import pytest
import torch
import toy

import fourfold
from fourfold.__main__ import main as command
from fourfold.modalities.adapter import Adapter, load
from fourfold.modalities.convert import UnknownKind
from fourfold.modalities.registry import UnknownAdapter, find, names, register
from fourfold.modalities.rounding import rounded, stored_bytes
from fourfold.modalities.storage import ModelFolderError


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(1)
    return toy.ToyAdapter(width=4).save(tmp_path / "model", card={"title": "A toy", "data": "a circle"})


def test_round_trip(folder):
    saved = toy.ToyAdapter.load(folder)
    assert saved.config() == {"width": 4, "dropout": 0.1}
    assert not saved.training
    torch.manual_seed(1)
    for name, tensor in toy.ToyAdapter(width=4).state_dict().items():
        assert torch.equal(tensor, saved.state_dict()[name])
    assert torch.equal(saved.sample(3), fourfold.load(folder).sample(3))
    assert isinstance(load(str(folder)), toy.ToyAdapter)
    card = (folder / "README.md").read_text()
    assert card.startswith("# A toy")
    assert "a circle" in card
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert len(modes) == 1, "who can read the card can read the weights"


def test_rounded_weights(tmp_path):
    torch.manual_seed(1)
    model = toy.ToyAdapter(width=64)
    exact = model.state_dict()
    # 16 bits are within half a unit of the eleventh bit.
    half = toy.ToyAdapter.load(model.save(tmp_path / "half", max_megabytes=1.0)).state_dict()
    assert all(torch.equal(half[k], exact[k].half().float()) for k in exact)
    assert "rounded to 16 bits" in (tmp_path / "half" / "README.md").read_text()
    # A little too large for that: the largest matrix, and nothing else, has 8 bits.
    sizes = {k: v.numel() for k, v in exact.items()}
    largest = max((k for k in exact if exact[k].ndim >= 2), key=sizes.__getitem__)
    room = 2 * sum(sizes.values()) - 1
    small, coarse = rounded(model, room)
    assert coarse == sizes[largest]
    assert {k for k, v in small.state_dict().items() if v.dtype == torch.float8_e4m3fn} == {largest}
    assert stored_bytes(small) <= room
    assert all(torch.equal(v, exact[k]) for k, v in model.state_dict().items()), "the model itself is not touched"
    limit = (room + 1000 + 200 * len(exact)) / 1e6
    folder = model.save(tmp_path / "eighth", max_megabytes=limit)
    read = toy.ToyAdapter.load(folder).state_dict()
    assert (folder / "model.safetensors").stat().st_size <= limit * 1e6
    assert torch.equal(read[largest], exact[largest].half().to(torch.float8_e4m3fn).float())
    assert f"the {coarse:,} of the largest matrices to 8" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="even with 8 bits for every matrix"):
        model.save(tmp_path / "none", max_megabytes=1e-4)
    assert not (tmp_path / "none").exists()


def test_numbers_beyond_16_bits_are_not_cut(tmp_path):
    model = toy.ToyAdapter(width=4)
    with torch.no_grad():
        next(model.parameters()).fill_(1e5)
    with pytest.raises(ValueError, match="too large for 16 bits"):
        model.save(tmp_path / "m", max_megabytes=1.0)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_every_flipped_bit_is_noticed(folder, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFolderError, match=rf"{name} is damaged"):
        fourfold.load(folder)


def test_truncated_and_missing_files(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    with pytest.raises(ModelFolderError, match="damaged"):
        fourfold.load(folder)
    path.unlink()
    with pytest.raises(ModelFolderError, match="missing"):
        fourfold.load(folder)


def rewrite(folder, **changes):
    """Change config.json and keep the manifest right, as somebody who edits by hand might."""
    from fourfold.modalities.storage import sha256

    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_unknown_class(folder):
    rewrite(folder, adapter="os.system")
    with pytest.raises(ModelFolderError, match=r"unknown adapter 'os.system'; this version knows: .*tsdiff"):
        fourfold.load(folder)


@pytest.mark.parametrize("config", [{"width": 5}, {"breadth": 4}])
def test_configuration_that_does_not_fit(folder, config):
    rewrite(folder, config=config)
    with pytest.raises(ModelFolderError, match="cannot rebuild ToyAdapter"):
        fourfold.load(folder)


def test_newer_format(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ModelFolderError, match=r"format 99.*upgrade"):
        fourfold.load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1, "files": {}}'])
def test_damaged_manifest(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ModelFolderError, match=r"manifest.json"):
        fourfold.load(folder)


def test_a_manifest_cannot_name_files_elsewhere(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"sha256": "", "bytes": 0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="outside the folder"):
        fourfold.load(folder)


def test_no_model(tmp_path):
    with pytest.raises(ModelFolderError, match="the zoo has"):
        fourfold.load("nothing-of-this-name")
    with pytest.raises(ModelFolderError, match="is not a saved model"):
        fourfold.load(tmp_path)


def test_another_class(folder):
    class Other(toy.ToyAdapter):
        name = "other"

    with pytest.raises(ModelFolderError, match="holds a ToyAdapter, not a Other"):
        Other.load(folder)


def test_saving_replaces_models_and_nothing_else(folder, tmp_path):
    toy.ToyAdapter(width=6).save(folder)
    assert fourfold.load(folder).config()["width"] == 6
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ModelFolderError, match="not a saved model"):
        toy.ToyAdapter().save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_a_failed_save_leaves_the_old_model(folder, monkeypatch):
    monkeypatch.setattr(toy.ToyAdapter, "config", lambda self: {"width": object()})
    with pytest.raises(TypeError):
        toy.ToyAdapter(width=6).save(folder)
    monkeypatch.undo()
    assert fourfold.load(folder).config()["width"] == 4
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]


def test_zoo(folder, monkeypatch):
    monkeypatch.setattr("fourfold.modalities.zoo.ZOO", folder.parent)
    from fourfold.modalities.zoo import zoo

    assert zoo() == ["model"]
    assert isinstance(fourfold.load("model"), toy.ToyAdapter)


def test_hub_ids_need_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFolderError, match=r"fourfold\[hub\]"):
        fourfold.load("somebody/something")


def test_registry():
    assert {"tsdiff", "toy"} <= set(names())
    assert find("toy") is toy.ToyAdapter
    with pytest.raises(UnknownAdapter, match="this version knows"):
        find("nothing")
    with pytest.raises(ValueError, match="taken"):

        @register
        class Second(toy.ToyAdapter):
            name = "toy"

    with pytest.raises(ValueError, match="no `name`"):

        @register
        class Nameless(Adapter):
            pass


def test_convert(folder, tmp_path, monkeypatch):
    with pytest.raises(UnknownKind, match="known kinds"):
        fourfold.convert("nothing", "a.ckpt", tmp_path / "out")
    monkeypatch.setitem(fourfold.convert.__globals__["CONVERTERS"], "toy", "toy:ToyAdapter.load")
    with pytest.raises(FileNotFoundError):
        fourfold.convert("toy", tmp_path / "missing.ckpt", tmp_path / "out")


def test_the_command_replaces_a_converted_model_only_when_told_to(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(toy, "read", toy.ToyAdapter.load, raising=False)
    monkeypatch.setitem(fourfold.convert.__globals__["CONVERTERS"], "toy", "toy:read")
    words = ["convert", "toy", str(folder), str(tmp_path / "out")]
    assert command(words) == 0
    (tmp_path / "out" / "README.md").write_text("mine")
    assert command(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert command([*words, "--overwrite"]) == 0
    assert (tmp_path / "out" / "README.md").read_text() != "mine"
