"""What a trained model is good for besides forecasts, on real data, and pictures of it.

    python benchmarks/forecasting_uses.py runs/exported pedestrian                     # every table
    python benchmarks/forecasting_uses.py runs/exported pedestrian --parts refine --deepar 130
    python benchmarks/forecasting_uses.py runs/exported pedestrian --parts pictures --images docs/images

The model is a folder that `forecasting export` wrote. Parts:

- refine: forecasts of the seasonal naive method, of a ridge regression and of DeepAR, before and after refinement. Step
  sizes are chosen on the last horizons of the training series, which the model did not see.
- synthesize: linear predictive score; DeepAR trained on synthetic windows and on as many real ones (`--deepar` CPU-s).
- impute: a hidden horizon in the middle of a window, beside linear interpolation and the week before.
- anomalies: single values and flat days planted into test series; area under the ROC curve.
- memorise: nearest neighbours of synthetic windows among training windows and among windows never seen.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from forecasting_table import train_deepar

import fourfold
from fourfold.data.timeseries import ForecastingData, load_dataset
from fourfold.data.timeseries.collection import rolling_windows, truth_of
from fourfold.modalities.timeseries import (
    LangevinRefinement,
    LineSearchGuidance,
    MaximumLikelihoodRefinement,
    QuantileGuidance,
    Refinement,
    TSDiff,
)
from fourfold.modalities.timeseries.baselines import seasonal_naive
from fourfold.modalities.timeseries.histories import histories
from fourfold.modalities.timeseries.metrics import coverage, crps
from fourfold.modalities.timeseries.plots import FanChart, fan_charts, save_figure
from fourfold.modalities.timeseries.predictive_scores import RidgeForecaster, memorisation, train_on_synthetic
from fourfold.modalities.timeseries.refinement import past_time
from fourfold.modalities.timeseries.synthesis import real_windows

Entries = Sequence[Any]
METHODS: dict[str, Callable[[float], Refinement]] = {
    "LMC-Q": lambda eta: LangevinRefinement("quantile", eta),
    "LMC-MSE": lambda eta: LangevinRefinement("squared", eta),
    "ML-Q": lambda eta: MaximumLikelihoodRefinement("quantile", eta),
    "ML-MSE": lambda eta: MaximumLikelihoodRefinement("squared", eta),
}
STEP_SIZES = (0.01, 0.03, 0.1)


class Bench:
    """A model, its data, and how many samples and test entries to use.

    Args:
        model: the model.
        data: its data set.
        entries: test entries to use, evenly spaced; None for all.
        samples: samples per series.
        seconds: CPU seconds that DeepAR is trained for, 0 to leave it out.
    """

    def __init__(self, model: TSDiff, data: ForecastingData, entries: int | None, samples: int, seconds: float) -> None:
        self.model, self.data, self.samples, self.seconds = model, data, samples, seconds
        chosen = np.arange(len(data.test))
        if entries:
            chosen = np.unique(np.linspace(0, len(data.test) - 1, entries).round().astype(int))
        self.inputs, self.truth = [data.inputs()[i] for i in chosen], data.truth()[chosen]

    def refine(self) -> Iterator[str]:
        """Rows of forecasts before and after refinement."""
        horizon, context = self.data.prediction_length, self.model.context_length
        _, held = rolling_windows(self.data.train, horizon, 2, horizon)
        held = [e for e in held if np.isfinite(e["target"][-horizon:]).any()]
        known = [{**e, "target": e["target"][:-horizon]} for e in held]
        tau = past_time(self.model, list(histories(self.inputs)), windows=256)
        yield f"tau = {tau:g}, {len(known)} past windows to choose by, {self.samples} samples.\n"
        yield "| base | CRPS | " + " | ".join(METHODS) + " |\n|---|---|" + "---|" * len(METHODS)
        for name, forecast in self._bases(horizon, context).items():
            base, before = forecast(self.inputs), forecast(known)
            cells = []
            for make in METHODS.values():
                trials = {eta: self._refined(known, before, make(eta), tau) for eta in STEP_SIZES}
                eta = min(trials, key=lambda key: crps(trials[key], truth_of(held, horizon)))
                made = self._refined(self.inputs, base, make(eta), tau)
                cells.append(f"{crps(made, self.truth):.4g} (step {eta:g})")
            yield f"| {name} | {crps(base, self.truth):.4g} | " + " | ".join(cells) + " |"

    def _bases(self, horizon: int, context: int) -> dict[str, Callable[[Entries], Any]]:
        season = self.data.season
        windows = real_windows(self.data.train, context + horizon, 4000, context=context)
        ridge = RidgeForecaster.fit(windows, context)

        def naive(entries: Entries) -> Any:
            return seasonal_naive([e["target"] for e in entries], horizon, season)

        def linear(entries: Entries) -> Any:
            past = np.stack([_filled(e["target"])[-context:] for e in entries])
            return ridge.forecast(past)[:, None]

        bases: dict[str, Callable[[Entries], Any]] = {f"seasonal naive ({season})": naive, "linear (ridge)": linear}
        if self.seconds:
            predictor = train_deepar(self.data, self.seconds, 0)

            def deepar(entries: Entries) -> Any:
                return np.stack([f.samples for f in predictor.predict(entries, num_samples=self.samples)])

            bases[f"DeepAR ({self.seconds:.0f} CPU-s)"] = deepar
        return bases

    def _refined(self, entries: Entries, base: Any, method: Refinement, tau: float) -> Any:
        copies = base if base.shape[1] > 1 else np.repeat(base, self.samples, axis=1)
        return np.asarray(self.model.refine(entries, copies, method=method, tau=tau))

    def synthesize(self) -> Iterator[str]:
        """Scores of models trained on synthetic windows."""
        model, horizon = self.model, self.data.prediction_length
        context, length = model.context_length, model.length
        begin = time.process_time()
        made = model.synthesize(2000, like=self.data.train)
        seconds = time.process_time() - begin
        ends = [np.concatenate((e["target"][-context:], t)) for e, t in zip(self.inputs, self.truth, strict=True)]
        test = np.stack([w for w in ends if np.isfinite(w).all()])
        real = real_windows(self.data.train, length, 2000)
        yield f"2000 windows in {seconds:.0f} CPU-s; {len(test)} complete test windows.\n"
        yield "| | ND, linear |\n|---|---|"
        for name, value in train_on_synthetic(made.values, real, test, context).items():
            yield f"| {name} | {value:.4g} |"
        if not self.seconds:
            return
        yield f"\n| DeepAR, {self.seconds:.0f} CPU-s, trained on | CRPS |\n|---|---|"
        entries = made.entries(self.data.freq)
        options = {"lags_seq": _lags(horizon, context), "time_features": [], "context_length": horizon}
        for name, windows in (("synthetic windows", made.values), ("real windows", real)):
            # Without time features the dates, which are those of the synthetic windows, play no part.
            train = [{**e, "target": w} for e, w in zip(entries, windows, strict=True)]
            predictor = train_deepar(replace(self.data, train=train), self.seconds, 0, **options)
            drawn = np.stack([f.samples for f in predictor.predict(self.inputs, num_samples=100)])
            yield f"| {name} | {crps(drawn, self.truth):.4g} |"

    def impute(self) -> Iterator[str]:
        """CRPS of a hidden horizon in the middle of a window."""
        length, horizon = self.model.length, self.data.prediction_length
        first = (length - horizon) // 2
        whole = [(e, e["target"][-length:]) for e in self.data.inputs()]
        whole = [(e, v) for e, v in whole if np.isfinite(v).all()][:: max(1, len(whole) // 16)]
        truth = np.stack([v[first : first + horizon] for _, v in whole])
        hidden = []
        for e, values in whole:
            gap = values.copy()
            gap[first : first + horizon] = np.nan
            hidden.append({**e, "target": gap, "start": e["start"] + len(e["target"]) - length})
        edges = [first - 1, first + horizon]
        line = np.stack([np.interp(np.arange(first, first + horizon), edges, v[edges]) for _, v in whole])
        yield f"{len(whole)} windows of {length} steps, {horizon} hidden from step {first} on, 40 samples.\n"
        yield "| method | CRPS | coverage of the 0.1 / 0.5 / 0.9 quantiles | CPU-s per series |\n|---|---|---|---|"
        yield f"| linear interpolation | {crps(line[:, None], truth):.4g} | point | |"
        season = self.data.season
        before = [e["target"][len(e["target"]) - length + first - season :][:horizon] for e, _ in whole]
        yield f"| {season} steps before | {crps(np.nan_to_num(np.stack(before))[:, None], truth):.4g} | point | |"
        choices: dict[str, Any] = {
            "moment matching (default)": None,
            "line search": LineSearchGuidance(),
            "quantile, scale of forecasts": self.model.guidance,
        }
        for name, guidance in choices.items():
            begin = time.process_time()
            made = self.model.impute(hidden, 40, guidance=guidance)
            seconds = (time.process_time() - begin) / len(hidden)
            drawn = np.stack([m.samples[:, first : first + horizon] for m in made])
            below = " / ".join(f"{v:.2f}" for v in coverage(drawn, truth).values())
            yield f"| {name} | {crps(drawn, truth):.4g} | {below} | {seconds:.2f} |"

    def anomalies(self) -> Iterator[str]:
        """Areas under the ROC curve of planted anomalies."""
        horizon, season, rng = self.data.prediction_length, self.data.season, np.random.default_rng(0)
        latest = {str(e["item_id"]): e for e in self.data.test}
        yield "| planted | anomaly_score | distance to the value a season before |\n|---|---|---|"
        for kind in ("single values x 3 or / 3", "flat stretches"):
            ours, theirs = [], []
            for e in latest.values():
                cut = min(len(e["target"]), 24 * horizon + season)
                values = e["target"][-cut:].copy()
                planted = np.zeros(cut, dtype=bool)
                if kind.startswith("single"):
                    places = season + rng.permutation(cut - season)[: (cut - season) // 50]
                    values[places] *= np.where(rng.random(len(places)) < 0.5, 3.0, 1 / 3)
                    planted[places] = True
                else:
                    for begin in season + rng.permutation((cut - season) // horizon - 1)[:3] * horizon:
                        values[begin : begin + horizon] = np.nanmean(values[begin : begin + horizon])
                        planted[begin : begin + horizon] = True
                (score,) = self.model.anomaly_score(
                    [{**e, "target": values, "start": e["start"] + len(e["target"]) - cut}]
                )
                before = np.abs(values[season:] - values[:-season])
                known = np.isfinite(score[season:]) & np.isfinite(before)
                ours.append(_area(score[season:][known], planted[season:][known]))
                theirs.append(_area(before[known], planted[season:][known]))
            yield f"| {kind} | {np.mean(ours):.3f} | {np.mean(theirs):.3f} |"

    def memorise(self) -> Iterator[str]:
        """Whether synthetic windows are copies."""
        length, context = self.model.length, self.model.context_length
        held_out = self.data.prediction_length * 20
        train = [{**e, "target": e["target"][: -held_out - length]} for e in self.data.train]
        latest = {str(e["item_id"]): e for e in self.data.test}
        unseen = [
            {**e, "target": e["target"][-(len(e["target"]) - len(t["target"])) :]}
            for t in self.data.train
            for e in [latest.get(str(t["item_id"]), t)]
            if len(e["target"]) > len(t["target"])
        ]
        made = self.model.synthesize(1000, like=self.data.train).values
        scale = np.abs(made[:, :context]).mean(axis=1, keepdims=True)
        seen = real_windows(train, length, 4000, context=context)
        fresh = real_windows(unseen, length, 4000, context=context, seed=1)
        yield "| 1000 windows | nearer to training than to unseen windows | nearer to training than 99 % of unseen |"
        yield "|---|---|---|"
        noisy = seen[:1000] + 0.05 * np.random.default_rng(0).normal(size=(1000, length))
        other = real_windows(train, length, 1000, context=context, seed=2)
        for name, windows in (
            ("synthetic", made / np.where(scale > 0, scale, 1)),
            ("other windows of the same past", other),
            ("training windows with noise 0.05", noisy),
        ):
            found = memorisation(windows, seen, fresh)
            yield f"| {name} | {found.share_nearer_to_training:.3f} | {found.copies:.3f} |"

    def pictures(self, folder: Path) -> Iterator[str]:
        """Guidance off and on, refinement before and after; synthetic windows beside real ones."""
        model, horizon = self.model, self.data.prediction_length
        some = [i for i in range(len(self.inputs)) if np.isfinite(self.truth[i]).all()]
        pick = some[len(some) // 2]
        entry, truth = self.inputs[pick], self.truth[pick]
        base = seasonal_naive([entry["target"]], horizon, self.data.season)
        # Bands need samples: the seasonal naive forecast with the errors it made in the past.
        errors = entry["target"][self.data.season :] - entry["target"][: -self.data.season]
        errors = errors[np.isfinite(errors)][-50 * horizon :]
        noisy = base + np.random.default_rng(0).choice(errors, size=(1, 100, horizon))
        refined = np.asarray(model.refine([entry], noisy, method=LangevinRefinement("quantile", 0.03)))
        off, on = (
            model.forecast([entry], 100, guidance=g)[0].samples  # pyright: ignore
            for g in (QuantileGuidance(0.0), model.guidance)
        )
        panels = {"guidance off": off, "guidance on": on, "base, noisy": noisy[0], "base, refined": refined[0]}
        charts = [FanChart(n, entry["target"], np.asarray(s), truth, entry["start"]) for n, s in panels.items()]
        yield str(save_figure(fan_charts(charts), folder / f"timeseries-{self.data.name}-uses.png", dpi=80))
        yield str(self._synthetic_beside_real(folder / f"timeseries-{self.data.name}-synthetic.png"))

    def _synthetic_beside_real(self, path: Path) -> Path:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        made = self.model.synthesize(6, like=self.data.train, seed=3).values
        real = real_windows(self.data.train, self.model.length, 6, seed=3)
        figure = Figure(figsize=(12.8, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        for row, axes in enumerate(figure.subplots(3, 4)):
            for column, ax in enumerate(axes):
                name, windows, color = (("real", real, "#37474f"), ("synthetic", made, "#0b5394"))[column // 2]
                ax.plot(windows[2 * row + column % 2], color=color, lw=1)
                ax.set_title(name if row == 0 else "", loc="left", fontsize=9)
                ax.spines[["top", "right"]].set_visible(False)
                ax.tick_params(labelsize=7)
        return save_figure(figure, path, dpi=80)


def _filled(values: Any) -> Any:
    known = np.isfinite(values)
    return np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])


def _lags(horizon: int, context: int) -> list[int]:
    return sorted({1, 2, 3, *range(horizon, context - horizon + 1, horizon)})


def _area(score: Any, planted: Any) -> float:
    """Area under the ROC curve: how often a planted value scores above another one."""
    from scipy.stats import mannwhitneyu

    statistic = mannwhitneyu(score[planted], score[~planted]).statistic
    return float(statistic / planted.sum() / (~planted).sum())


def main() -> None:
    """Prints the tables, or draws the pictures."""
    parts = ("refine", "synthesize", "impute", "anomalies", "memorise", "pictures")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or name of a trained model")
    parser.add_argument("data", help="name of its data set")
    parser.add_argument("--root", help="folder of data sets")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--entries", type=int, help="only so many test entries, evenly spaced")
    parser.add_argument("--samples", type=int, default=16, help="samples in refinement")
    parser.add_argument("--deepar", type=float, default=0, help="CPU seconds that DeepAR is trained for; 0: none")
    parser.add_argument("--images", type=Path, default=Path("runs/pictures"), help="where pictures go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = fourfold.load(options.model)
    if not isinstance(model, TSDiff):
        raise SystemExit(f"{options.model} holds a {type(model).__name__}, not a TSDiff")
    data = load_dataset(options.data, options.root)
    bench = Bench(model, data, options.entries, options.samples, options.deepar)
    print(f"{data.protocol}; {len(bench.inputs)} entries used")
    for part in options.parts:
        print(f"\n## {part}\n")
        for line in bench.pictures(options.images) if part == "pictures" else getattr(bench, part)():
            print(line, flush=True)


if __name__ == "__main__":
    main()
