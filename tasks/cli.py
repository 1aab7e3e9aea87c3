"""The command line of a task: LightningCLI with its traps closed.

- a checkpoint never changes what the command line says;
- `--ckpt_path last` means the file last.ckpt of the run folder, in a new process too;
- the configuration used is saved with the run, and a resume never overwrites it;
- classes may be named only from an allow-list, and configurations are never fetched from the network;
- options cannot be abbreviated; a user's mistake gives a few lines and a status that is not 0.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..data.errors import DataError
from ..modalities.missing import MissingPart
from ..modalities.registry import UnknownAdapter
from ..modalities.storage import ModelFolderError
from . import COMMANDS
from .checkpoints import read_checkpoint
from .errors import UserError
from .parser import FriendlyParser, NamedConfig
from .runs import RunFolder, run_folder
from .snapshots import ConfigSnapshot, RunLock, TakeBack
from .task import DiffusionTask
from .trainer import TaskTrainer, quieten, run_trainer

ALLOWED_IMPORTS = (
    "fourfold",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.profilers",
    "lightning.pytorch.plugins",
    "torch.optim",
    "torch.nn",
)

EXPECTED_ERRORS = (
    UserError,
    DataError,
    MissingPart,
    ModelFolderError,
    UnknownAdapter,
    MisconfigurationException,
    OSError,
)

INTERRUPTED, TERMINATED = 130, 143


class TaskCLI(LightningCLI):
    """One task's commands; use `run_cli`.

    Args:
        task: Name of the task, as in runs/TASK/NAME.
        model_class: The task's LightningModule; its arguments are the keys `model.*`.
        datamodule_class: The task's data module; its arguments are the keys `data.*`.
        trainer_class: Gives the commands beyond Lightning's: methods named in `fourfold.tasks.COMMANDS`.
        data_subclasses: Let `data` name any subclass of `datamodule_class` (then its keys are `data.init_args.*`).
        args: The arguments after `fourfold TASK`.
    """

    def __init__(
        self,
        task: str,
        model_class: type[DiffusionTask],
        datamodule_class: type[LightningDataModule],
        *,
        trainer_class: type[TaskTrainer] = TaskTrainer,
        data_subclasses: bool = False,
        args: ArgsType = None,
    ) -> None:
        self.task = task
        self.run = RunFolder(Path("runs") / task)
        self._attempt: AbstractContextManager[object] = nullcontext()
        strict = {"allow_abbrev": False}
        super().__init__(
            model_class,
            datamodule_class,
            trainer_class=trainer_class,
            trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False, "log_every_n_steps": 10},
            save_config_callback=None,
            seed_everything_default=42,
            parser_class=FriendlyParser,
            parser_kwargs={
                "default_env": True,
                "env_prefix": "FOURFOLD",
                "prog": f"fourfold {task}",
                **strict,
                **{command: dict(strict) for command in self.subcommands()},
            },
            subclass_mode_data=data_subclasses,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Commands and the arguments of their methods that are not options."""
        given = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders", "weights_only"}
        more = {"predict": {"return_predictions"}, "export": {"overwrite"}}
        return {command: given | more.get(command, set()) for command in COMMANDS}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c", "--config", action=NamedConfig, help="YAML file, or a name of `fourfold configs`; several compose."
        )
        return parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int, default=42, help="Seed of the run.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("seed_everything", "model.seed")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        use = "to write (default: the config's name)" if subcommand == "fit" else "to take config and weights from"
        parser.add_argument(
            "--run", type=str | None, default=None, help=f"Run folder, or NAME for runs/TASK/NAME, {use}."
        )
        if subcommand == "export":
            parser.add_argument("--overwrite", action="store_true", help="Replace a saved model in the folder.")
        if subcommand == "fit":
            parser.add_argument("--overwrite", action="store_true", help="Start anew in a run folder that is in use.")
            parser.add_argument("--checkpoint_every", type=int, default=200, help="Steps between writes of last.ckpt.")
            parser.add_argument("--picture_every", type=int, default=1, help="Validation epochs between pictures.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        if not isinstance(args, list):
            raise TypeError("arguments must be a list of strings")
        self.config = parser.parse_args(self._with_config_of_run(args))
        command = self.config.subcommand
        if command is None:
            parser.error(f"a command is needed: {', '.join(COMMANDS)}")
        settings = self.config[command]
        self.run = self._run_of(command, settings)
        settings.ckpt_path = self._checkpoint_of(command, settings)

    def _parse_ckpt_path(self) -> None:
        """Nothing. Lightning's would let hyper-parameters in a checkpoint override the command line."""

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            # Constructors refuse values with these; the values are the user's.
            raise UserError(f"{error}{self._culprit(str(error))}") from error

    def _culprit(self, message: str) -> str:
        # A constructor says "width must be positive"; the key of that name, if the user has set one, says where.
        command = str(self.subcommand)
        words = set(re.findall(r"\w+", message))
        parser = cast(FriendlyParser, self._parser(command))
        for key in vars(self.config[command].as_flat()):
            place = parser.place(key) if key.rpartition(".")[2] in words else None
            if place:
                return f" ({key.replace('.init_args', '')}; {place})"
        return ""

    def instantiate_trainer(self, **kwargs: Any) -> TaskTrainer:
        settings = self.config[str(self.subcommand)]
        trainer = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        if self.subcommand != "fit":
            given = {**trainer, "default_root_dir": str(self.run.path), "logger": False}
            return cast(type[TaskTrainer], self.trainer_class)(**given)
        snapshot = ConfigSnapshot(self._parser("fit"), settings, self.run)
        own: list[Callback] = []
        if not trainer.get("fast_dev_run"):
            lock = RunLock(self.run)
            self._attempt = attempt = TakeBack(self.run, lock)
            own = [lock, attempt, snapshot]
        callbacks = trainer.pop("callbacks", None) or []
        return run_trainer(
            self.run.path,
            trainer_class=cast(type[TaskTrainer], self.trainer_class),
            monitor=self.model.monitor,
            checkpoint_every=settings.checkpoint_every,
            picture_every=settings.picture_every,
            callbacks=[*own, *callbacks],
            **trainer,
        )

    def _run_subcommand(self, subcommand: str) -> None:
        with self._attempt:
            super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "export":
            return kwargs | {"overwrite": self.config[subcommand].overwrite}
        return kwargs | ({"weights_only": True} if subcommand in ("fit", "validate", "test", "predict") else {})

    def _with_config_of_run(self, args: Sequence[str]) -> list[str]:
        # `--run` of a finished run brings its configuration; whatever else is given comes later and wins.
        run = _option(args, "--run")
        has_config = any(arg in ("-c", "--config") or arg.startswith("--config=") for arg in args)
        command = next((i for i, arg in enumerate(args) if arg in COMMANDS), None)
        if command is None or has_config or "--help" in args or "-h" in args:
            return list(args)
        if run is None:
            if args[command] != "fit":
                raise UserError(f"{args[command]} needs a trained run: --run NAME{_known_runs(self.task)}")
            return list(args)
        config = run_folder(self.task, run).config
        if not config.is_file():
            if args[command] == "fit":
                return list(args)
            raise UserError(f"{config.parent} is not a run: it has no {config.name}{_known_runs(self.task)}")
        return [*args[: command + 1], "--config", str(config), *args[command + 1 :]]

    def _run_of(self, command: str, settings: Namespace) -> RunFolder:
        if settings.run is not None:
            return run_folder(self.task, settings.run)
        if command == "fit":
            files = self._parser(command).config_files  # pyright: ignore[reportAttributeAccessIssue]
            return run_folder(self.task, files[-1].stem if files else "default")
        checkpoint = Path(settings.ckpt_path or "")
        return RunFolder(checkpoint.parent.parent if checkpoint.is_file() else Path("runs") / self.task)

    def _checkpoint_of(self, command: str, settings: Namespace) -> str | None:
        wanted = settings.ckpt_path
        if command == "fit":
            return self._checkpoint_to_continue(wanted, settings)
        if wanted is None and settings.run is not None:
            wanted = "best" if self.run.best.exists() else "last"
        if wanted is None:
            raise UserError(f"{command} needs trained weights: --run NAME or --ckpt_path FILE{_known_runs(self.task)}")
        path = {"best": self.run.best, "last": self.run.last}.get(wanted, Path(wanted))
        read_checkpoint(path)
        return str(path)

    def _checkpoint_to_continue(self, wanted: str | None, settings: Namespace) -> str | None:
        if wanted in ("last", "best"):
            path = self.run.last if wanted == "last" else self.run.best
            if not path.exists():
                print(f"no {path} yet: starting from the beginning", flush=True)
                return None
            read_checkpoint(path)
            return str(path)
        if wanted is not None:
            read_checkpoint(wanted)
            return wanted
        if self.run.used() and not settings.overwrite and not settings.trainer.fast_dev_run:
            raise UserError(
                f"{self.run.path} already holds a run: continue it with --ckpt_path last, choose another folder with "
                "--run NAME, or start anew with --overwrite"
            )
        return None


def run_cli(
    task: str,
    model_class: type[DiffusionTask],
    datamodule_class: type[LightningDataModule],
    args: Sequence[str] | None = None,
    *,
    trainer_class: type[TaskTrainer] = TaskTrainer,
    data_subclasses: bool = False,
) -> int:
    """Run one command of a task as a program would.

    Args:
        task: Name of the task.
        model_class: Its LightningModule.
        datamodule_class: Its data module.
        args: Arguments after `fourfold TASK`; default: those of the process.
        trainer_class: Gives additional commands or other options of `sample` and `evaluate`.
        data_subclasses: See `TaskCLI`.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong command line or configuration, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        allow_imports(_pop_options(words, "--allow"), {model_class, datamodule_class})
        quieten()
        TaskCLI(
            task,
            model_class,
            datamodule_class,
            trainer_class=trainer_class,
            data_subclasses=data_subclasses,
            args=words,
        )
    except EXPECTED_ERRORS as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if type(error) is UserError or isinstance(error, MisconfigurationException) else 1
    except (SIGTERMException, KeyboardInterrupt) as error:
        return _stopped(error)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _stopped(stop.__context__)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def allow_imports(extra: Sequence[str] = (), classes: set[type] = frozenset()) -> None:  # pyright: ignore[reportArgumentType]
    """Let configurations name classes of fourfold and of a few torch and Lightning modules only.

    Without this list even a refused `class_path` has its module imported, that is, run.

    Args:
        extra: More packages to trust, from `--allow` or FOURFOLD_ALLOW_IMPORTS; never from a configuration.
        classes: Classes whose modules are trusted because the program itself names them.
    """
    environment = [name for name in os.environ.get("FOURFOLD_ALLOW_IMPORTS", "").split(",") if name]
    own = [cls.__module__ for cls in classes if not cls.__module__.startswith("fourfold.")]
    set_parsing_settings(
        config_read_mode_fsspec_enabled=False,
        config_read_mode_urls_enabled=False,
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"],
        import_path_allowlist=[*ALLOWED_IMPORTS, *environment, *extra, *own],
    )


def one_line(error: BaseException) -> str:
    """An error's message as one line of at most 600 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:600]


def _stopped(error: BaseException) -> int:
    name, status = ("SIGTERM", TERMINATED) if isinstance(error, SIGTERMException) else ("Ctrl-C", INTERRUPTED)
    print(f"stopped by {name}; continue with the same command and --ckpt_path last", file=sys.stderr)
    return status


def _option(args: Sequence[str], name: str) -> str | None:
    value = None
    for i, arg in enumerate(args):
        if arg.startswith(f"{name}="):
            value = arg.partition("=")[2]
        elif arg == name and i + 1 < len(args):
            value = args[i + 1]
    return value


def _pop_options(args: list[str], name: str) -> list[str]:
    values = []
    while (value := _option(args, name)) is not None:
        values.append(value)
        i = next(i for i, arg in enumerate(args) if arg == name or arg.startswith(f"{name}="))
        del args[i : i + (2 if args[i] == name else 1)]
    return values


def _known_runs(task: str) -> str:
    runs = sorted(path.parent.name for path in (Path("runs") / task).glob("*/config.yaml"))
    return f"; runs here: {', '.join(runs[:8])}" if runs else ""
