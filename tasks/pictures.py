"""Pictures of what the model can do, while it learns: in samples/ and in TensorBoard."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from .runs import RunFolder
from .task import DiffusionTask


class SamplePictures(Callback):
    """Draws `task.figures()` at the end of validation epochs, when the averaged weights are in place.

    Args:
        run: Where the PNG files go.
        every_n_epochs: Validation epochs between two sets of pictures.
    """

    def __init__(self, run: RunFolder, every_n_epochs: int = 1) -> None:
        self._run = run
        self._every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wanted = trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.is_global_zero
        if not wanted or trainer.current_epoch % self._every_n_epochs or not isinstance(pl_module, DiffusionTask):
            return
        for name, figure in pl_module.figures().items():
            self._run.samples.mkdir(parents=True, exist_ok=True)
            path = self._run.samples / f"{name}-step{trainer.global_step:07d}.png"
            figure.savefig(path, dpi=100, bbox_inches="tight")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, global_step=trainer.global_step, close=False)
            figure.clear()
