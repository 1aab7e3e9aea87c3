"""Fan charts of forecasts, drawn with matplotlib's object interface: no display, no global state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .metrics import quantiles

__all__ = ["FanChart", "fan_charts", "save_figure"]

_INK, _TRUTH, _MEDIAN, _BAND = "#37474f", "#d81b60", "#0b5394", "#3d85c6"


@dataclass(frozen=True)
class FanChart:
    """One series to be drawn.

    Args:
        title: what it is.
        history: the past, shape `(T,)`, NaN where missing.
        samples: forecast, shape `(S, H)`.
        truth: what happened, shape `(H,)`, or None.
        start: period of the first value of the history, or None for step numbers.
    """

    title: str
    history: NDArray[np.floating]
    samples: NDArray[np.floating]
    truth: NDArray[np.floating] | None = None
    start: pd.Period | None = None


def fan_charts(charts: Sequence[FanChart], columns: int = 2, history: int | None = None, title: str = "") -> Figure:
    """Draws history, truth, median and the central 50 % and 90 % of the samples of several series.

    Args:
        charts: what to draw, at least one.
        columns: charts side by side.
        history: how many steps of the past to show; default three horizons.
        title: of the whole figure.

    Returns:
        A figure on an Agg canvas.
    """
    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    figure = Figure(figsize=(6.4 * columns, 2.9 * rows + (0.4 if title else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, chart in zip(grid.flat, charts, strict=False):
        _draw(axes, chart, history or 3 * chart.samples.shape[1])
    for axes in grid.flat[len(charts) :]:
        axes.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12, color=_INK)
    return figure


def save_figure(figure: Figure, path: str | Path, dpi: int = 120) -> Path:
    """Writes a figure as PNG and returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path


def _draw(axes, chart: FanChart, shown: int) -> None:
    past = np.asarray(chart.history, dtype=np.float64)[-shown:]
    horizon = chart.samples.shape[1]
    times = _times(chart, len(past), horizon)
    before, after = times[: len(past)], times[len(past) :]
    low, inner_low, median, inner_high, high = quantiles(chart.samples[None], (0.05, 0.25, 0.5, 0.75, 0.95))[0]
    axes.axvline(after[0], color=_INK, lw=0.6, ls=":", alpha=0.7)
    axes.plot(before, past, color=_INK, lw=1.1, label="history")
    axes.fill_between(after, low, high, color=_BAND, alpha=0.18, lw=0, label="90 %")
    axes.fill_between(after, inner_low, inner_high, color=_BAND, alpha=0.38, lw=0, label="50 %")
    axes.plot(after, median, color=_MEDIAN, lw=1.5, label="median")
    if chart.truth is not None:
        axes.plot(after, chart.truth, color=_TRUTH, lw=1.1, label="what happened")
    axes.set_title(chart.title, loc="left", fontsize=10, color=_INK)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", lw=0.4, alpha=0.5)
    axes.tick_params(labelsize=8, colors=_INK)
    if chart.start is not None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=10)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _times(chart: FanChart, past: int, horizon: int) -> NDArray:
    if chart.start is None:
        return np.arange(-past, horizon)
    first = chart.start + (len(chart.history) - past)
    return pd.period_range(first, periods=past + horizon, freq=chart.start.freq).to_timestamp().to_numpy()
