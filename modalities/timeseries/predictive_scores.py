r"""What synthetic windows are worth: to a linear model trained on them, and to a thief.

Linear predictive score: a ridge regression (alpha = 1, with intercept) from c inputs to H outputs is fitted to the
windows; real windows are divided by the mean magnitude of their context, predicted, and multiplied back. The score is
ND = sum |y^ - y| / sum |y|, which for a point forecast is the CRPS. In closed form, with centred X and Y,

    W = (X^T X + alpha 1)^-1 X^T Y.

Memorisation: the distance of a synthetic window to its nearest neighbour among the windows the model was trained on,
and among as many held-out ones. A model that has learnt the law and not the data is as near to the one as to the other.

Source: `Kollovieh et al. 2023 <https://arxiv.org/abs/2307.11494>`_, section 4.3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Memorisation", "RidgeForecaster", "linear_predictive_score", "memorisation", "train_on_synthetic"]


@dataclass(frozen=True)
class RidgeForecaster:
    """A linear forecaster of scaled windows.

    Args:
        weights: shape `(c, H)`.
        intercept: shape `(H,)`.
    """

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]

    @classmethod
    def fit(cls, windows: NDArray[np.floating], context: int, alpha: float = 1.0) -> "RidgeForecaster":
        """Fits windows `(N, c + H)`.

        Raises:
            ValueError: for windows with missing values or without a horizon.
        """
        if windows.ndim != 2 or not 0 < context < windows.shape[1]:
            raise ValueError(f"windows of shape {windows.shape} do not consist of a context of {context} and a horizon")
        if not np.isfinite(windows).all():
            raise ValueError("a linear model cannot be fitted to windows with missing values")
        x, y = (np.asarray(part, dtype=np.float64) for part in (windows[:, :context], windows[:, context:]))
        mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
        centred = x - mean_x
        weights = np.linalg.solve(centred.T @ centred + alpha * np.eye(context), centred.T @ (y - mean_y))
        return cls(weights, mean_y - mean_x @ weights)

    def forecast(self, past: NDArray[np.floating]) -> NDArray[np.float64]:
        """Forecasts `(M, H)` in units of the user from contexts `(M, c)`."""
        scale = np.abs(past).mean(axis=1, keepdims=True)
        scale = np.where(scale > 0, scale, 1.0)
        return (past / scale @ self.weights + self.intercept) * scale


def linear_predictive_score(
    windows: NDArray[np.floating], real: NDArray[np.floating], context: int, alpha: float = 1.0
) -> float:
    """ND on real windows of a linear model trained on synthetic ones; lower is better.

    Args:
        windows: training windows, scaled by the mean magnitude of their context, shape `(N, c + H)`.
        real: real windows in units of the user, shape `(M, c + H)`.
        context: c.
        alpha: strength of the ridge.
    """
    made = RidgeForecaster.fit(windows, context, alpha).forecast(real[:, :context])
    return float(np.abs(made - real[:, context:]).sum() / np.abs(real[:, context:]).sum())


def train_on_synthetic(
    synthetic: NDArray[np.floating], train: NDArray[np.floating], test: NDArray[np.floating], context: int
) -> dict[str, float]:
    """The score of synthetic windows beside that of real training windows and of repeating the last value.

    Args:
        synthetic: in any units, shape `(N, c + H)`; scaled here by the mean magnitude of each context.
        train: real training windows in units of the user, shape `(M, c + H)`.
        test: real test windows in units of the user.
        context: c.
    """

    def scaled(windows: NDArray[np.floating]) -> NDArray[np.float64]:
        scale = np.abs(windows[:, :context]).mean(axis=1, keepdims=True)
        return windows / np.where(scale > 0, scale, 1.0)

    truth = test[:, context:]
    return {
        "trained on synthetic": linear_predictive_score(scaled(synthetic), test, context),
        "trained on real": linear_predictive_score(scaled(train), test, context),
        "last value": float(np.abs(test[:, context - 1 : context] - truth).sum() / np.abs(truth).sum()),
    }


@dataclass(frozen=True)
class Memorisation:
    """Distances to nearest neighbours, root mean square per step.

    Args:
        to_training: of every synthetic window to the training windows, shape `(N,)`.
        to_held_out: of every synthetic window to as many held-out windows.
        share_nearer_to_training: 0.5 for a model that has not memorised, 1 for one that copies.
        copies: fraction of synthetic windows that are nearer to a training window than 99 % of the held-out windows
            are; 0.01 for a model that has not memorised.
    """

    to_training: NDArray[np.float64]
    to_held_out: NDArray[np.float64]
    share_nearer_to_training: float
    copies: float


def memorisation(
    synthetic: NDArray[np.floating], training: NDArray[np.floating], held_out: NDArray[np.floating], seed: int = 0
) -> Memorisation:
    """Whether synthetic windows are copies of training windows.

    Args:
        synthetic: shape `(N, L)`; all three in the same (scaled) units.
        training: shape `(M, L)`.
        held_out: shape `(K, L)`, from the same law, not seen in training.
        seed: of the choice of windows where one set is larger: more neighbours are nearer ones.
    """
    size = min(len(training), len(held_out))
    if size < 2 or not synthetic.shape[1:] == training.shape[1:] == held_out.shape[1:]:
        raise ValueError(
            f"need at least two windows of the same length in each set, got shapes {synthetic.shape}, {training.shape} "
            f"and {held_out.shape}"
        )
    rng = np.random.default_rng(seed)
    seen, unseen = (windows[rng.permutation(len(windows))[:size]] for windows in (training, held_out))
    near, far, usual = _nearest(synthetic, seen), _nearest(synthetic, unseen), _nearest(unseen, seen)
    share = float((near < far).mean() + 0.5 * (near == far).mean())
    return Memorisation(near, far, share, float((_nearest(synthetic, training) < np.quantile(usual, 0.01)).mean()))


def _nearest(windows: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    a, b = np.asarray(windows, dtype=np.float64), np.asarray(others, dtype=np.float64)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares.min(axis=1), 0) / a.shape[1])
