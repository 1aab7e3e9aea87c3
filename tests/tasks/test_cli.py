"""What LightningCLI does wrong by itself, and what `fourfold TASK` does instead."""

from __future__ import annotations

import csv
import json
import logging

import pytest
import torch
import toy
import yaml
from runs import CONFIG, digest, write_config


@pytest.fixture
def fit(spawn, tmp_path):
    config = write_config(tmp_path)

    def run(*options, **environ):
        ended = spawn(toy.main, ["fit", "--config", config, "--trainer.max_steps=10", *options], **environ)
        assert ended.status == 0, ended.output
        return ended.output

    return run


@pytest.fixture
def run_folder(tmp_path):
    return tmp_path / "runs" / "toy" / "toy"


def settings(path):
    return yaml.safe_load(path.read_text())


def test_run_folder(fit, run_folder):
    output = fit()
    assert sorted(path.name for path in run_folder.iterdir() if not path.name.startswith(("events", "."))) == [
        "checkpoints",
        "config.yaml",
        "environment.json",
        "hparams.yaml",
        "metrics.csv",
        "metrics.json",
        "samples",
    ]
    assert list(run_folder.glob("events.out.*"))
    assert [path.name for path in (run_folder / "samples").iterdir()] == ["points-step0000010.png"]
    assert json.loads((run_folder / "environment.json").read_text())["packages"]["torch"]
    fitted = json.loads((run_folder / "metrics.json").read_text())["fit"]
    assert fitted["protocol"] == "toy: 80 points on a circle"
    assert fitted["seed"] == 42
    assert set(fitted["metrics"]) >= {"train_loss", "val_loss"}
    assert "litlogger" not in output.lower()
    assert "Traceback" not in output


