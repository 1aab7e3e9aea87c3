"""Separators: shapes, rates, channels, levels, lengths, seeds, words and guidance; what they share and what differs."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from separators import SMALL, batch, flowsep, mask_regression

from fourfold.core import DDIM, NoiseSource, PredictorCorrector, RungeKutta, Singlestep, StochasticHeun
from fourfold.modalities.adapter import load
from fourfold.modalities.audio.flowsep import FlowSep
from fourfold.modalities.audio.mask_regression import MaskRegression
from fourfold.modalities.audio.separator import Query, Separation, heard
from fourfold.modalities.audio.solvers import SOLVERS

KINDS = [flowsep, mask_regression]
VAE = {"channels": 8, "multipliers": [1, 2], "num_res_blocks": 1, "norm_groups": 4, "latent_channels": 4}


def sound(seconds, rate=8000, channels=None, seed=0):
    wave = 0.1 * torch.randn(channels or 1, round(seconds * rate), generator=torch.Generator().manual_seed(seed))
    return wave if channels else wave[0]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("representation", [SMALL["representation"], {"name": "vae", "vae": VAE}])
def test_loss_trains_every_weight_but_the_first_stage(make, representation):
    model = make(representation=representation).train()
    loss = model.loss(batch(), NoiseSource(0, range(3)))
    assert loss.shape == (3,)
    assert (loss > 0).all()
    loss.mean().backward()
    idle = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # Positions of words beyond the longest description.
    assert {name for name in idle if "positions" not in name} == set()
    assert not any(p.requires_grad for p in model.representation.parameters())


def test_loss_of_a_sample_does_not_depend_on_the_batch():
    model = flowsep(dropout=0.5)
    whole = batch()
    one = batch()
    one.mixture, one.target, one.queries = whole.mixture[1:2], whole.target[1:2], whole.queries[1:2]
    together = model.loss(whole, NoiseSource(3, range(3)))
    alone = model.loss(one, NoiseSource(3, [1]))
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-5)


def test_words_are_dropped_per_example():
    model = flowsep(dropout=0.5)
    noise = NoiseSource(0, range(64))
    states = model.states(["a bell"] * 64, noise, 0.5)
    free = model.text.unconditional(1)
    dropped = [
        torch.allclose(s[0], free.states[0, 0]) and int(m.sum()) == 1
        for s, m in zip(states.states, states.mask, strict=True)
    ]
    assert 16 < sum(dropped) < 48
    assert model.states(["a bell"] * 64, noise, 0.0).mask.all()


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("seconds", "rate", "channels"),
    [
        (0.32, 8000, None),
        (1.0, 8000, 2),
        (0.01, 8000, None),
        (0.75, 44100, 2),
        (0.5, 11025, None),
        (1 / 16000, 16000, 1),
    ],
)
def test_any_length_rate_and_number_of_channels(make, seconds, rate, channels):
    wave = sound(seconds, rate, channels)
    out = make().separate(wave, rate, "a bell", steps=2, residual=True)
    assert isinstance(out, Separation)
    assert out.samples.shape == wave.shape
    assert out.sample_rate == rate
    assert out.decoder == "mask"
    assert torch.isfinite(out.samples).all()
    torch.testing.assert_close(out.samples + out.residual, wave)


def test_level_is_kept_and_channels_share_the_estimate():
    model = mask_regression()
    wave = sound(0.9)
    quiet = model.separate(0.01 * wave, 8000, "a bell").samples
    loud = model.separate(wave, 8000, "a bell").samples
    torch.testing.assert_close(100 * quiet, loud, rtol=1e-3, atol=1e-4)
    both = model.separate(torch.stack([wave, wave]), 8000, "a bell").samples
    torch.testing.assert_close(both[0], loud, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both[0], both[1])


def test_silence_stays_silent_and_an_estimate_is_never_louder():
    model = flowsep()
    assert not model.separate(torch.zeros(3000), 8000, "rain", steps=1).samples.any()
    wave = sound(0.32)
    out = model.separate(wave, 8000, "rain", steps=3).samples
    assert float(out.square().sum()) <= float(wave.square().sum()) * 1.01


@pytest.mark.parametrize("make", KINDS)
def test_anti_phase_channels_are_heard(make):
    model = make()
    wave = sound(1.0)
    alone = model.separate(wave, 8000, "rain", steps=1).samples
    both = model.separate(torch.stack([wave, -wave]), 8000, "rain", steps=1).samples
    assert float(alone.square().sum()) > 0
    torch.testing.assert_close(both, torch.stack([alone, -alone]), rtol=1e-3, atol=1e-6)


def test_the_loudest_channel_is_heard_only_where_the_mean_cancels():
    wave, other = sound(0.1), sound(0.1, seed=1)
    mixed = torch.stack([torch.stack([wave, -0.9 * wave]), torch.stack([wave, other]), torch.stack([-wave, wave + 9])])
    mono = heard(mixed)
    torch.testing.assert_close(mono, torch.stack([wave, (wave + other) / 2, mono[2]]))
    assert any(torch.allclose(mono[2], x) for x in (-wave, wave + 9))
    assert torch.equal(heard(mixed[:, :1])[1], wave)


def test_frequencies_the_model_does_not_hear_are_not_lost():
    wave = sound(1.0, 44_100)
    out = mask_regression().separate(wave, 44_100, "rain").samples
    above = torch.fft.rfftfreq(len(wave), 1 / 44_100) > 4000
    kept = [float(torch.fft.rfft(x)[above].abs().square().sum()) for x in (out, wave)]
    highest = [float(torch.fft.rfft(x)[above.logical_not()][-500:].abs().square().sum()) for x in (out, wave)]
    assert 0.3 < (kept[0] / kept[1]) / (highest[0] / highest[1]) < 3


def test_memory_does_not_grow_with_length():
    model = flowsep()
    seen = []
    length = 200_000

    def read(start, stop):
        seen.append(stop - start)
        return torch.zeros(1, stop - start)

    parts = [part.shape[1] for _, part in model.stream(read, length, 8000, Query("rain", steps=1), batch=2)]
    assert max(seen) == 2560
    assert max(parts) <= 2560
    assert sum(parts) == length


def test_seeds_and_batches():
    model = flowsep()
    wave = sound(1.5)
    first = model.separate(wave, 8000, "rain", steps=2, seed=1).samples
    assert torch.equal(first, model.separate(wave, 8000, "rain", steps=2, seed=1).samples)
    assert not torch.allclose(first, model.separate(wave, 8000, "rain", steps=2, seed=2).samples, atol=1e-5)
    torch.testing.assert_close(
        first, model.separate(wave, 8000, "rain", steps=2, seed=1, batch=1).samples, rtol=1e-3, atol=1e-5
    )


def test_words_negative_words_guidance_candidates_and_start_change_the_result():
    model = flowsep()
    wave = sound(0.32)

    def run(query="a bell", **options):
        return model.separate(wave, 8000, query, steps=3, **options).samples

    plain = run()
    for other in (
        run("rain"),
        run(negative="rain"),
        run(guidance=3.0),
        run(candidates=3),
        run(start=0.5),
        run(temperature=0.0),
    ):
        assert not torch.allclose(plain, other, atol=1e-6)
    assert torch.equal(plain, run(guidance=1.0))
    torch.testing.assert_close(run(guidance=0.0), run("rain", guidance=0.0))
    torch.testing.assert_close(run(guidance=0.0, negative="rain"), run("rain"), rtol=1e-4, atol=1e-5)


def test_guidance_is_a_line_through_both_answers():
    model = mask_regression()
    mel = model.front(sound(0.32)[None])
    a, b = (model.representation.condition(model.estimate(mel, Query(q), [0])) for q in ("a bell", "rain"))
    mixed = model._regress(model.representation.condition(mel), "a bell")
    free = model._regress(model.representation.condition(mel), "rain")
    wanted = model.representation.decode(free + 1.5 * (mixed - free), mel).clamp(min=model.front.settings.silence)
    torch.testing.assert_close(model.estimate(mel, Query("a bell", "rain", guidance=1.5), [0]), wanted)
    assert not torch.allclose(a, b)


def test_candidates_are_averaged_as_magnitudes():
    model = flowsep()
    mel = model.front(sound(0.32)[None])
    one = [model.estimate(mel, Query("rain", steps=2, candidates=k, seed=4), [0]).exp() for k in (1, 2)]
    second = 2 * one[1] - one[0]
    assert (second > 0).all()
    assert (second <= mel.exp() * 1.001 + 1e-4).all()


@pytest.mark.parametrize(
    "stepper",
    [
        DDIM(1.0),
        Singlestep(),
        Singlestep(2, "noise"),
        RungeKutta("rk4", "time"),
        PredictorCorrector(),
        StochasticHeun(5),
    ],
    ids=lambda stepper: type(stepper).__name__,
)
def test_any_solver_of_the_core(stepper):
    model = flowsep()
    mel = model.front(sound(0.32)[None])
    query = Query("rain", steps=4)
    solved = model.estimate(mel, query, [0], stepper)
    assert torch.isfinite(solved).all()
    assert not torch.equal(model.estimate(mel, query, [0]), solved)


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_by_name(name):
    model = flowsep()
    wave = sound(0.32)
    out = model.separate(wave, 8000, "rain", steps=3, solver=name).samples
    assert torch.isfinite(out).all()
    usual = model.separate(wave, 8000, "rain", steps=3).samples
    assert torch.equal(out, usual) == (name == "multistep")


@pytest.mark.parametrize("prediction", ["data", "velocity"])
def test_many_steps_agree_with_more_steps(prediction):
    # A network that is not trained is smooth in time only if it cannot tell times apart well.
    model = flowsep(prediction=prediction, unet={**SMALL["unet"], "time_scale": 1.0})
    mel = model.front(sound(0.32)[None])
    few, more, most = (model.estimate(mel, Query("rain", steps=n), [0]) for n in (10, 40, 160))
    assert float((more - most).abs().mean()) < 0.5 * float((few - most).abs().mean())


@pytest.mark.parametrize("make", KINDS)
def test_storage(make, tmp_path):
    model = make()
    again = load(model.save(tmp_path / "m"))
    assert again.config() == model.config()
    wave = sound(0.5)
    assert torch.equal(again.separate(wave, 8000, "rain").samples, model.separate(wave, 8000, "rain").samples)


def test_half_precision_weights_are_read(tmp_path):
    model = mask_regression()
    wave = sound(0.32)
    expected = model.separate(wave, 8000, "rain").samples
    again = load(model.half().save(tmp_path / "m"))
    assert next(again.parameters()).dtype == torch.float32
    torch.testing.assert_close(again.separate(wave, 8000, "rain").samples, expected, atol=5e-3, rtol=0.05)


def test_decoders():
    model = flowsep(
        vocoder={
            "num_bands": 16,
            "upsample_rates": [5, 4, 2, 2],
            "upsample_kernels": [10, 8, 4, 4],
            "channels": 32,
            "kernels": [3],
            "dilations": [1],
        }
    )
    wave = sound(0.7, channels=2)
    assert model.separate(wave, 8000, "rain", steps=1).decoder == "vocoder"
    for decoder in ("mask", "griffinlim", "vocoder"):
        out = model.separate(wave, 8000, "rain", steps=1, decoder=decoder)
        assert out.decoder == decoder
        assert out.samples.shape == wave.shape
    with pytest.raises(ValueError, match="no vocoder"):
        flowsep().separate(wave, 8000, "rain", decoder="vocoder")


@pytest.mark.parametrize(
    ("wave", "rate", "query", "message"),
    [
        (torch.zeros(0), 8000, "rain", "no samples"),
        (torch.zeros(2, 0), 8000, "rain", "no samples"),
        (torch.tensor([0.0, float("nan")]), 8000, "rain", "1 of 2 samples are NaN"),
        (torch.zeros(2, 2, 2), 8000, "rain", "samples must be"),
        (torch.zeros(10), 0, "rain", "sample_rate"),
        (torch.zeros(10), 44_100.5, "rain", "sample_rate must be a whole number"),
        (torch.zeros(10), float("nan"), "rain", "sample_rate must be a whole number"),
        (torch.zeros(10), "8000", "rain", "sample_rate must be a whole number"),
        (torch.zeros(44_100, 2), 44_100, "rain", r"\(44100, 2\): pass x.T"),
        (torch.zeros(10), 8000, "  ", "query is empty"),
    ],
)
def test_bad_input(wave, rate, query, message):
    with pytest.raises(ValueError, match=message):
        flowsep().separate(wave, rate, query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"negative": ""}, "negative"),
        ({"negative": 3}, "negative query is a description"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"guidance": "2"}, "guidance must be a finite number"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"temperature": float("inf")}, "temperature must be a finite number"),
        ({"start": 1.5}, "start"),
        ({"temperature": -1.0}, "temperature"),
        ({"decoder": "magic"}, "unknown decoder"),
        ({"solver": "magic"}, "unknown solver 'magic'; known are multistep"),
        ({"overlap": 0.9}, "overlap"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        flowsep().separate(torch.zeros(100), 8000, "rain", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction": "noise"}, "prediction"),
        ({"dropout": 1.0}, "dropout"),
        ({"seconds": 0.3}, "frames"),
        ({"seconds": 0.3001}, "multiple of"),
        ({"text": {"name": "bert"}}, "unknown text encoder"),
        ({"text": {"name": "ngrams", "width": 3}}, "text encoder ngrams"),
    ],
)
def test_bad_models(options, message):
    with pytest.raises(ValueError, match=message):
        FlowSep(**{**SMALL, **options})


def test_estimates_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"NaN or infinite: lower temperature, now 1e\+30"):
        flowsep().separate(sound(0.32), 8000, "rain", temperature=1e30)


def test_numpy_is_welcome():
    out = mask_regression().separate(np.zeros(400, np.float64), np.float32(8000), "rain", steps=np.int64(1))
    assert out.sample_rate == 8000
    assert out.samples.dtype == torch.float32


def test_a_frozen_encoder_is_loaded_when_first_used():
    model = FlowSep(**{**SMALL, "text": {"name": "minilm", "channels": 8}})
    assert "text" not in {name.split(".")[0] for name in model.state_dict()}
    model.use_text_encoder(flowsep().text)
    assert model.separate(sound(0.32), 8000, "rain", steps=1).samples.shape == (2560,)
    with pytest.raises(ValueError, match="cannot be replaced"):
        flowsep().use_text_encoder(flowsep().text)
    model.look_for_text_in("nofolder")
    assert model.config()["text"]["source"] == "nofolder"
    with pytest.raises(ValueError, match="cannot be replaced"):
        flowsep().look_for_text_in("nofolder")
    with pytest.raises(ValueError, match="8 channels, not 4"):
        model.use_text_encoder(flowsep(text={"name": "ngrams", "channels": 4, "buckets": 8}).text)


def test_config_defaults_build():
    assert FlowSep().config()["sampling_steps"] == 10
    assert MaskRegression().name == "mask-regression"


def test_sampling_takes_the_steps_recommended(monkeypatch):
    model, asked = flowsep(), []
    model.sampling_steps = 3
    estimate = type(model).estimate
    monkeypatch.setattr(
        type(model),
        "estimate",
        lambda self, mixture, query, *rest: (asked.append(query.steps), estimate(self, mixture, query, *rest))[1],
    )
    mixture = batch(2).mixture
    model.sample(mixture, ["a", "b"])
    model.sample(mixture, ["a", "b"], steps=2)
    assert asked == [3, 3, 2, 2]
