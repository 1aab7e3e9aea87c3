"""The repository root is the package: everything that belongs into the wheel is in it, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
SOURCES = ("configs", "core", "data", "modalities", "tasks")


def folders():
    return [path.parent for name in SOURCES for path in (ROOT / name).rglob("__init__.py")]


def test_packages_are_the_folders():
    found = ["fourfold", *(".".join(("fourfold", *folder.relative_to(ROOT).parts)) for folder in folders())]
    assert sorted(PACKAGES) == sorted(found)


def test_every_folder_with_modules_is_a_package():
    with_modules = {path.parent for name in SOURCES for path in (ROOT / name).rglob("*.py")}
    assert with_modules == set(folders())


def test_root_modules():
    # Any other module here, a conftest or setup.py too, would be shipped as fourfold.NAME.
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py", "_version.py"]


def test_constraints_are_exact_and_cover_the_dependencies():
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line) for line in lines), "exact pins only"
    pinned = {line.partition("==")[0] for line in lines}
    assert "torch==2.13.0" in lines
    wanted = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    names = {re.split(r"[\[<>=! ]", entry, maxsplit=1)[0].lower().replace("_", "-") for entry in wanted}
    assert names <= pinned


def test_vulnerable_versions_are_excluded():
    for name in ("lightning", "pytorch-lightning"):
        (entry,) = [d for d in PROJECT["project"]["dependencies"] if re.match(rf"{name}[<>=!]", d)]
        assert {">=2.6.6", "<2.7", "!=2.6.2", "!=2.6.3"} <= set(entry[len(name) :].split(","))


def imports(path):
    """Absolute names of what a module imports at any level, as seen from the root of the package."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            yield ".".join((*base, *(node.module.split(".") if node.module else ())))
        elif isinstance(node, ast.ImportFrom):
            yield f"/{node.module}"
        elif isinstance(node, ast.Import):
            yield from (f"/{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", SOURCES)
def test_imports_point_one_way(folder):
    order = ["core", "modalities", "data", "tasks"]
    allowed = {"configs": set(), **{name: set(order[: i + 1]) for i, name in enumerate(order)}}[folder]
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            inside = name.split(".")[0]
            assert not name.startswith("/fourfold"), f"{path}: imports inside the package are relative"
            if name.startswith("/") or inside not in (*order, "configs"):
                continue
            assert inside in allowed, f"{path} imports {name}"
            parts = path.relative_to(ROOT).parts
            if folder == "modalities" and len(parts) > 2 and name.count(".") >= 1:
                other = name.split(".")[1]
                known = {p.name for p in (ROOT / "modalities").iterdir() if p.is_dir()}
                assert other not in known - {parts[1]}, f"{path}: modalities never import each other"


def test_core_knows_tensors_only():
    for path in (ROOT / "core").rglob("*.py"):
        for name in imports(path):
            top = name.removeprefix("/").split(".")[0]
            if name.startswith("/") and top not in sys.stdlib_module_names:
                assert top in ("torch", "numpy"), f"{path} imports {top}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    files = [f for f in names.stdout.splitlines() if (ROOT / f).is_file()]
    if names.returncode or not files:
        pytest.skip("not a git checkout")
    for name in files:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_its_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"fourfold/{path.relative_to(ROOT).as_posix()}" for name in SOURCES for path in (ROOT / name).rglob("*.py")
    }
    expected |= {f"fourfold/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "configs").rglob("*.yaml")}
    expected |= {
        f"fourfold/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "data" / "zoo").rglob("*") if p.is_file()
    }
    expected |= {f"fourfold/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "tasks").rglob("*.j2")}
    expected |= {"fourfold/py.typed", "fourfold/__main__.py", "fourfold/__init__.py", "fourfold/_version.py"}
    assert expected <= names, sorted(expected - names)
    shipped = {name for name in names if name.startswith("fourfold/")}
    assert not {name for name in shipped if re.match(r"fourfold/(tests|docs|benchmarks|runs|\.venv)/", name)}
    assert any(name.endswith("LICENSE") for name in names)


def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    # In a folder of its own, before any installed copy: the console command, its configurations, a lazy import.
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.meta_path[:] = "
        "[f for f in sys.meta_path if '__editable__' not in str(f)]; import fourfold; "
        "from fourfold.__main__ import main; print(fourfold.__file__); assert main(['configs']) == 0; "
        "import fourfold.core"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(str(tmp_path / "site"))
    assert "forecasting/" in ended.stdout


def test_licence_and_version():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    version = re.search(r'"(.+)"', (ROOT / "_version.py").read_text())
    assert version
    assert version[1] in (ROOT / "CHANGELOG.md").read_text()
