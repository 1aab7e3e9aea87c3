"""Model folders: what is saved comes back, what is damaged is refused."""

from __future__ import annotations

import json

import pytest
import torch
import toy

import fourfold
from fourfold.modalities.adapter import Adapter, load
from fourfold.modalities.convert import UnknownKind
from fourfold.modalities.registry import UnknownAdapter, find, names, register
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
