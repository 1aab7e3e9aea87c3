from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gluonts.dataset.common import ListDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MeanWeightedSumQuantileLoss
from gluonts.model import evaluate_model
from gluonts.model.predictor import Predictor
from lightning.pytorch import Callback, Trainer

from fourfold.modalities.timeseries import TSDiffEstimator, TSDiffPredictor

pytestmark = pytest.mark.filterwarnings("ignore")


def estimator(
    folder: Path, freq: str = "h", trainer: dict[str, object] | None = None, **kwargs: object
) -> TSDiffEstimator:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "default_root_dir": str(folder),
    }
    return TSDiffEstimator(
        freq=freq,
        prediction_length=6,
        context_length=18,
        model={"hidden": 8, "modes": 2, "blocks": 1, "sampling_steps": 4, "calendar": ["hour_of_day", "month_of_year"]},
        batch_size=8,
        num_batches_per_epoch=3,
        num_samples=11,
        trainer_kwargs={**({"max_epochs": 2} if trainer is None else trainer), "accelerator": "cpu", **quiet},
        **kwargs,
    )


def dataset(freq: str = "h", lengths: tuple[int, ...] = (60, 45)) -> ListDataset:
    rng = np.random.default_rng(0)
    targets = [np.sin(np.arange(n) / 4) + 3 + 0.1 * rng.normal(size=n) for n in lengths]
    targets[0][10:14] = np.nan
    return ListDataset(
        [{"target": t, "start": "2021-03-01", "item_id": f"item{i}"} for i, t in enumerate(targets)], freq=freq
    )


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> TSDiffPredictor:
    made = estimator(tmp_path_factory.mktemp("fit")).train(dataset(), validation_data=dataset(), cache_data=True)
    assert isinstance(made, TSDiffPredictor)
    return made


def test_forecasts_are_what_gluonts_expects(predictor: TSDiffPredictor) -> None:
    made = list(predictor.predict(dataset()))
    assert [f.samples.shape for f in made] == [(11, 6)] * 2
    assert [f.item_id for f in made] == ["item0", "item1"]
    assert made[0].start_date == pd.Period("2021-03-01", freq="h") + 60
    for count in (1, 7, 23):
        assert {f.num_samples for f in predictor.predict(dataset(), num_samples=count)} == {count}
    assert np.isfinite(made[0].quantile(0.9)).all()


def test_serialise_round_trip_is_identical(predictor: TSDiffPredictor, tmp_path: Path) -> None:
    predictor.serialize(tmp_path)
    loaded = Predictor.deserialize(tmp_path)
    assert isinstance(loaded, TSDiffPredictor)
    for ours, theirs in zip(predictor.predict(dataset()), loaded.predict(dataset()), strict=True):
        assert np.array_equal(ours.samples, theirs.samples)
        assert ours.start_date == theirs.start_date
        assert ours.item_id == theirs.item_id


def test_evaluate_model_and_training_on(predictor: TSDiffPredictor, tmp_path: Path) -> None:
    _, template = split(dataset(), offset=-12)
    test_data = template.generate_instances(prediction_length=6, windows=2)
    table = evaluate_model(
        predictor,
        test_data=test_data,
        metrics=[MeanWeightedSumQuantileLoss(quantile_levels=[0.1, 0.5, 0.9])],
        axis=None,
    )
    assert np.isfinite(table["mean_weighted_sum_quantile_loss"].iloc[0])
    further = estimator(tmp_path).train_from(predictor, dataset())
    assert isinstance(further, TSDiffPredictor)
    assert not np.array_equal(next(further.predict(dataset())).samples, next(predictor.predict(dataset())).samples)


@pytest.mark.parametrize("freq", ["30min", "B", "W-SUN", "M", "QE", "D"])
def test_any_frequency(freq: str, tmp_path: Path) -> None:
    freq = {"QE": "Q"}.get(freq, freq)
    made = list(estimator(tmp_path, freq).train(dataset(freq)).predict(dataset(freq)))
    assert made[1].start_date == pd.Period("2021-03-01", freq=freq) + 45
    assert made[1].samples.shape == (11, 6)


