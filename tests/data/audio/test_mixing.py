"""Mixtures: levels, ratios, disjoint partners, silence, determinism; the data module and its exact resume."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fourfold.data.audio import MixingSettings, Mixtures, SeparationDataModule, SyntheticEvents, collate, mix
from fourfold.data.audio.bank import UnusableSound
from fourfold.data.audio.disjoint import DisjointLabels
from fourfold.data.audio.mixing import _draw
from fourfold.data.errors import DataError


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


class Labelled:
    """Items with given labels; the sound of item i is noise around its own constant power."""

    sample_rate = 1000

    def __init__(self, labels, silent=(), damaged=()):
        self._labels, self.silent, self.damaged = [frozenset(names) for names in labels], silent, damaged

    def __len__(self):
        return len(self._labels)

    def labels(self, item):
        return self._labels[item]

    def captions(self, item):
        return (f"item {item}", f"the other words for {item}")

    def groups(self):
        return [np.asarray([i]) for i in range(len(self))]

    def source(self, item):
        return f"{item}.wav"

    def draw(self, item, rng, length):
        if item in self.damaged:
            raise UnusableSound(f"{item}.wav: damaged")
        return np.zeros(length, np.float32) if item in self.silent else rng.standard_normal(length).astype(np.float32)


def level(wave):
    return 10 * math.log10(float(np.mean(wave.astype(np.float64) ** 2)))


def test_ratio_peak_and_level():
    settings = MixingSettings(seconds=1, min_snr=-7, max_snr=11, min_sources=2, max_sources=4, peak=0.4)
    bank = SyntheticEvents()
    snrs = []
    for seed in range(30):
        m = mix(bank, settings, rng(seed))
        assert m.mixture.dtype == m.target.dtype == np.float32
        assert np.abs(m.mixture).max() == pytest.approx(0.4, rel=1e-5)
        # The target as it is inside the mixture: what remains has the promised ratio to it.
        assert level(m.target) - level(m.mixture - m.target) == pytest.approx(m.snr, abs=1e-3)
        assert 1 <= len(m.others) <= 3
        snrs.append(m.snr)
    assert min(snrs) < -3 < 7 < max(snrs)
    assert {round(snr) for snr in snrs} != set(snrs)


def test_number_of_sources_is_uniform():
    settings = MixingSettings(seconds=0.1, min_sources=2, max_sources=5)
    bank = Labelled("abcdefg")
    counts = np.bincount([1 + len(mix(bank, settings, rng(seed)).others) for seed in range(200)])
    assert (counts[2:] > 30).all()


def test_partners_share_no_label():
    bank = Labelled([{"dog", "rain"}, {"dog"}, {"rain", "wind"}, {"wind"}, {"bell"}])
    settings = MixingSettings(seconds=0.1, max_sources=3)
    for seed in range(100):
        m = mix(bank, settings, rng(seed))
        items = [int(m.query.split()[-1]), *(int(other.split()[-1]) for other in m.others)]
        heard = [label for item in items for label in bank.labels(item)]
        assert len(heard) == len(set(heard))


def test_too_few_classes():
    with pytest.raises(DataError, match=r"at least 3 sounds \(data.mixing.min_sources\).*; there are 2"):
        Mixtures(Labelled([{"a"}, {"a", "b"}, {"b"}]), MixingSettings(min_sources=3, max_sources=3), seed=0)
    with pytest.raises(DataError, match="there are 1"):
        Mixtures(Labelled([{"a"}, {"a", "b"}]), MixingSettings(), seed=0)


@pytest.mark.parametrize(
    ("labels", "most"),
    [
        (["bell", "rain", "bell;rain"], 2),
        (["bell;rain", "bell", "rain"], 2),
        (["a;b", "c;d", "a;c", "b;d", "e"], 3),
        (["a;b", "b;c", "c;a"], 1),
        (["a;x", "b;y", "a;b", "x;c", "y;d"], 3),
        (["a"], 1),
    ],
)
def test_largest_number_without_a_common_label(labels, most):
    disjoint = DisjointLabels(Labelled([names.split(";") for names in labels]))
    assert disjoint.most(10) == most
    assert disjoint.most(1) == 1
    assert disjoint.most(10, frozenset("abcdexy") | {"bell", "rain"}) == 0


def test_many_captions_are_counted_quickly():
    words = rng().integers(400, size=(3000, 8))
    disjoint = DisjointLabels(Labelled([{"man", *map(str, row)} for row in words] + [{"dog"}, {"dog", "bark"}]))
    assert disjoint.most(5) == 2


def test_as_many_sounds_as_the_labels_allow():
    settings = MixingSettings(seconds=0.1, max_sources=3, silence_share=0.3)
    pairs = Mixtures(Labelled("ab"), settings, seed=0)
    made = [pairs[i] for i in range(60)]
    assert {len(m.others) for m in made} == {1}
    assert {m.snr == -math.inf for m in made} == {True, False}
    assert all(m.query.split()[-1] not in " ".join(m.others) for m in made)


@pytest.mark.parametrize("labels", [[{"a", "b"}, {"b"}, {"a"}], [{"bell", "rain", "dog"}, {"bell"}, {"rain"}, {"dog"}]])
def test_a_sound_that_excludes_all_others_is_never_mixed(labels):
    for cycle in (False, True):
        pairs = Mixtures(Labelled(labels), MixingSettings(seconds=0.1), seed=0, size=50, cycle=cycle)
        with pytest.warns(match="no sound of 'item 0' can be asked for") if cycle else nullcontext():
            queries = {pairs[i].query.split()[-1] for i in range(50)}
        assert queries == {str(i) for i in range(1, len(labels))}


def test_few_that_can_be_mixed_among_many():
    bank = Labelled([{"bell", "rain"}] * 3000 + [{"bell"}, {"rain"}])
    pairs = Mixtures(bank, MixingSettings(seconds=0.1), seed=0)
    assert {pairs[i].query.split()[-1] for i in range(10)} == {"3000", "3001"}


def test_partners_leave_room_for_others():
    """With {a, b} as a partner of c there is no third sound."""
    bank = Labelled([{"a", "b"}, {"a"}, {"b"}, {"c"}])
    settings = MixingSettings(seconds=0.1, min_sources=3, max_sources=3)
    for seed in range(40):
        assert len(mix(bank, settings, rng(seed)).others) == 2


def test_silent_and_damaged_items_are_drawn_again():
    bank = Labelled("abcd", silent={1}, damaged={2})
    for seed in range(40):
        m = mix(bank, MixingSettings(seconds=0.1), rng(seed))
        assert not {"1", "2"} & {text.split()[-1] for text in (m.query, *m.others)}
        assert np.isfinite(m.mixture).all()
    with pytest.raises(DataError, match=r"nothing audible .*(0.wav is silent, 1.wav is damaged|1.*0.wav is silent)"):
        mix(Labelled("ab", silent={0}, damaged={1}), MixingSettings(seconds=0.1), rng())


def test_a_class_without_a_usable_sound_is_named_and_replaced():
    pairs = Mixtures(Labelled("abcd", silent={1}), MixingSettings(seconds=0.1), seed=0, size=8, cycle=True)
    with pytest.warns(match=r"no sound of 'item 1' can be asked for, another is \(1.wav is silent\)"):
        queries = [pairs[i].query.split()[-1] for i in range(8)]
    assert [q for i, q in enumerate(queries) if i % 4 != 1] == ["0", "2", "3", "0", "2", "3"]
    assert queries[1] != "1"


def test_asked_for_something_absent():
    bank = Labelled("abcd")
    settings = MixingSettings(seconds=0.1, silence_share=0.5)
    silent = [m for m in (mix(bank, settings, rng(seed)) for seed in range(100)) if m.snr == -math.inf]
    assert 30 < len(silent) < 70
    for m in silent:
        assert not m.target.any()
        assert np.abs(m.mixture).max() == pytest.approx(0.5)
        assert len(m.others) == 2
        assert m.query.split()[-1] not in {other.split()[-1] for other in m.others}


def test_pure_function_of_seed_and_number():
    settings = MixingSettings(seconds=0.5)
    a, b = (Mixtures(SyntheticEvents(), settings, seed=4) for _ in range(2))
    b[3]
    assert np.array_equal(a[7].mixture, b[7].mixture)
    assert a[7].query == b[7].query
    assert not np.array_equal(a[7].mixture, a[8].mixture)
    assert not np.array_equal(a[7].mixture, Mixtures(SyntheticEvents(), settings, seed=5)[7].mixture)


def test_fixed_pairs_go_through_the_classes():
    bank = Labelled("abcde")
    pairs = Mixtures(bank, MixingSettings(seconds=0.1, plain_captions=True), seed=0, size=10, cycle=True)
    assert [m.query for m in (pairs[i] for i in range(10))] == [f"item {i % 5}" for i in range(10)]
    with pytest.raises(IndexError):
        pairs[10]


def test_descriptions_vary_in_training():
    bank = Labelled("ab")
    queries = {mix(bank, MixingSettings(seconds=0.1), rng(seed)).query for seed in range(40)}
    assert queries == {"item 0", "item 1", "the other words for 0", "the other words for 1"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_sources": 1}, "2 <= min_sources"),
        ({"min_snr": 3, "max_snr": 2}, "min_snr <= max_snr"),
        ({"seconds": 0}, "seconds"),
        ({"silence_share": 1}, "silence_share"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixingSettings(**settings)


def trainer(epoch=0, processed=0):
    progress = SimpleNamespace(is_last_batch=False, current=SimpleNamespace(processed=processed))
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(world_size=1, global_rank=0, current_epoch=epoch, fit_loop=loop)


def module(**changes):
    data = SeparationDataModule(
        **{"batch_size": 3, "batches_per_epoch": 4, "mixing": MixingSettings(seconds=0.3), "seed": 5, **changes}
    )
    data.setup()
    return data


def test_batches():
    data = module()
    batch = next(iter(data.val_dataloader()))
    assert len(batch) == 3
    assert batch.mixture.shape == batch.target.shape == (3, 4800)
    assert batch.mixture.dtype == torch.float32
    assert len(batch.queries) == len(batch.others) == len(batch.snr) == 3
    assert len(batch.to("cpu")) == 3
    assert "synthetic: 10 kinds" in data.protocol
    assert "SNR U(-5, 5) dB" in data.protocol


def test_validation_is_the_same_every_time_and_not_the_test():
    first, again = ([*module().val_dataloader()] for _ in range(2))
    assert all(torch.equal(a.mixture, b.mixture) for a, b in zip(first, again, strict=True))
    assert sum(map(len, first)) == 60
    test = next(iter(module().test_dataloader()))
    assert not torch.equal(first[0].mixture, test.mixture)


def test_resumes_bitwise():
    whole, late = module(), module()
    whole.trainer, late.trainer = trainer(epoch=1), trainer(epoch=1, processed=2)
    expected = [*whole.train_dataloader()]
    rest = [*late.train_dataloader()]
    assert [len(expected), len(rest)] == [4, 2]
    for a, b in zip(expected[2:], rest, strict=True):
        assert torch.equal(a.mixture, b.mixture)
        assert torch.equal(a.target, b.target)
        assert a.queries == b.queries
    other = module()
    other.trainer = trainer(epoch=2)
    assert not torch.equal(next(iter(other.train_dataloader())).mixture, expected[0].mixture)


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, index, float(batch.mixture.sum()), batch.queries))
        return self.layer(batch.mixture[:, :1]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def test_resumes_in_a_trainer(tmp_path):
    def run(steps, checkpoint=None):
        model = Recorder()
        saving = ModelCheckpoint(tmp_path, "step", every_n_train_steps=5, enable_version_counter=False)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            max_steps=steps, accelerator="cpu", callbacks=[saving], use_distributed_sampler=False, **quiet
        )
        trainer.fit(model, module(), ckpt_path=checkpoint)
        return model.seen

    # Four steps are an epoch: the checkpoint lies inside the second.
    whole, begun = run(9), run(5)
    assert begun + run(9, tmp_path / "step.ckpt") == whole
    assert len({seen[2] for seen in whole}) == 9


def test_workers_do_not_matter():
    alone, two = module(), module(num_workers=2)
    for a, b in zip(alone.val_dataloader(), two.val_dataloader(), strict=True):
        assert torch.equal(a.mixture, b.mixture)


def test_collate():
    bank = Labelled("abc")
    batch = collate([mix(bank, MixingSettings(seconds=0.1), rng(seed)) for seed in range(2)])
    assert batch.mixture.shape == (2, 100)


def test_bad_arguments(tmp_path):
    for arguments, message in [
        ({"folder": "a", "csv": "b"}, "one of data.folder"),
        ({"name": None}, r"give the sounds themselves .* or a data set \(data.name\)"),
        ({"batch_size": 0}, "at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            SeparationDataModule(**arguments)
    with pytest.raises(RuntimeError, match="after setup"):
        _ = SeparationDataModule().data
    with pytest.raises(DataError, match="no such folder"):
        SeparationDataModule(folder=str(tmp_path / "x")).setup()


def test_speed_changes_pitch_within_its_bounds():
    settings = MixingSettings(seconds=0.5, speed_spread=0.3)
    bank = SyntheticEvents(["bell", "engine"])
    plain, varied = (Mixtures(bank, s, seed=3) for s in (MixingSettings(seconds=0.5), settings))
    assert not np.allclose(plain[0].mixture, varied[0].mixture)
    assert np.array_equal(varied[1].target, varied[1].target)

    class Tone:
        sample_rate = 8000

        def draw(self, item, rng, length):
            return np.sin(2 * np.pi * 500 * np.arange(length) / 8000).astype(np.float32)

    found = []
    for seed in range(40):
        wave = _draw(Tone(), 0, rng(seed), 8000, 0.3)
        assert len(wave) == 8000
        found.append(int(np.abs(np.fft.rfft(wave)).argmax()))
    assert 500 * np.exp(-0.3) - 2 <= min(found) < 420
    assert 600 < max(found) <= 500 * np.exp(0.3) + 2


def test_validation_keeps_the_speed():
    module = SeparationDataModule(mixing=MixingSettings(seconds=0.3, speed_spread=0.5), validation_size=2)
    other = SeparationDataModule(mixing=MixingSettings(seconds=0.3), validation_size=2)
    for each in (module, other):
        each.setup()
    assert np.array_equal(module.validation_mixtures()[0].mixture, other.validation_mixtures()[0].mixture)


def test_speed_spread_is_checked():
    with pytest.raises(ValueError, match="speed_spread"):
        MixingSettings(speed_spread=1.5)
