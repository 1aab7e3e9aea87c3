import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fourfold.modalities.timeseries.plots import FanChart, fan_charts, save_figure


@pytest.mark.parametrize("freq", ["h", "30min", "D", "W", "M", "Y"])
def test_fan_chart_is_drawn_without_global_state_or_complaint(freq: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    history = rng.normal(size=80).cumsum()
    history[40:44] = np.nan
    samples, truth = rng.normal(size=(50, 24)).cumsum(1), rng.normal(size=24)
    start = pd.Period("2020-01-01", freq=freq)
    charts = [
        FanChart("a", history, samples, truth, start),
        FanChart("b", history, samples),
        FanChart("c", history[:3], samples),
    ]
    backend = matplotlib.get_backend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = fan_charts(charts, title="three")
        file = save_figure(figure, tmp_path / "deep" / "a.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert matplotlib.get_backend() == backend
    drawn, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == ["history", "90 %", "50 %", "median", "what happened"]
    median = drawn[labels.index("median")].get_ydata()
    assert np.allclose(median, np.sort(samples, axis=0)[round(49 * 0.5)])
    assert sum(axes.get_visible() for axes in figure.axes) == 3
