"""A command-line parser whose errors fit on a few lines: what is wrong, where it stands, what would be accepted."""

from __future__ import annotations

import inspect
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import ActionConfigFile  # pyright: ignore[reportPrivateImportUsage]
from lightning.pytorch.cli import LightningArgumentParser

from . import names

_KEY = re.compile(r"[Oo]ption '([\w.]+)'|[Kk]ey \"([\w.]+)\"|[Kk]ey '([\w.]+)'|(?<!\w)--([\w.]+)")
_SECTIONS = ("trainer", "model", "data")
_CLASS = re.compile(r"class_path '([\w.]+)'")
_NO_SUCH_CLASS = re.compile(r"dot import path string: (\w+)")


class NamedConfig(ActionConfigFile):
    """`--config`, which takes a file or a shipped name, and whose errors name the file."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        try:
            path = names.find(str(values))
        except FileNotFoundError as error:
            raise TypeError(str(error)) from error
        if isinstance(parser, FriendlyParser):
            parser.config_files.append(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise TypeError(f"{path} is not valid YAML: {_yaml_problem(error)}") from error
        if content is None:
            return
        if not isinstance(content, dict):
            raise TypeError(f"{path} must hold keys and values, not a {type(content).__name__}")
        for section in _SECTIONS:
            if not isinstance(content.get(section), dict | str | None):
                raise TypeError(f"{path}: {section!r} must hold keys and values, not {content[section]}")
        super().__call__(parser, cfg, str(path), option_string)


class FriendlyParser(LightningArgumentParser):
    """Drops the wall of usage text, says where a bad key stands, suggests near keys, exits with status 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.args: list[str] = []
        self.config_files: list[Path] = []

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            # A parser of a nested class: the outer one reports, knowing where the class stands.
            super().error(message, ex)
        parser = self._chosen()
        text = _tidy(message)
        keys = [key for match in _KEY.finditer(text) for key in match.groups() if key]
        lines = [f"error: {text}"]
        if keys:
            key = keys[0] if len(keys) == 1 or keys[-1].startswith(keys[0]) else f"{keys[0]}.{keys[-1]}"
            place = parser.place(key) or parser.place(keys[0])
            lines += [f"where: {place}"] if place else []
            lines += parser.advice(keys[0], key, text)
        elif "are required" in text:
            lines.append("give a configuration: --config NAME_OR_FILE (names: fourfold configs), or --run NAME")
        lines.append(f"help:  {parser.prog.replace(' [options]', '')} --help")
        sys.stderr.write("\n".join(lines) + "\n")
        self.exit(2)

    def keys(self) -> list[str]:
        """Every key of this parser."""
        linked = {"model.seed"}  # set by seed_everything
        return [action.dest for action in self._actions if action.dest not in ("help", "==SUPPRESS==", *linked)]

    def place(self, key: str) -> str | None:
        """Where the user has set a key: the command line, or a line of a configuration file."""
        if any(arg == f"--{key}" or arg.startswith((f"--{key}=", f"--{key}.")) for arg in self.args):
            return "command line"
        for path in reversed(self.config_files):
            try:
                line = _line_of(key.split("."), yaml.compose(path.read_text(encoding="utf-8")))
            except (OSError, yaml.YAMLError):
                continue
            if line is not None:
                return f"{path}, line {line}"
        return None

    def advice(self, slot: str, key: str, text: str) -> list[str]:
        """What would be accepted instead: near keys, arguments of the class named, or the classes of a slot."""
        if missing := _NO_SUCH_CLASS.search(text):
            classes = self._classes_of(slot)
            near = get_close_matches(missing[1], classes, n=3)
            shown = near or sorted(classes)[:12]
            return [f"did you mean: {', '.join(shown)}" if near else f"known: {', '.join(shown)}"] if shown else []
        if not any(phrase in text for phrase in ("unrecognized", "not accept", "not expected")):
            return []
        named = _CLASS.search(text)
        known = [f"{slot}.{name}" for name in _arguments(named[1])] if named else self.keys()
        near = get_close_matches(key, known, n=3, cutoff=0.6)
        if not near:
            by_leaf = {name.rpartition(".")[2]: name for name in known}
            near = [by_leaf[leaf] for leaf in get_close_matches(key.rpartition(".")[2], by_leaf, n=3, cutoff=0.6)]
        if near:
            return [f"did you mean: {', '.join(near)}"]
        return [f"known: {', '.join(known)}"] if named and known else []

    def _classes_of(self, slot: str) -> list[str]:
        hints = [getattr(action, "_typehint", None) for action in self._actions if action.dest == slot]
        bases = [hint if isinstance(hint, type) else (get_args(hint) or (None,))[-1] for hint in hints]
        return sorted({cls.__name__ for base in bases if isinstance(base, type) for cls in _subclasses(base)})

    def _chosen(self) -> FriendlyParser:
        # Errors of a subcommand are reported by the main parser.
        for action in self._actions:
            choices = action.choices if isinstance(action.choices, dict) else {}
            for word in self.args:
                chosen = choices.get(word)
                if isinstance(chosen, FriendlyParser):
                    chosen.args = self.args
                    return chosen
        return self


def _tidy(message: str) -> str:
    text = re.sub(r"NestedArg\(key='([^']*)', val=([^)]*)\)", r"\1=\2", message)
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = re.sub(r"\s+", " ", text.replace("\\n", " ")).strip()
    advice = "Add the import path to import_path_allowlist in set_parsing_settings to allow it."
    text = text.replace(advice, "To trust a package of yours: --allow PACKAGE.")
    return text if len(text) <= 600 else text[:600] + " ..."


def _line_of(parts: list[str], node: Any) -> int | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == parts[0]:
            return key.start_mark.line + 1 if len(parts) == 1 else _line_of(parts[1:], value)
        if key.value == "init_args" and (line := _line_of(parts, value)) is not None:
            return line
    return None


def _subclasses(base: type) -> list[type]:
    found = [cls for sub in base.__subclasses__() for cls in (sub, *_subclasses(sub))]
    return [cls for cls in found if not inspect.isabstract(cls)]


def _arguments(class_path: str) -> list[str]:
    # The class has been imported already, after the check against the allow-list.
    module, _, name = class_path.rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    return [name for name in inspect.signature(cls).parameters if name != "self"] if isinstance(cls, type) else []


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
