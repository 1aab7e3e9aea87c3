"""Downloads and archives: checked, complete or absent, never outside their folder."""

from __future__ import annotations

import hashlib
import http.server
import io
import multiprocessing
import os
import signal
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest

from fourfold.data.errors import DataError
from fourfold.data.fetch import Limits, RemoteFile, build_once, data_root, fetch, locked, unpack

CONTENT = b"fourfold" * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole gives the file, /cut stops half-way, /other another file."""

    served: ClassVar[list[str]] = []

    def do_GET(self):
        self.served.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        content = CONTENT[: len(CONTENT) // 2] if self.path == "/cut" else CONTENT
        self.wfile.write(content if self.path != "/other" else content.upper())

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Handler.served = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def visible(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if not path.name.endswith(".lock"))


def test_fetch_once(server, tmp_path):
    file = RemoteFile("sets/a.bin", (f"{server}/whole",), SHA256)
    path = fetch(file, tmp_path)
    assert path.read_bytes() == CONTENT
    assert fetch(file, tmp_path) == path
    assert Handler.served == ["/whole"]


def test_the_next_address_is_tried(server, tmp_path):
    file = RemoteFile("a.bin", (f"{server}/other", f"{server}/whole"), SHA256)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["cut", "other"])
def test_what_is_wrong_is_not_kept(server, tmp_path, path):
    file = RemoteFile("a.bin", (f"{server}/{path}",), SHA256)
    with pytest.raises(DataError, match=SHA256) as caught:
        fetch(file, tmp_path)
    if path == "other":
        assert hashlib.sha256(CONTENT.upper()).hexdigest() in str(caught.value)
    assert visible(tmp_path) == []
    assert fetch(RemoteFile("a.bin", (f"{server}/whole",), SHA256), tmp_path).read_bytes() == CONTENT


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT[:100])
    assert fetch(RemoteFile("a.bin", (f"{server}/whole",), SHA256), tmp_path).read_bytes() == CONTENT


def test_without_a_network_the_message_says_where_to_put_the_file(tmp_path):
    with pytest.raises(DataError, match=r"put the file at .*a\.bin"):
        fetch(RemoteFile("a.bin", ("http://127.0.0.1:9/a.bin",), SHA256), tmp_path)


def test_a_checksum_is_needed():
    with pytest.raises(ValueError, match="64"):
        RemoteFile("a.bin", (), "")
    with pytest.raises(ValueError, match="below the data root"):
        RemoteFile("../a.bin", (), SHA256)


def test_data_root(tmp_path, monkeypatch):
    assert data_root(tmp_path) == tmp_path
    monkeypatch.setenv("FOURFOLD_DATA", str(tmp_path / "env"))
    assert data_root() == tmp_path / "env"
    monkeypatch.delenv("FOURFOLD_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_root() == tmp_path / "cache" / "fourfold" / "data"


def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content, link in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if link:
                entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, link, 0
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_unpack(tmp_path):
    archive = tar_of(tmp_path / "a.tar.gz", ("x/y.txt", b"1", ""))
    folder = unpack(archive, tmp_path / "out")
    assert (folder / "x" / "y.txt").read_text() == "1"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x/z.txt", "2")
    assert (unpack(tmp_path / "a.zip", tmp_path / "zip") / "x" / "z.txt").read_text() == "2"


@pytest.mark.parametrize("member", [("../evil", b"1", ""), ("link", b"", "/etc/passwd"), ("link", b"", "../../evil")])
def test_archives_stay_in_their_folder(tmp_path, member):
    archive = tar_of(tmp_path / "a.tar.gz", ("good", b"1", ""), member)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep" / "evil").exists()
    assert visible(tmp_path / "deep") == []


def test_zip_entries_stay_in_their_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("../evil", "1")
    with pytest.raises(DataError, match="outside"):
        unpack(tmp_path / "a.zip", tmp_path / "deep" / "out")
    assert visible(tmp_path / "deep") == []


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_bombs(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar_of(path, ("zeros", bytes(10**6), ""))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("zeros", bytes(10**6))
    with pytest.raises(DataError, match="1,000,000 bytes"):
        unpack(path, tmp_path / "out", Limits(total_bytes=10**5))
    with pytest.raises(DataError, match="entries"):
        unpack(path, tmp_path / "out", Limits(files=0))
    assert not (tmp_path / "out").exists()


def test_not_an_archive(tmp_path):
    (tmp_path / "a.tar").write_text("<html>")
    with pytest.raises(DataError, match="cannot unpack"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def _build(folder, log):
    def build(temporary):
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.2)
        (temporary / "x").write_text("1")

    build_once(folder, build)


def test_eight_processes_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_build, args=(tmp_path / "set", tmp_path / "log")) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert (tmp_path / "log").read_text() == "built\n"
    assert visible(tmp_path) == ["log", "set", "x"]


def _hold(folder, ready):
    with locked(folder):
        ready.set()
        time.sleep(60)


def test_a_killed_holder_leaves_no_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "set", ready))
    holder.start()
    assert ready.wait(10)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    build_once(tmp_path / "set", lambda temporary: None)
    assert (tmp_path / "set").is_dir()


def test_a_failed_build_leaves_nothing(tmp_path):
    def build(temporary):
        (temporary / "half").touch()
        raise DataError("no")

    with pytest.raises(DataError):
        build_once(tmp_path / "set", build)
    assert visible(tmp_path) == []
