"""The LightningModule: averaged weights where it is looked at, noise as a function of the step, learning rate."""

from __future__ import annotations

import pytest
import torch
import toy

from fourfold.tasks.task import DiffusionTask, learning_rate_factor
from fourfold.tasks.trainer import format_table, run_trainer


class Watching(toy.ToyTask):
    """Notes the weights it is validated with, at the hooks where Lightning's own averaging differs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = {}

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.adapter.parameters()])

    def on_train_batch_end(self, *args):
        self.seen["raw"] = self.weights()

    def on_validation_epoch_end(self):
        self.seen["epoch end"] = self.weights()

    def figures(self):
        self.seen["figures"] = self.weights()
        return {}


@pytest.fixture
def trained(tmp_path):
    task = Watching(toy.ToyAdapter(), ema_decay=0.99)
    trainer = run_trainer(tmp_path, max_steps=10, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(task, datamodule=toy.ToyData())
    return task, tmp_path


def test_averaged_weights_are_what_is_looked_at(trained):
    task, folder = trained
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    averaged = torch.cat([state["state_dict"][f"adapter.{n}"].flatten() for n, _ in task.adapter.named_parameters()])
    raw = torch.cat(
        [state["current_model_state"][f"adapter.{n}"].flatten() for n, _ in task.adapter.named_parameters()]
    )
    assert not torch.equal(averaged, raw)
    assert torch.equal(task.seen["raw"], raw)
    for place in ("epoch end", "figures"):
        assert torch.equal(task.seen[place], averaged), place
    # After training the module itself holds the averaged weights.
    assert torch.equal(task.weights(), averaged)


def test_buffers_are_copied_not_averaged(trained):
    _, folder = trained
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["state_dict"]["adapter.seen"] == state["current_model_state"]["adapter.seen"] == 10


def test_the_loss_has_to_be_per_sample(tmp_path):
    class Mean(toy.ToyAdapter):
        name = "mean"

        def loss(self, batch, noise):
            return super().loss(batch, noise).mean()

    task = DiffusionTask(Mean())
    trainer = run_trainer(tmp_path, max_steps=1, accelerator="cpu", enable_progress_bar=False, fast_dev_run=True)
    with pytest.raises(ValueError, match=r"expected \(8,\)"):
        trainer.fit(task, datamodule=toy.ToyData())


def test_training_leaves_the_global_generator_alone(tmp_path):
    task = toy.ToyTask(toy.ToyAdapter(dropout=0.5))
    trainer = run_trainer(tmp_path, max_steps=3, limit_val_batches=0, accelerator="cpu", enable_progress_bar=False)
    data = toy.ToyData()
    before = torch.get_rng_state()
    trainer.fit(task, datamodule=data)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (3, 1.0), (4, 1.0), (9, 0.5), (14, 0.0), (99, 0.0)])
def test_learning_rate(step, factor):
    assert learning_rate_factor(step, warmup_steps=4, decay_steps=14) == pytest.approx(factor, abs=1e-12)


def test_learning_rate_stays_without_decay():
    assert learning_rate_factor(10**6, warmup_steps=0, decay_steps=None) == 1


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="ema_decay"):
        DiffusionTask(toy.ToyAdapter(), ema_decay=1.0)
    with pytest.raises(ValueError, match="decay_steps"):
        DiffusionTask(toy.ToyAdapter(), warmup_steps=5, decay_steps=5)


def test_batch_size_of_nested_batches():
    task = DiffusionTask(toy.ToyAdapter())
    assert task.batch_size({"name": ["a", "b"], "x": [torch.zeros(3, 2)]}) == 3
    with pytest.raises(TypeError, match="batch_size"):
        task.batch_size({"name": "a"})


def test_table():
    table = format_table({"ours": {"crps": 0.5, "mae": 1.0}, "naive": {"crps": 0.75}})
    assert table.splitlines() == ["       crps  mae", "ours   0.5   1", "naive  0.75  -"]