def test_short_series_are_counted_and_reported(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 3 series left out of training, shorter than 24 steps: item1, item2"):
        estimator(tmp_path).train(dataset(lengths=(60, 20, 23)))
    with pytest.raises(ValueError, match="choose a shorter context_length"):
        estimator(tmp_path).train(dataset(lengths=(20, 23)))


def test_training_is_reproducible_and_seeded(tmp_path: Path) -> None:
    one, two, other = (
        next(estimator(tmp_path / str(i), seed=seed).train(dataset()).predict(dataset())).samples
        for i, seed in enumerate((3, 3, 4))
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_data_of_another_frequency_are_refused(predictor: TSDiffPredictor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item item0 has the frequency 'D', the model is one of 'h'"):
        estimator(tmp_path).train(dataset("D"))
    with pytest.raises(ValueError, match="item item0 has the frequency 'D', the model is one of 'h'"):
        next(predictor.predict(dataset("D")))
    assert len(list(predictor.predict(dataset("60min")))) == 2
    predictor.serialize(tmp_path)
    with pytest.raises(ValueError, match="the model is one of 'h'"):
        next(TSDiffPredictor.deserialize(tmp_path).predict(dataset("D")))


def test_starts_are_dates_texts_or_periods(predictor: TSDiffPredictor, tmp_path: Path) -> None:
    values = 3 + np.sin(np.arange(60) / 4)
    starts = [pd.Period("2021-03-01", "h"), pd.Timestamp("2021-03-01"), "2021-03-01 00:00", np.datetime64("2021-03-01")]
    given = [[{"target": values, "start": start, "item_id": "a"}] for start in starts]
    made = [next(predictor.predict(data)) for data in given]
    assert all(f.start_date == made[0].start_date for f in made)
    assert all(np.array_equal(f.samples, made[0].samples) for f in made)
    trained = estimator(tmp_path).train(given[2])
    assert np.isfinite(next(trained.predict(given[1])).samples).all()
    model = predictor.model
    for data in given[1:]:
        with pytest.raises(ValueError, match=r"item a: `start` must be a pd.Period, .* got"):
            model.forecast(data, 2)
    with pytest.raises(ValueError, match="`start` is no date: 'soon'"):
        next(predictor.predict([{"target": values, "start": "soon", "item_id": "a"}]))
    with pytest.raises(ValueError, match="position 0: `start` must be"):
        model.forecast([{"target": values}], 2)


class Rates(Callback):
    """Notes the learning rate of every step, and stops after `last` of them."""

    def __init__(self, last: int) -> None:
        self.noted: list[float] = []
        self.last = last

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        self.noted.append(trainer.optimizers[0].param_groups[0]["lr"])
        trainer.should_stop = len(self.noted) >= self.last


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": -1, "max_steps": 20}, 20),
        ({"max_epochs": None, "max_steps": 20}, 20),
        ({"max_epochs": 2, "max_steps": 20}, 6),
        ({"max_epochs": 100, "max_steps": 20}, 20),
        ({"max_steps": 20}, 20),
        ({"max_epochs": 7}, 21),
        ({"max_epochs": 7, "accumulate_grad_batches": 3}, 7),
        ({}, 30),
    ],
    ids=str,
)
def test_learning_rate_falls_over_the_steps_the_trainer_does(
    limits: dict[str, int], steps: int, tmp_path: Path
) -> None:
    estimator(tmp_path, trainer={**limits, "callbacks": [rates := Rates(100)]}, lr=1e-3).train(dataset())
    per_step = limits.get("accumulate_grad_batches", 1)
    warmup = max(1, steps / 10)
    expected = [
        1e-3 * min(1, (i + 1) / warmup) * (1 + np.cos(np.pi * i / steps)) / 2
        for i in range(steps)
        for _ in range(per_step)
    ]
    np.testing.assert_allclose(rates.noted, expected, rtol=1e-6)


def test_learning_rate_stays_where_the_number_of_steps_is_not_known(tmp_path: Path) -> None:
    trainer = {"max_time": "00:01:00:00", "callbacks": [rates := Rates(60)]}
    estimator(tmp_path, trainer=trainer, lr=1e-3).train(dataset())
    assert rates.noted[:2] == pytest.approx([1e-3 / 50, 2e-3 / 50])
    assert set(rates.noted[49:]) == {1e-3}
