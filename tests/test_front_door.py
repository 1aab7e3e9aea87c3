"""The `fourfold` command, as a user types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fourfold
from fourfold.__main__ import main
from fourfold.tasks import COMMANDS, TASKS
from fourfold.tasks.names import find, shipped

HEAVY = "torch lightning numpy gluonts matplotlib pandas jsonargparse"


def run(*args, cwd=None):
    return subprocess.run(args, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.parametrize(
    "args", ["--help", "--version", "configs", "zoo-names", *(f"{task} --help" for task in TASKS), "nothing"]
)
def test_light_commands_import_nothing_heavy(args, tmp_path):
    words = [] if args == "zoo-names" else args.split()
    code = (
        "import sys; from fourfold.__main__ import main; main(sys.argv[1:]); "
        f"print('HEAVY', sorted(set({HEAVY.split()!r}) & set(sys.modules)))"
    )
    ended = run(sys.executable, "-c", code, *words, cwd=tmp_path)
    assert "HEAVY []" in ended.stdout, ended.stdout + ended.stderr


def test_importing_fourfold_is_light(tmp_path):
    ended = run(sys.executable, "-X", "importtime", "-c", "import fourfold", cwd=tmp_path)
    assert not re.search(r"\| +(torch|numpy|lightning)$", ended.stderr, re.M)


def test_console_script_and_module(tmp_path):
    for command in ([str(Path(sys.executable).parent / "fourfold")], [sys.executable, "-m", "fourfold"]):
        ended = run(*command, "--version", cwd=tmp_path)
        assert ended.stdout == f"fourfold {fourfold.__version__}\n", ended.stderr


def test_help_lists_everything(capsys):
    assert main([]) == main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (*TASKS, *COMMANDS, "demo", "configs", "zoo", "convert"):
        assert re.search(rf"^  {word} ", text, re.M), word


@pytest.mark.parametrize("task", TASKS)
def test_task_help(task, capsys):
    assert main([task, "--help"]) == 0
    text = capsys.readouterr().out
    names = [name for name in shipped() if name.startswith(f"{task}/")]
    assert names
    for word in (*COMMANDS, *names):
        assert word in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["forcasting", "fit"], ["forcasting", "forecasting"]),
        (["forecasting", "fitt"], ["fitt", "fit"]),
        (["convert", "a"], ["KIND FILE [COMPANION] OUT"]),
        (["convert", "a", "b", "--force", "c"], ["[--overwrite]"]),
        (["convert", "a", "b", "c"], ["known kinds"]),
    ],
)
def test_mistakes(args, words, capsys):
    assert main(args) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error


def test_configs(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped()
    assert all(len(line.split()) > 1 for line in lines), "a configuration without a first comment line"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "fourfold", "configs"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == b""


def test_names_of_configurations(tmp_path, monkeypatch):
    name = shipped()[0]
    assert find(name) == find(f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    own = tmp_path / f"{name}.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("model: {}\n")
    # A file of the working folder comes before a shipped one of the same name.
    assert find(f"{name}.yaml") == own.resolve()
    with pytest.raises(FileNotFoundError, match=f"did you mean {name}"):
        find(name[:-1] + "q")
    with pytest.raises(FileNotFoundError):
        find("../pyproject")


def test_lazy_public_names():
    assert set(fourfold.__all__) <= set(dir(fourfold))
    assert callable(fourfold.load)
    assert fourfold.core.__name__ == "fourfold.core"
    with pytest.raises(AttributeError, match="nothing"):
        _ = fourfold.nothing
