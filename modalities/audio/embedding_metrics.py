r"""How sounds are heard by a pretrained listener: distances of distributions, and whether the right thing is heard.

With means and covariances of embeddings of two sets

.. math:: F = |\mu_a - \mu_b|^2 + \mathrm{tr}\big(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2}\big)

which falls with the number of sounds: compare values of equal numbers only, beside the floor of two halves of real
ones. The hit rate is the share of estimates in which a tagger finds the queried class likelier than that of the
mixture's other sound; CLAP scores are cosines of its embeddings of sounds and words. These judge vocoders, too, which
sample-wise ratios cannot.

Source: Kilgour et al. 2019, "Fréchet audio distance" (arXiv 1812.08466); Wu et al. 2023 for CLAP (arXiv 2211.06687).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..missing import MissingPart
from .files import resample

__all__ = ["Clap", "ListenerError", "Tagger", "frechet_distance", "hit_rate", "nearest_class", "tag_scores"]

_CLAP_RATE = 48_000


class ListenerError(MissingPart):
    """A pretrained listener or its package is not here; the message says how to get it."""


class Tagger(Protocol):
    """A network that says what is heard."""

    classes: Sequence[str]
    """Names of its K classes."""

    def __call__(self, wave: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
        """Embeddings `(B, D)` and class logits `(B, K)` of sounds `(B, L)`."""
        ...


def frechet_distance(a: Tensor, b: Tensor, components: int | None = 64) -> float:
    """F of two sets of embeddings.

    Args:
        a: `(N, D)`.
        b: `(M, D)`.
        components: Principal components of both sets together that are kept, so that covariances of a few hundred
            sounds have full rank; None keeps all.

    Raises:
        ValueError: Fewer than two sounds in a set, or different D.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"need (N, D) and (M, D) with N, M >= 2, got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    if components is not None and components < a.shape[1]:
        together = torch.cat([a, b])
        centre = together.mean(0)
        _, _, basis = torch.linalg.svd(together - centre, full_matrices=False)
        a, b = ((x - centre) @ basis[:components].T for x in (a, b))
    mean = (a.mean(0) - b.mean(0)).square().sum()
    first, second = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(a.shape[1], -1)
    # tr sqrt(AB) = sum of the roots of the eigenvalues of sqrt(A) B sqrt(A), which is symmetric.
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((mean + first.trace() + second.trace() - 2 * cross).clamp(min=0))


def nearest_class(query: str, classes: Sequence[str]) -> int | None:
    """The class whose name shares most word beginnings with a description; None if none shares any."""
    asked = _stems(query)
    shared = [len(asked & _stems(name)) / max(1, len(_stems(name))) for name in classes]
    best = max(range(len(classes)), key=shared.__getitem__)
    return best if shared[best] > 0 else None


def tag_scores(tagger: Tagger, wave: Tensor, sample_rate: int, queries: Sequence[str]) -> Tensor:
    """Logit of each sound's queried class, `(B,)`; NaN where the tagger knows no such class."""
    _, logits = tagger(wave, sample_rate)
    found = [nearest_class(query, tagger.classes) for query in queries]
    rows = [row[k] if k is not None else row.new_tensor(torch.nan) for row, k in zip(logits, found, strict=True)]
    return torch.stack(rows)


def hit_rate(
    tagger: Tagger, estimate: Tensor, sample_rate: int, queries: Sequence[str], others: Sequence[str]
) -> float:
    """Share of estimates `(B, L)` that sound more like their query than like the other sound of their mixture."""
    _, logits = tagger(estimate, sample_rate)
    hits = []
    for row, query, other in zip(logits, queries, others, strict=True):
        wanted, unwanted = nearest_class(query, tagger.classes), nearest_class(other, tagger.classes)
        if wanted is not None and unwanted is not None and wanted != unwanted:
            hits.append(bool(row[wanted] > row[unwanted]))
    return sum(hits) / len(hits) if hits else float("nan")


class Clap:
    """CLAP through transformers: cosines of sounds with words, and of sounds with sounds.

    Args:
        source: Folder with the model and its processor, or a name on the model hub.

    Raises:
        ListenerError: The package or the weights are not here.
    """

    def __init__(self, source: str | Path) -> None:
        if find_spec("transformers") is None:
            raise ListenerError("CLAP scores need transformers: pip install 'fourfold[text]'")
        # transformers imports torchaudio where it is installed, and falls over its compiled half without this.
        from . import torchaudio_compat  # noqa: F401, I001
        from transformers import ClapModel, ClapProcessor  # pyright: ignore[reportMissingImports]

        local = Path(source).is_dir()
        try:
            self._model: Any = ClapModel.from_pretrained(str(source), local_files_only=local).eval()
            self._processor: Any = ClapProcessor.from_pretrained(str(source), local_files_only=local)
        except (OSError, ValueError) as error:
            raise ListenerError(f"cannot load CLAP from {source}: {str(error).strip().splitlines()[0]}") from error

    @torch.no_grad()
    def sounds(self, wave: Tensor, sample_rate: int) -> Tensor:
        """Unit embeddings `(B, D)` of sounds `(B, L)`."""
        at_rate = resample(wave.float().cpu(), sample_rate, _CLAP_RATE)
        inputs = self._processor(audio=[w.numpy() for w in at_rate], sampling_rate=_CLAP_RATE, return_tensors="pt")
        return _unit(self._model.get_audio_features(**inputs))

    @torch.no_grad()
    def words(self, queries: Sequence[str]) -> Tensor:
        """Unit embeddings `(B, D)` of descriptions."""
        inputs = self._processor(text=list(queries), return_tensors="pt", padding=True)
        return _unit(self._model.get_text_features(**inputs))

    def scores(self, estimate: Tensor, target: Tensor, queries: Sequence[str], sample_rate: int) -> dict[str, Tensor]:
        """`clap` (estimate and words) and `clap_audio` (estimate and target), `(B,)` each."""
        heard = self.sounds(estimate, sample_rate)
        return {
            "clap": (heard * self.words(queries)).sum(1),
            "clap_audio": (heard * self.sounds(target, sample_rate)).sum(1),
        }


def _unit(features: Any) -> Tensor:
    values = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(values, dim=-1)


def _stems(text: str) -> frozenset[str]:
    words = "".join(c.lower() if c.isalpha() else " " for c in text).split()
    return frozenset(word[:4] for word in words if len(word) > 2 and word not in ("the", "and", "sound", "sounds"))
