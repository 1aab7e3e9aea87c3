"""Wrong configurations: status 2, fewer than ten lines, and the key, the file and a suggestion where there is one."""

from __future__ import annotations

import pytest
import toy
from runs import CONFIG, write_config

# name: (configuration file, further arguments, what the message has to name)
FILES = {
    "wrong key": (
        CONFIG.replace("max_steps", "max_stepz"),
        ["trainer.max_stepz", "toy.yaml, line 2", "trainer.max_steps"],
    ),
    "wrong section": (
        CONFIG + "modle:\n  warmup_steps: 3\n",
        ["modle.warmup_steps", "toy.yaml, line 10", "model.warmup"],
    ),
    "wrong key of a class": (CONFIG.replace("width", "widht"), ["widht", "toy.yaml, line 8", "model.adapter.width"]),
    "wrong type of a class": (CONFIG.replace("width: 8", "width: abc"), ["width", "toy.yaml, line 8", "int", "abc"]),
    "wrong type": (CONFIG + "  warmup_steps: 1.5\n", ["model.warmup_steps", "toy.yaml, line 9", "int", "1.5"]),
    "value refused": (CONFIG.replace("width: 8", "width: 0"), ["width must be positive", "toy.yaml, line 8"]),
    "value out of range": (CONFIG + "  ema_decay: 1.5\n", ["ema_decay must be in [0, 1)", "toy.yaml, line 9"]),
    "unknown class": (CONFIG.replace("ToyAdapter", "ToyAdaptor"), ["model.adapter", "toy.yaml, line 5", "ToyAdapter"]),
    "class of another kind": (
        CONFIG.replace("ToyAdapter", "torch.nn.Linear"),
        ["torch.nn.Linear", "subclass of Adapter"],
    ),
    "class not allowed": (CONFIG.replace("ToyAdapter", "evil_mod.E"), ["evil_mod.E", "not allowed", "--allow"]),
    "bad indentation": ("trainer:\n  max_steps: 3\n   model: 4\n", ["toy.yaml", "line 3"]),
    "a list": ("- 1\n- 2\n", ["toy.yaml", "keys and values"]),
    "not text": ("\0\udcff", ["toy.yaml"]),
    "section with a number": (CONFIG + "data: 3\n", ["toy.yaml", "'data'", "not 3"]),
}
ARGUMENTS = {
    "misspelt option": (["--model.warmup_stepz=3"], ["--model.warmup_stepz", "command line", "model.warmup_steps"]),
    "abbreviated option": (["--trainer.max_epoch=3"], ["--trainer.max_epoch", "trainer.max_epochs"]),
    "wrong type": (["--trainer.max_steps=x"], ["trainer.max_steps", "int", "x"]),
    "misspelt option of a class": (["--model.adapter.widht=3"], ["widht", "command line", "model.adapter.width"]),
    "unknown optimiser": (["--model.optimizer=Adamm"], ["model.optimizer", "Adam"]),
    "unknown accelerator": (["--trainer.accelerator=tpuu"], ["tpuu", "cpu"]),
    "value refused": (["--data.count=0"], ["count must be positive", "data.count", "command line"]),
    "seed": (["--seed_everything=abc"], ["seed_everything", "int", "abc"]),
    "missing configuration": (["--config=forecasting/tsdif"], ["forecasting/tsdif", "fourfold configs"]),
}


def fails(capfd, args, words):
    status = toy.main(args)
    output = capfd.readouterr().err
    assert status == 2, output
    assert len(output.splitlines()) < 10, output
    assert "Traceback" not in output
    for word in words:
        assert word in output, f"{word!r} is not in:\n{output}"


@pytest.mark.parametrize("case", FILES)
def test_wrong_file(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    text, words = FILES[case]
    (tmp_path / "toy.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    fails(capfd, ["fit", "--config", "toy.yaml"], words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", ARGUMENTS)
def test_wrong_arguments(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    more, words = ARGUMENTS[case]
    fails(capfd, ["fit", "--config", write_config(tmp_path), *more], words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fti"], ["fti", "fit"]),
        (["fit"], ["model.adapter", "--config"]),
        (["sample"], ["--run"]),
        (["sample", "--run", "nowhere"], ["nowhere", "config.yaml"]),
    ],
)
def test_wrong_command(args, words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    fails(capfd, args, words)
