"""Imputation against the exact posterior of an autoregressive process; plans, tables, mistakes."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracles import draw, exact_model, posterior  # pyright: ignore[reportMissingImports]

from fourfold.modalities.timeseries import LineSearchGuidance, MomentMatchingGuidance, QuantileGuidance, SelfGuidance
from fourfold.modalities.timeseries.imputation import plan_windows
from fourfold.modalities.timeseries.masks import MISSING, hide

H, C = 4, 12


@pytest.mark.parametrize(
    ("guidance", "of_mean", "of_covariance"),
    [(MomentMatchingGuidance(noise=0.02, iterations=8), 0.06, 0.12), (LineSearchGuidance(), 0.3, 0.15)],
    ids=lambda g: getattr(g, "name", ""),
)
@pytest.mark.parametrize("pattern", ["forecast", "block-start", "scattered"])
def test_imputation_is_the_exact_posterior(
    guidance: SelfGuidance, of_mean: float, of_covariance: float, pattern: str
) -> None:
    values = draw(1, H + C)[0]
    gaps = {"forecast": range(12, 16), "block-start": range(5), "scattered": [2, 5, 6, 7, 11, 15]}
    values[list(gaps[pattern])] = np.nan
    mean, law = posterior(values)
    (made,) = exact_model(H, C).impute([values], 1000, guidance=guidance, steps=100)
    drawn = made.samples[:, made.missing]
    assert np.abs(drawn.mean(axis=0) - mean).max() < of_mean
    assert np.abs(np.cov(drawn.T) - law).max() < of_covariance
    assert np.array_equal(made.samples[:, ~made.missing], np.tile(values[~made.missing], (1000, 1)))


def test_gaps_longer_than_a_window_are_filled_from_both_sides() -> None:
    values = draw(1, 90, seed=3)[0]
    values[:25], values[40:70] = np.nan, np.nan
    (made,) = exact_model(H, C).impute(
        [values], 300, guidance=MomentMatchingGuidance(noise=0.02, iterations=8), steps=40
    )
    assert np.isfinite(made.samples).all()
    # next to a known value the process is close to it, far from all it is what it is without any
    assert np.abs(made.samples[:, 24] - values[25]).mean() < 0.6
    assert made.samples[:, 55].std() == pytest.approx(1, abs=0.2)
    assert abs(np.corrcoef(made.samples[:, 54], made.samples[:, 55])[0, 1] - 0.9) < 0.1


def test_plans_cover_every_gap_once_and_always_have_something_to_go_on_from() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        total, length = int(rng.integers(3, 120)), int(rng.integers(4, 24))
        missing = np.repeat(rng.random(total) < 0.5, rng.integers(1, 30, total))[:total]
        missing = np.pad(missing, (0, total - len(missing)), constant_values=True)
        missing[rng.integers(total)] = False
        left = missing.copy()
        for begin, positions in plan_windows(missing, length):
            inside = np.arange(max(begin, 0), min(begin + length, total))
            assert np.isin(positions, inside).all()
            # what is filled has context on its far side, too, unless the series ends there
            assert begin + length >= total or positions[-1] < begin + length - length // 4
            assert left[positions].all()
            assert not left[inside].all(), "nothing observed in a window"
            left[positions] = False
        assert not left.any()


def test_tables_in_and_out() -> None:
    index = pd.date_range("2024-01-01", periods=40, freq="h")
    table = pd.DataFrame(draw(2, 40, seed=1).T, index=index, columns=["a", "b"])
    table.loc[index[10:13], "a"] = np.nan
    made = exact_model(H, C).impute(table, 50)
    assert [one.item_id for one in made] == ["a", "b"]
    frame = made[0].frame()
    assert list(frame.index.astype(str)) == ["2024-01-01 10:00", "2024-01-01 11:00", "2024-01-01 12:00"]
    assert (frame["q0.05"] < frame["q0.95"]).all()
    assert np.array_equal(made[1].filled(), table["b"].to_numpy())
    assert np.isfinite(made[0].filled()).all()
    again = exact_model(H, C).impute(table[["a"]], 50)
    np.testing.assert_allclose(again[0].samples, made[0].samples, atol=1e-5)
    other = exact_model(H, C).impute(table[["a"]], 50, seed=1)
    assert not np.allclose(again[0].samples, other[0].samples)
    (series,) = exact_model(H, C).impute(table["a"], 5, guidance=QuantileGuidance(4.0))
    assert series.item_id == "a"


def test_bad_tables_are_named() -> None:
    model, index = exact_model(H, C), pd.date_range("2024-01-01", periods=20, freq="h")
    good = pd.DataFrame({"a": np.arange(20.0)}, index=index)
    with pytest.raises(ValueError, match="2024-01-01 03:00:00 occurs more than once"):
        model.impute(good.set_index(index[[0, 1, 2, 3, 3, *range(5, 20)]]))
    with pytest.raises(ValueError, match="one regular step"):
        model.impute(good.drop(index[[4, 7, 8]]))
    with pytest.raises(ValueError, match="must hold dates or periods"):
        model.impute(good.reset_index(drop=True))
    with pytest.raises(ValueError, match="'a' has no observed value"):
        model.impute(good * np.nan)
    with pytest.raises(ValueError, match="column 'a' holds something that is not a number"):
        model.impute(good.astype(object).where(good != 3, "three"))
    with pytest.raises(ValueError, match="num_samples"):
        model.impute(good, 0)


def test_patterns_of_missing_values() -> None:
    values, rng = np.arange(30.0), np.random.default_rng(0)
    gone = {p: np.flatnonzero(np.isnan(hide(values, p, 5, 12, rng))).tolist() for p in MISSING}
    assert gone["none"] == []
    assert gone["block-start"] == list(range(18, 23))
    assert gone["block-end"] == list(range(25, 30))
    assert len(gone["random"]) == 5
    assert min(gone["random"]) >= 18
    assert np.isfinite(values).all()
    with pytest.raises(ValueError, match="unknown pattern"):
        hide(values, "checkers", 5, 12, rng)
    with pytest.raises(ValueError, match="cannot hide 12 of a context of 12"):
        hide(values, "random", 12, 12, rng)
