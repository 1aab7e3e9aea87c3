"""Files from elsewhere: downloaded once, checked, never half there, never unpacked outside their folder.

Every file has a sha256 from the start; there is no way to fetch one without. What is on disk already is used without a
network. Two processes that want the same thing at the same time do it once.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock

from .errors import DataError


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be fetched.

    Args:
        name: File name under the data root, may hold folders.
        urls: Where it can be had, tried in order.
        sha256: Hexadecimal checksum, 64 characters.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"{self.name}: sha256 must be 64 hexadecimal characters, got {self.sha256!r}")
        if Path(self.name).is_absolute() or ".." in Path(self.name).parts:
            raise ValueError(f"{self.name!r} must be a path below the data root")


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to."""

    files: int = 100_000
    total_bytes: int = 20 * 2**30


def data_root(root: str | Path | None = None) -> Path:
    """Where data live: `root`, else the environment variable FOURFOLD_DATA, else the user's cache folder."""
    if root is not None:
        return Path(root).expanduser()
    given = os.environ.get("FOURFOLD_DATA")
    return Path(given).expanduser() if given else Path(pooch.os_cache("fourfold")) / "data"


def fetch(file: RemoteFile, root: str | Path | None = None) -> Path:
    """The local path of a file, downloading it if it is not there yet.

    Raises:
        DataError: Nothing could be downloaded, or the checksum is wrong (both sums are named; nothing is kept).
    """
    path = data_root(root) / file.name
    with locked(path):
        if path.is_file() and pooch.file_hash(str(path)) == file.sha256:
            return path
        problems = []
        for url in file.urls:
            try:
                # Pooch downloads beside the target and renames only after the check.
                pooch.retrieve(url, f"sha256:{file.sha256}", fname=path.name, path=path.parent)
            except (OSError, ValueError) as error:
                problems.append(f"{url}: {' '.join(str(error).split())}")
            else:
                return path
    raise DataError(
        f"cannot fetch {file.name} (sha256 {file.sha256}): {'; '.join(problems) or 'no address known'}. "
        f"Without a network, put the file at {path}"
    )


def build_once(folder: str | Path, build: Callable[[Path], None]) -> Path:
    """Make a folder with `build(temporary folder)` unless it exists; it appears complete or not at all."""
    folder = Path(folder)
    with locked(folder):
        if not folder.is_dir():
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                build(temporary)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def unpack(archive: str | Path, folder: str | Path, limits: Limits = Limits()) -> Path:
    """Unpack a tar or zip archive into a new folder.

    Raises:
        DataError: Not an archive, an entry that leads outside the folder, or more than `limits` allow. Nothing is kept.
    """

    def build(temporary: Path) -> None:
        try:
            if zipfile.is_zipfile(archive):
                _unpack_zip(Path(archive), temporary, limits)
            else:
                _unpack_tar(Path(archive), temporary, limits)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise DataError(f"cannot unpack {archive}: {error}") from error

    return build_once(folder, build)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Exclusive use of a path among processes; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def _unpack_zip(archive: Path, folder: Path, limits: Limits) -> None:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        _check_limits(archive, [entry.file_size for entry in entries], limits)
        for entry in entries:
            parts = Path(entry.filename).parts
            if Path(entry.filename).is_absolute() or ".." in parts:
                raise DataError(f"{archive} holds an entry outside its folder: {entry.filename!r}")
        # Sizes in the header may lie; zipfile stops reading an entry at its declared size and then checks its CRC.
        file.extractall(folder)


def _unpack_tar(archive: Path, folder: Path, limits: Limits) -> None:
    with tarfile.open(archive) as file:
        entries, total = 0, 0
        for entry in file:
            entries, total = entries + 1, total + entry.size
            _check_limits(archive, [total] if entries <= limits.files else [0] * entries, limits)
        file.extractall(folder, filter="data")


def _check_limits(archive: Path, sizes: list[int], limits: Limits) -> None:
    if len(sizes) > limits.files or sum(sizes) > limits.total_bytes:
        raise DataError(
            f"{archive} would unpack to {len(sizes):,} entries and {sum(sizes):,} bytes; "
            f"allowed are {limits.files:,} and {limits.total_bytes:,}"
        )