def test_pictures_reach_tensorboard(fit, run_folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit()
    events = EventAccumulator(str(run_folder)).Reload()
    assert events.Tags()["images"] == ["points"]
    assert "val_loss" in events.Tags()["scalars"]


def test_a_checkpoint_does_not_override_the_command_line(fit, run_folder):
    fit()
    fit("--ckpt_path=last", "--trainer.max_steps=20", "--model.ema_decay=0.9", "--model.warmup_steps=3")
    resumed = settings(run_folder / "config.resume-1.yaml")
    assert resumed["model"]["ema_decay"] == 0.9
    assert resumed["model"]["warmup_steps"] == 3


def test_last_continues_in_a_new_process(fit, run_folder):
    fit()
    output = fit("--ckpt_path=last", "--trainer.max_steps=20")
    assert "from step 10" in output
    assert digest(run_folder / "checkpoints" / "last.ckpt")["step"] == "20"
    assert sorted(path.name for path in (run_folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_last_without_a_checkpoint_says_that_it_starts_anew(fit):
    assert "starting from the beginning" in fit("--ckpt_path=last")


def test_snapshots_are_never_overwritten(fit, run_folder):
    fit()
    first = (run_folder / "config.yaml").read_text()
    output = fit("--ckpt_path=last", "--trainer.max_steps=12")
    fit("--ckpt_path=last", "--trainer.max_steps=14")
    assert (run_folder / "config.yaml").read_text() == first
    assert settings(run_folder / "config.resume-1.yaml")["trainer"]["max_steps"] == 12
    assert settings(run_folder / "config.resume-2.yaml")["trainer"]["max_steps"] == 14
    assert "ckpt_path" not in first
    assert "-  max_steps: 10" in output
    assert "+  max_steps: 12" in output


def test_metrics_are_appended(fit, run_folder):
    fit()
    before = (run_folder / "metrics.csv").read_text()
    fit("--ckpt_path=last", "--trainer.max_steps=20")
    after = (run_folder / "metrics.csv").read_text()
    assert after.startswith(before)
    rows = list(csv.DictReader(after.splitlines()))
    assert [row["step"] for row in rows if row["name"] == "val_loss"] == ["9", "19"]


def test_a_saved_run_is_read_back(fit, run_folder, spawn, tmp_path):
    fit("--model.adapter.width=5")
    sampled = spawn(toy.main, ["sample", "--run", "toy", "--num_samples=3"])
    assert sampled.status == 0, sampled.output
    assert torch.load(run_folder / "samples" / "points.pt", weights_only=True).shape == (3, 2)
    evaluated = spawn(toy.main, ["evaluate", "--run", str(run_folder)])
    assert evaluated.status == 0, evaluated.output
    assert "radius" in evaluated.output
    recorded = json.loads((run_folder / "metrics.json").read_text())
    assert set(recorded) == {"fit", "evaluate"}
    assert recorded["evaluate"]["num_samples"] == 100
    assert recorded["evaluate"]["metrics"]["zero"] == {"radius": 0.0}
    for command in ("validate", "test"):
        ended = spawn(toy.main, [command, "--run", "toy"])
        assert ended.status == 0, ended.output
        assert "_loss" in ended.output


def test_export_holds_the_averaged_weights(fit, run_folder, spawn, tmp_path):
    import fourfold

    fit()
    exported = spawn(toy.main, ["export", "--run", "toy", "--out", "model"])
    assert exported.status == 0, exported.output
    state = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    model = fourfold.load(tmp_path / "model")
    assert isinstance(model, toy.ToyAdapter)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state["state_dict"][f"adapter.{name}"])
    raw = state["current_model_state"]["adapter.net.0.weight"]
    assert not torch.equal(model.state_dict()["net.0.weight"], raw)
    assert "toy: 80 points" in (tmp_path / "model" / "README.md").read_text()


def parse(monkeypatch, tmp_path, *args):
    """The configuration that a command line gives, without running anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning.pytorch.cli.LightningCLI._run_subcommand", lambda self, name: None)
    found = {}
    original = toy.run_cli.__globals__["TaskCLI"]

    class Spy(original):
        def _run_subcommand(self, subcommand):
            found.update(self.config[subcommand].as_dict(), trainer_object=self.trainer, model_object=self.model)

    monkeypatch.setitem(toy.run_cli.__globals__, "TaskCLI", Spy)
    assert toy.main(list(args)) == 0
    return found


def test_priority(monkeypatch, tmp_path):
    base = write_config(tmp_path)
    later = write_config(tmp_path, "model:\n  ema_decay: 0.5\n  warmup_steps: 7\n", "later.yaml")
    monkeypatch.setenv("FOURFOLD_FIT__MODEL__EMA_DECAY", "0.1")
    monkeypatch.setenv("FOURFOLD_FIT__MODEL__SKIP_NONFINITE", "4")
    found = parse(monkeypatch, tmp_path, "fit", "-c", base, "-c", later, "--model.warmup_steps=9")
    model = found["model"]
    # code default < environment < files in order < command line
    assert (model["skip_nonfinite"], model["ema_decay"], model["warmup_steps"]) == (4, 0.5, 9)
    assert model["adapter"]["init_args"]["width"] == 8


def test_run_name_follows_the_last_configuration(monkeypatch, tmp_path):
    base = write_config(tmp_path)
    later = write_config(tmp_path, "model:\n  warmup_steps: 7\n", "later.yaml")
    found = parse(monkeypatch, tmp_path, "fit", "-c", base, "-c", later)
    assert found["trainer_object"].default_root_dir.endswith("runs/toy/later")


def test_callbacks_of_a_configuration_do_not_drop_ours(monkeypatch, tmp_path):
    text = CONFIG.replace("trainer:", "trainer:\n  callbacks: [{class_path: LearningRateMonitor}]")
    found = parse(monkeypatch, tmp_path, "fit", "-c", write_config(tmp_path, text))
    names = {type(callback).__name__ for callback in found["trainer_object"].callbacks}
    assert {"LearningRateMonitor", "LastCheckpoint", "ModelCheckpoint", "ConfigSnapshot", "StopBetweenBatches"} <= names


def test_seed_reaches_the_task(monkeypatch, tmp_path):
    found = parse(monkeypatch, tmp_path, "fit", "-c", write_config(tmp_path), "--seed_everything=5")
    assert found["model_object"].seed == 5


def test_print_config_can_be_used_again(spawn, tmp_path):
    config = write_config(tmp_path)
    printed = spawn(toy.main, ["fit", "--config", config, "--model.warmup_steps=3", "--print_config"])
    assert printed.status == 0, printed.output
    again = write_config(tmp_path, printed.output, "printed.yaml")
    ended = spawn(toy.main, ["fit", "--config", again, "--trainer.max_steps=2"])
    assert ended.status == 0, ended.output
    assert settings(tmp_path / "runs" / "toy" / "printed" / "config.yaml")["model"]["warmup_steps"] == 3


def test_debug_shows_the_traceback(spawn, tmp_path):
    options = ["fit", "--config", write_config(tmp_path), "--data.count=0"]
    assert "Traceback" not in spawn(toy.main, options).output
    assert "Traceback" in spawn(toy.main, [*options, "--debug"]).output


def test_a_checkpoint_holds_plain_values_only(fit, run_folder):
    fit()
    state = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert "hyper_parameters" not in state
    assert state["fourfold"] == {"adapter": "toy", "config": {"width": 8, "dropout": 0.1}}
    assert (run_folder / "checkpoints" / "last.ckpt").stat().st_mode & 0o044


def test_advertisements_are_filtered():
    from fourfold.tasks.trainer import quieten

    quieten()
    assert not logging.getLogger("lightning.pytorch.utilities.rank_zero").isEnabledFor(logging.INFO)
