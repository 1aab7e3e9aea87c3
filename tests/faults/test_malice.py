"""Configurations and checkpoints from strangers: nothing in them is imported or run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import toy
from runs import CONFIG, write_config

MARKER = "it-ran"
EVIL = f"from pathlib import Path\nPath({MARKER!r}).touch()\nclass E:\n    pass\n"


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(MARKER),))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that holds a module which leaves a mark when it is imported."""
    (tmp_path / "evil_mod.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_traps_work(folder):
    pickle.loads(pickle.dumps(Payload()))
    assert (folder / MARKER).exists()
    (folder / MARKER).unlink()
    __import__("evil_mod")
    assert (folder / MARKER).exists()


@pytest.mark.parametrize("name", ["evil_mod.E", "os.system", "torch.hub.load", "torch.load", "subprocess.run"])
def test_class_path(folder, name, capfd):
    config = write_config(folder, CONFIG.replace("ToyAdapter", name))
    assert toy.main(["fit", "--config", config]) == 2
    assert not (folder / MARKER).exists()
    assert name in capfd.readouterr().err


def test_callable_slot(folder, capfd):
    assert toy.main(["fit", "--config", write_config(folder), "--model.optimizer=evil_mod.E"]) == 2
    assert toy.main(["fit", "--config", write_config(folder), "--trainer.callbacks+=evil_mod.E"]) == 2
    assert not (folder / MARKER).exists()


def test_the_configuration_cannot_allow_itself(folder):
    config = write_config(folder, CONFIG.replace("ToyAdapter", "evil_mod.E") + "allow: evil_mod\n")
    assert toy.main(["fit", "--config", config]) == 2
    assert not (folder / MARKER).exists()


def test_the_user_can_allow(folder, spawn):
    (folder / "own_mod.py").write_text("import toy\nclass OwnAdapter(toy.ToyAdapter):\n    name = 'own'\n")
    config = write_config(folder, CONFIG.replace("ToyAdapter", "own_mod.OwnAdapter"))
    options = ["fit", "--config", config, "--trainer.max_steps=2"]
    assert spawn(toy.main, options).status == 2
    allowed = spawn(toy.main, [*options, "--allow", "own_mod"])
    assert allowed.status == 0, allowed.output
    assert spawn(toy.main, [*options, "--overwrite"], FOURFOLD_ALLOW_IMPORTS="own_mod").status == 0


def test_checkpoint_with_a_class_path(folder, spawn):
    config = write_config(folder)
    assert spawn(toy.main, ["fit", "--config", config, "--trainer.max_steps=2"]).status == 0
    path = folder / "runs/toy/toy/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] = {
        "_instantiator": "os.system",
        "_class_path": "evil_mod.E",
        "adapter": {"class_path": "evil_mod.E"},
        "ema_decay": 0.5,
    }
    torch.save(content, path)
    resumed = spawn(toy.main, ["fit", "--config", config, "--ckpt_path=last", "--trainer.max_steps=4"])
    # The hyper-parameters are not even looked at: neither imported nor put over the command line.
    assert resumed.status == 0, resumed.output
    assert not (folder / MARKER).exists()
    assert "0.5" not in (folder / "runs/toy/toy/config.resume-1.yaml").read_text()


@pytest.mark.parametrize("environment", [{}, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}])
def test_checkpoint_with_a_pickle(folder, spawn, environment):
    config = write_config(folder)
    assert spawn(toy.main, ["fit", "--config", config, "--trainer.max_steps=2"]).status == 0
    path = folder / "runs/toy/toy/checkpoints/last.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "extra": Payload()}, path)
    for command in (["fit", "--config", config, "--ckpt_path=last"], ["sample", "--run", "toy", "--ckpt_path=last"]):
        refused = spawn(toy.main, command, **environment)
        assert refused.status == 1, refused.output
        assert "could run code" in refused.output
        assert not (folder / MARKER).exists()


def test_configurations_are_not_fetched(folder, capfd):
    assert toy.main(["fit", "--config", "http://localhost:9/evil.yaml"]) == 2
    assert "neither file nor name" in capfd.readouterr().err
