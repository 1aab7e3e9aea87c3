"""A killed and resumed training equals an uninterrupted one, bit for bit: weights, averaged weights, optimiser."""

from __future__ import annotations

import signal

import pytest
import toy
from runs import digest, write_config

VARIANTS = {
    "plain": [],
    "two workers": ["--data.num_workers=2", "--trainer.max_steps=40"],
    "accumulated gradients": ["--trainer.accumulate_grad_batches=2", "--trainer.max_steps=30"],
    "limited batches": ["--trainer.limit_train_batches=7"],
}


@pytest.fixture
def fit(spawn, tmp_path):
    config = write_config(tmp_path)

    def run(name, *options, **environ):
        return spawn(toy.main, ["fit", "--config", config, "--run", name, *options], **environ)

    run.checkpoint = lambda name: tmp_path / "runs" / "toy" / name / "checkpoints" / "last.ckpt"
    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_kill_minus_nine(fit, variant):
    options = VARIANTS[variant]
    assert fit("whole", *options).status == 0
    # Batch 27 is in the middle of an epoch; checkpoints every 4 steps end between and at the borders of epochs.
    killed = fit("killed", *options, "--checkpoint_every=4", TOY_KILL_AT="27")
    assert killed.status == -signal.SIGKILL, killed.output
    if variant != "two workers":
        again = fit("killed", *options, "--ckpt_path=last", "--checkpoint_every=4", TOY_KILL_AT="44")
        assert again.status == -signal.SIGKILL, again.output
    resumed = fit("killed", *options, "--ckpt_path=last")
    assert resumed.status == 0, resumed.output
    assert digest(fit.checkpoint("killed")) == digest(fit.checkpoint("whole"))


def test_killed_at_an_epochs_border(fit):
    assert fit("whole").status == 0
    assert fit("killed", "--checkpoint_every=10", TOY_KILL_AT="30").status == -signal.SIGKILL
    assert fit("killed", "--ckpt_path=last").status == 0
    assert digest(fit.checkpoint("killed")) == digest(fit.checkpoint("whole"))


def test_resumed_at_several_borders_the_epochs_are_still_counted_right(fit):
    limits = ["--trainer.max_epochs=6", "--trainer.max_steps=1000"]
    assert fit("whole", *limits).status == 0
    assert digest(fit.checkpoint("whole"))["step"] == "60"
    for batch in ("20", "20", "50"):
        ended = fit("killed", "--checkpoint_every=10", "--ckpt_path=last", *limits, TOY_KILL_AT=batch)
        assert ended.status == -signal.SIGKILL, ended.output
    assert fit("killed", *limits, "--ckpt_path=last").status == 0
    assert digest(fit.checkpoint("killed")) == digest(fit.checkpoint("whole"))


@pytest.mark.parametrize(("variable", "status"), [("TOY_VAL_KILL_AT", -signal.SIGKILL), ("TOY_VAL_TERM_AT", 143)])
def test_stopped_in_validation(fit, variable, status):
    limits = ["--trainer.max_epochs=3", "--trainer.max_steps=-1"]
    assert fit("whole", *limits).status == 0
    stopped = fit("stopped", *limits, "--checkpoint_every=5", **{variable: "20"})
    assert stopped.status == status, stopped.output
    assert fit("stopped", *limits, "--ckpt_path=last").status == 0
    assert digest(fit.checkpoint("stopped")) == digest(fit.checkpoint("whole"))


@pytest.mark.parametrize(("variable", "status"), [("TOY_TERM_AT", 143), ("TOY_INT_AT", 130)])
@pytest.mark.parametrize("variant", ["plain", "accumulated gradients"])
def test_a_polite_stop_keeps_the_very_last_step(fit, variable, status, variant):
    options = VARIANTS[variant]
    assert fit("whole", *options).status == 0
    stopped = fit("stopped", *options, "--checkpoint_every=1000", **{variable: "26"})
    assert stopped.status == status, stopped.output
    assert "continue with the same command and --ckpt_path last" in stopped.output
    assert "Traceback" not in stopped.output
    assert digest(fit.checkpoint("stopped"))["step"] == ("27" if variant == "plain" else "13")
    assert fit("stopped", *options, "--ckpt_path=last").status == 0
    assert digest(fit.checkpoint("stopped")) == digest(fit.checkpoint("whole"))


def test_a_different_seed_gives_different_weights(fit):
    # Shows that the comparison above can fail.
    assert fit("a", "--trainer.max_steps=3").status == 0
    assert fit("b", "--trainer.max_steps=3", "--seed_everything=7").status == 0
    assert digest(fit.checkpoint("a"))["state_dict"] != digest(fit.checkpoint("b"))["state_dict"]
