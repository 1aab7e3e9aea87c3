"""The `fourfold` command. It knows the tasks but imports nothing heavy until one of their commands runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from . import __version__
from .tasks import COMMANDS, TASKS

_USAGE = """usage: fourfold TASK COMMAND --config NAME_OR_FILE [options]
       fourfold demo | configs | zoo | convert KIND FILE [COMPANION] OUT [--overwrite]

Diffusion and flow models for audio, graphs, time series and trajectories.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    # Waiting threads sleep instead of spinning: on a busy machine small networks are many times faster so.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help", "help"):
        return _say(_help())
    first, rest = words[0], words[1:]
    if first in ("--version", "-V"):
        print(f"fourfold {__version__}")
        return 0
    others = {"configs": _configs, "zoo": _zoo, "convert": _convert, "demo": _demo}
    if first in others:
        return others[first](rest)
    if first not in TASKS:
        return _fail(f"unknown task or command {first!r}{_near(first, [*TASKS, *others])}; see: fourfold --help")
    if not rest or rest[0] in ("-h", "--help", "help"):
        return _say(_task_help(first))
    known = {**COMMANDS, **TASKS[first].commands}
    if not rest[0].startswith("-") and rest[0] not in known:
        return _fail(f"unknown command {rest[0]!r}{_near(rest[0], known)}; see: fourfold {first} --help")
    return int(import_module(TASKS[first].module).main(rest) or 0)


def _help() -> str:
    lines = [_USAGE, "tasks:"]
    lines += [f"  {name:14} {entry.summary}" for name, entry in TASKS.items()]
    lines += ["", "commands of a task:"]
    lines += [f"  {name:14} {summary}" for name, summary in COMMANDS.items()]
    lines += [
        "",
        "other commands:",
        "  demo           train on real data, forecast, and write a report, in a few minutes",
        "  configs        list the configurations that --config knows by name",
        "  zoo            list the trained models that fourfold.load knows by name",
        "  convert        turn a published checkpoint into a model folder",
        "",
        "fourfold TASK COMMAND --help lists every option; --debug shows tracebacks; --version the version.",
    ]
    return "\n".join(lines)


def _task_help(task: str) -> str:
    from .tasks.names import describe, shipped

    lines = [
        f"usage: fourfold {task} COMMAND --config NAME_OR_FILE [options]",
        "",
        TASKS[task].summary,
        "",
        "commands:",
    ]
    lines += [f"  {name:14} {summary}" for name, summary in {**COMMANDS, **TASKS[task].commands}.items()]
    names = [name for name in shipped() if name.startswith(f"{task}/")]
    if names:
        lines += ["", "configurations:", *(f"  {name}  {describe(name)}".rstrip() for name in names)]
        lines += ["", "for example:", f"  fourfold {task} fit --config {names[0]}"]
        lines += [f"  fourfold {task} evaluate --run {names[0].partition('/')[2]}"]
    lines += ["", f"fourfold {task} COMMAND --help lists every option (this loads torch: some seconds)."]
    return "\n".join(lines)


def _configs(args: Sequence[str]) -> int:
    from .tasks.names import describe, shipped

    names = shipped()
    width = max(map(len, names), default=0)
    return _say("\n".join(f"{name:{width}}  {describe(name)}".rstrip() for name in names))


def _zoo(args: Sequence[str]) -> int:
    from .modalities.zoo import zoo

    models = zoo()
    return _say("\n".join(models) if models else "no trained models are shipped with this version")


def _convert(args: Sequence[str]) -> int:
    words = [word for word in args if word != "--overwrite"]
    if len(words) not in (3, 4) or any(word.startswith("-") for word in words):
        return _fail("usage: fourfold convert KIND FILE [COMPANION] OUT [--overwrite]")
    from .modalities.convert import UnknownKind, convert
    from .modalities.storage import ModelFolderError, is_model_folder

    try:
        kind, path, *companion, out = words
        if is_model_folder(out) and words == list(args):
            return _fail(f"{out} holds a saved model; choose another folder or replace it with --overwrite")
        print(convert(kind, path, out, companion=companion[0] if companion else None))
    except UnknownKind as error:
        return _fail(str(error.args[0]))
    except (ModelFolderError, OSError, ValueError) as error:
        return _fail(str(error), status=1)
    return 0


def _demo(args: Sequence[str]) -> int:
    return int(import_module(f"{__package__}.tasks.demo").main(list(args)) or 0)


def _near(word: str, known: Sequence[str] | dict[str, str]) -> str:
    near = get_close_matches(word, list(known), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"


def _say(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: str, status: int = 2) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
