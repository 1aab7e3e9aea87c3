"""One LightningModule and one command line per task. This file is the table of tasks and imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskEntry:
    """A task the `fourfold` command offers."""

    module: str
    summary: str
    commands: dict[str, str] = field(default_factory=dict)
    """Commands beyond COMMANDS, and what they do."""


TASKS: dict[str, TaskEntry] = {
    "autoencoding": TaskEntry(
        "fourfold.tasks.autoencoding", "first stages of audio models: autoencoders of mel spectrograms"
    ),
    "forecasting": TaskEntry("fourfold.tasks.forecasting", "probabilistic forecasts of time series"),
    "graphs": TaskEntry("fourfold.tasks.graphs", "generation of graphs and molecules"),
    "separation": TaskEntry(
        "fourfold.tasks.separation",
        "separation of sounds by describing them",
        {"separate": "keep what a description asks for in a recording: MIXTURE QUERY -o OUT"},
    ),
    "trajectories": TaskEntry(
        "fourfold.tasks.trajectories",
        "forecasts and generation of the motion of particles, molecules and people",
        {"animate": "forecasts as predict makes them, with a GIF and a page with a time slider"},
    ),
    "vocoding": TaskEntry("fourfold.tasks.vocoding", "vocoders: mel spectrograms to sound"),
}

COMMANDS: dict[str, str] = {
    "fit": "train a model; --ckpt_path last continues a stopped run",
    "validate": "loss of a trained model on the validation data",
    "test": "loss and metrics of a trained model on the test data",
    "predict": "predictions for data without targets",
    "sample": "draw samples from a trained model into a folder",
    "evaluate": "measure a trained model by its task's protocol, beside the baselines",
    "export": "save a trained model as a folder that fourfold.load reads",
}
