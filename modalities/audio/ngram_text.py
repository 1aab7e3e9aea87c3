r"""A small text encoder that is learnt with the model, from nothing: words as means of their character n-grams.

.. math:: h_i = \mathrm{LN}\Big(\frac{1}{|G(w_i)|} \sum_{g \in G(w_i)} E_{\mathrm{hash}(g)} + p_i\Big), \qquad
   h_0 = \mathrm{LN}\Big(s + \frac{1}{n} \sum_i e_i\Big)

G(w) holds the word and its 3- to 5-grams with marked ends, so "barking" and "barks" share most of their parts. The
first state sums up the description; an empty description has no other. For sounds with few names, where no pretrained
encoder is at hand.

Source: Bojanowski et al. 2017, "Enriching word vectors with subword information" (arXiv 1607.04606).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from .text import TextStates, _check_prompts

__all__ = ["NGramEncoder"]


class NGramEncoder(nn.Module):
    """The encoder, trained with the model that uses it.

    Args:
        channels: Channels of the states.
        buckets: Rows of the table that n-grams are hashed into.
        max_words: Words that are read; the rest of a description is left out.
    """

    def __init__(self, channels: int = 64, buckets: int = 4096, max_words: int = 15) -> None:
        super().__init__()
        if min(channels, buckets, max_words) < 1:
            raise ValueError(f"need positive channels, buckets, max_words; got {channels}, {buckets}, {max_words}")
        self._channels, self.buckets, self.max_words = channels, buckets, max_words
        self.table = nn.EmbeddingBag(buckets, channels, mode="mean")
        self.positions = nn.Parameter(0.1 * torch.randn(max_words, channels))
        self.summary = nn.Parameter(0.1 * torch.randn(channels))
        self.norm = nn.LayerNorm(channels)

    @property
    def channels(self) -> int:
        """Channels of the states."""
        return self._channels

    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain values."""
        return {"channels": self._channels, "buckets": self.buckets, "max_words": self.max_words}

    def forward(self, prompts: Sequence[str]) -> TextStates:
        """States `(B, 1 + words of the longest, channels)`."""
        _check_prompts(prompts)
        device = self.summary.device
        rows = [_buckets(prompt, self.buckets, self.max_words) for prompt in prompts]
        counts = torch.tensor([len(row) for row in rows], device=device)
        longest = max(map(len, rows))
        words = [word for row in rows for word in row]
        mask = torch.arange(longest, device=device) < counts[:, None]
        vectors = torch.zeros(len(rows), longest, self._channels, device=device, dtype=self.summary.dtype)
        if words:
            flat = torch.tensor([bucket for word in words for bucket in word], device=device)
            lengths = torch.tensor([0, *(len(word) for word in words[:-1])], device=device)
            vectors = vectors.masked_scatter(mask[..., None], self.table(flat, lengths.cumsum(0)))
        first = self.summary + vectors.sum(1) / counts.clamp(min=1)[:, None]
        states = torch.cat([first[:, None], vectors + self.positions[:longest]], 1)
        counted = torch.cat([torch.ones_like(mask[:, :1]), mask], 1) if longest else _ones(len(rows), device)
        return TextStates(self.norm(states) * counted[..., None], counted)

    def unconditional(self, batch: int) -> TextStates:
        """The states of an empty description: the learnt summary alone."""
        return self([""] * batch)


def _ones(batch: int, device: torch.device) -> Tensor:
    return torch.ones(batch, 1, dtype=torch.bool, device=device)


@lru_cache(maxsize=10_000)
def _buckets(prompt: str, buckets: int, max_words: int) -> tuple[tuple[int, ...], ...]:
    words = re.findall(r"\w+", prompt.lower())[:max_words]
    return tuple(tuple(zlib.crc32(gram.encode()) % buckets for gram in _ngrams(word)) for word in words)


def _ngrams(word: str) -> list[str]:
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    # The whole word has an entry of its own, told apart from an equal n-gram.
    return [f"={marked}", *grams]
