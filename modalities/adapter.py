"""The contract between the diffusion core and one kind of data.

An adapter owns its paths, denoisers and units, and speaks the user's types at its border (waveforms, graphs,
GluonTS data sets, trajectories). A task trains one, a user samples from one, a folder stores one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

if TYPE_CHECKING:
    from ..core import NoiseSource


class Adapter(nn.Module, ABC):
    """A trainable generative model of one kind of data.

    A subclass sets `name`, is decorated with `fourfold.modalities.registry.register` (which is how `fourfold.load`
    finds it again; import paths are never stored), and rebuilds itself from `config()`.
    """

    name: ClassVar[str]

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments as plain JSON values: `type(self)(**self.config())` has the same state-dict keys."""

    @abstractmethod
    def loss(self, batch: Any, noise: NoiseSource) -> Tensor:
        """Training loss of every sample.

        Args:
            batch: What the task's data module yields, `B` samples.
            noise: The only source of randomness (noise, diffusion times), one identity per sample.

        Returns:
            Loss per sample, shape `(B,)`.
        """

    @abstractmethod
    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Draw samples and return the user's objects; subclasses say which arguments they take."""

    def save(
        self, folder: str | Path, *, card: dict[str, Any] | None = None, max_megabytes: float | None = None
    ) -> Path:
        """Write model.safetensors, config.json, a README.md card and a manifest of sha256 sums.

        Args:
            folder: Created, or replaced if it already holds a saved model; any other content is never overwritten.
            card: Facts for the model card (data, licence, metrics, protocol ...), as plain values.
            max_megabytes: Round weights to 16 bits, and the largest matrices to 8 until the file is no larger than this
                many million bytes; default: as they are. Measure afterwards what that cost.

        Returns:
            The folder.

        Raises:
            ModelFolderError: The folder holds something else.
            ValueError: The weights do not fit into `max_megabytes`.
        """
        from .storage import save_adapter

        return save_adapter(self, folder, card=card, max_megabytes=max_megabytes)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder written by `save`, after checking its manifest.

        Raises:
            ModelFolderError: Missing, damaged or too new folder, or a model of another class.
        """
        from .storage import ModelFolderError, load_adapter

        adapter = load_adapter(folder)
        if not isinstance(adapter, cls):
            raise ModelFolderError(f"{folder} holds a {type(adapter).__name__}, not a {cls.__name__}")
        return adapter


def load(name_or_folder: str | Path) -> Adapter:
    """Load a model by zoo name, folder or hub id; see `fourfold.modalities.zoo.load`."""
    from .zoo import load as load_by_name

    return load_by_name(name_or_folder)
