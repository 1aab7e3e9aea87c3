"""A full disk, a NaN, a damaged checkpoint: one clear line, a status that is not 0, and nothing lost."""

from __future__ import annotations

import resource
import shutil

import pytest
import torch
import toy
from runs import digest, write_config

from fourfold.tasks.checkpoints import AtomicCheckpointIO, read_checkpoint


@pytest.fixture
def fit(spawn, tmp_path):
    config = write_config(tmp_path)

    def run(*options, main=toy.main, **environ):
        return spawn(main, ["fit", "--config", config, "--run", "run", *options], **environ)

    return run


@pytest.fixture
def checkpoints(tmp_path):
    return tmp_path / "runs" / "toy" / "run" / "checkpoints"


def finite(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    tensors = [*state["state_dict"].values(), *state["current_model_state"].values()]
    return all(torch.isfinite(t).all() for t in tensors if t.is_floating_point())


def error_lines(output):
    return [line for line in output.splitlines() if line.startswith("error:")]


def test_full_disk(fit, checkpoints):
    assert fit("--trainer.max_steps=20").status == 0
    before = digest(checkpoints / "last.ckpt")

    def limited(args):
        # Signals are ignored by Python, so a write beyond the limit fails with EFBIG, like ENOSPC on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        return toy.main(args)

    full = fit(
        "--ckpt_path=last", "--trainer.logger=false", "--picture_every=1000", "--checkpoint_every=3", main=limited
    )
    assert full.status == 1, full.output
    assert "Traceback" not in full.output
    (line,) = error_lines(full.output)
    assert "last.ckpt" in line or "best.ckpt" in line
    assert "bytes needed" in line
    assert "intact" in line
    assert digest(checkpoints / "last.ckpt") == before
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert fit("--ckpt_path=last").status == 0


def test_nan_stops_the_run(fit, checkpoints):
    stopped = fit("--checkpoint_every=5", TOY_NAN_AT="17")
    assert stopped.status == 1, stopped.output
    (line,) = error_lines(stopped.output)
    for word in ("step 17", "epoch 1", "batch 7", "sample(s) 0, 1, 2", "lr 0.001", "skip_nonfinite"):
        assert word in line, line
    assert finite(checkpoints / "last.ckpt")
    assert finite(checkpoints / "best.ckpt")
    assert digest(checkpoints / "last.ckpt")["step"] == "15"


def test_nan_can_be_left_out(fit, checkpoints):
    done = fit("--model.skip_nonfinite=2", TOY_NAN_AT="17,18,30")
    assert done.status == 0, done.output
    assert done.output.count("step left out") == 3
    assert finite(checkpoints / "last.ckpt")
    assert fit("--overwrite", "--model.skip_nonfinite=2", TOY_NAN_AT="17,18,19").status == 1


def test_no_checkpoint_holds_a_nan(fit, checkpoints):
    class Broken(toy.ToyTask):
        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            # Counted when this returns: the ninth step, after which a checkpoint is due.
            if self.global_step == 8:
                next(self.parameters()).data[:] = float("nan")

    def main(args):
        return toy.run_cli("toy", Broken, toy.ToyData, args)

    stopped = fit("--checkpoint_every=3", "--model.ema_decay=0", main=main)
    assert stopped.status == 1, stopped.output
    state = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert state["global_step"] == 6
    assert all(torch.isfinite(t).all() for t in state["state_dict"].values())


def test_checkpoints_are_renamed_into_place(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.zeros(3)}}, path)
    with open(path, "rb") as reader:
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(3)}}, path)
        # Whoever had the old file open still reads the whole old file.
        assert torch.load(reader, weights_only=True)["state_dict"]["a"].sum() == 0
    assert read_checkpoint(path)["state_dict"]["a"].sum() == 3
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a web page": lambda content: b"<!doctype html><title>404</title>",
    "a flipped bit": lambda content: content[:1500] + bytes([content[1500] ^ 1]) + content[1501:],
}


def test_damaged_checkpoints(fit, checkpoints, spawn):
    assert fit("--trainer.max_steps=20").status == 0
    good = (checkpoints / "last.ckpt").read_bytes()
    for name, damage in DAMAGE.items():
        (checkpoints / "last.ckpt").write_bytes(damage(good))
        resumed = fit("--ckpt_path=last")
        assert resumed.status == 1, (name, resumed.output)
        (line,) = error_lines(resumed.output)
        assert "last.ckpt" in line, (name, line)
        assert "damaged" in line, (name, line)
        assert "best.ckpt" in line, f"{name}: the newest good checkpoint is not named: {line}"
        assert "Traceback" not in resumed.output
        used = spawn(toy.main, ["sample", "--run", "run", "--ckpt_path", "last"])
        assert used.status == 1, used.output
    missing = fit("--ckpt_path=nowhere.ckpt")
    assert missing.status == 1
    assert error_lines(missing.output) == ["error: checkpoint nowhere.ckpt does not exist"]


def test_a_checkpoint_of_another_model(fit, tmp_path, spawn):
    assert fit("--trainer.max_steps=10").status == 0
    ended = spawn(toy.main, ["sample", "--run", "run", "--model.adapter.width=9"])
    assert ended.status == 1, ended.output
    assert "does not fit this model" in ended.output
    assert "Traceback" not in ended.output


def test_two_trainings_in_one_folder(fit, tmp_path, spawn):
    from filelock import FileLock

    folder = tmp_path / "runs" / "toy" / "run"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        second = fit()
    assert second.status == 2
    assert "another training is running" in second.output


def test_a_folder_in_use_is_not_trained_over(fit, checkpoints):
    assert fit("--trainer.max_steps=10").status == 0
    before = digest(checkpoints / "last.ckpt")
    again = fit("--trainer.max_steps=10")
    assert again.status == 2
    assert "--ckpt_path last" in again.output
    assert "--overwrite" in again.output
    assert digest(checkpoints / "last.ckpt") == before
    shutil.rmtree(checkpoints)
