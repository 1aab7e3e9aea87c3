"""Text encoders by description: a stored model names its encoder, and pretrained ones are loaded when first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from .ngram_text import NGramEncoder
from .text import CachedTextEncoder, TextEncoder, TextStates

__all__ = ["FrozenText", "build_text_encoder"]


class FrozenText:
    """A pretrained encoder that is not part of a model's weights: made at its first use, its states remembered.

    Args:
        description: `{name: minilm}` or `{name: flan-t5, source: FOLDER_OR_HUB_NAME}`; `channels` if they are not the
            usual 384 or 1024.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        arguments = dict(description)
        name = arguments.pop("name", None)
        if name not in _PRETRAINED:
            raise ValueError(f"unknown text encoder {name!r}; known are ngrams, {', '.join(_PRETRAINED)}")
        usual, self._make = _PRETRAINED[name]
        self._channels = int(arguments.pop("channels", usual))
        self._description = {"name": name, "channels": self._channels, **arguments}
        self._arguments = arguments
        self._encoder: CachedTextEncoder | None = None

    @property
    def channels(self) -> int:
        """Channels of the states."""
        return self._channels

    def config(self) -> dict[str, Any]:
        """The description."""
        return dict(self._description)

    def use(self, encoder: TextEncoder) -> None:
        """Take this encoder instead of loading one.

        Raises:
            ValueError: Its states have other channels.
        """
        if encoder.channels != self._channels:
            raise ValueError(f"the model was made for text states of {self._channels} channels, not {encoder.channels}")
        self._encoder = CachedTextEncoder(encoder)

    def look_in(self, source: str) -> None:
        """Load the encoder from another folder, or by another hub name, than the description says."""
        self._arguments["source"] = self._description["source"] = source
        self._encoder = None

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """States of B descriptions.

        Raises:
            TextModelError: The encoder or its package is not here.
        """
        return self._loaded()(prompts)

    def unconditional(self, batch: int) -> TextStates:
        """What stands for "no description"."""
        return self._loaded().unconditional(batch)

    def _loaded(self) -> CachedTextEncoder:
        if self._encoder is None:
            self.use(self._make(**self._arguments))
        assert self._encoder is not None
        return self._encoder


def _minilm(**arguments: Any) -> TextEncoder:
    from .pretrained_text import MiniLM

    return MiniLM(**arguments)


def _flan_t5(**arguments: Any) -> TextEncoder:
    from .pretrained_text import FlanT5

    return FlanT5(**arguments)


_PRETRAINED: dict[str, tuple[int, Callable[..., TextEncoder]]] = {"minilm": (384, _minilm), "flan-t5": (1024, _flan_t5)}


class _Learnt(nn.Module):
    """The learnt encoder under a description of its own."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.encoder = NGramEncoder(**arguments)
        self.channels = self.encoder.channels

    def config(self) -> dict[str, Any]:
        return {"name": "ngrams", **self.encoder.config()}

    def forward(self, prompts: Sequence[str]) -> TextStates:
        return self.encoder(prompts)

    def unconditional(self, batch: int) -> TextStates:
        return self.encoder.unconditional(batch)


def build_text_encoder(description: Mapping[str, Any] | None) -> _Learnt | FrozenText:
    """An encoder from its description.

    Args:
        description: `{name: ngrams, channels: 64, buckets: 4096, max_words: 15}` (the default; learnt with the model),
            `{name: minilm}` or `{name: flan-t5, source: google/flan-t5-large}`.

    Raises:
        ValueError: Unknown name or arguments.
    """
    arguments = dict(description or {"name": "ngrams"})
    if arguments.get("name") != "ngrams":
        return FrozenText(arguments)
    arguments.pop("name")
    try:
        return _Learnt(**arguments)
    except TypeError as error:
        raise ValueError(f"text encoder ngrams: {error}") from error
