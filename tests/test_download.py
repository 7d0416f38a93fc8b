"""Fetching a published file from a server on the loopback interface: one that breaks off, stalls or lies."""

import contextlib
import hashlib
import http.server
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from src import download, pth2ckpt
from src.checkpoint import read_checkpoint
from src.download import Published, fetch
from src.utils import InputError
from tests import torch_reference as reference
from tests.conftest import ROOT, user_environment

CONTENT = np.random.default_rng(0).bytes(300_000)
NAME = "resnet18-0a1b2c3d.pth"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


class Server(http.server.ThreadingHTTPServer):
    """Sends ``content`` under NAME; ``requests`` are what it was asked, as (method, path, headers)."""

    content = CONTENT
    ranges = True
    status = 200
    breaks = ()  # after how many bytes the first answers break off, in turn
    pause = 0.0  # before each kilobyte
    says_length = True
    offset = 0  # by which a part that is sent is another than asked for

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.breaks = [], []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that hung up is none."""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        self.server.requests.append(("CONNECT", self.path, dict(self.headers)))
        self.send_error(407, "Who are you")

    def do_GET(self):
        server = self.server
        server.requests.append(("GET", self.path, dict(self.headers)))
        if server.status != 200 or not self.path.endswith(f"/{NAME}"):
            self.send_error(server.status if server.status != 200 else 404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start + server.offset}-{total - 1}/{total}")
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: server.breaks.pop(0)] if server.breaks else body
        if not server.pause:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 1024):
            time.sleep(server.pause)
            self.wfile.write(body[at : at + 1024])


@pytest.fixture
def server(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def file(server):
    return Published(f"{server.address}/models/{NAME}", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def ranges(server):
    return [headers.get("Range") for _, _, headers in server.requests]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def failure(file, path, **options):
    """The error of a download, which always says how to get the file by hand."""
    with pytest.raises(InputError) as caught:
        fetch(file, path, **options)
    assert "by hand: fetch " + file.address in str(caught.value)
    assert file.sha256 in str(caught.value)
    assert str(path) in str(caught.value)
    assert not path.exists()
    return str(caught.value)


def test_fetch(server, file, tmp_path):
    """It is there under its name alone, and not fetched a second time."""
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    fetch(file, tmp_path / "a.pth")
    assert names(tmp_path) == ["a.pth"]
    assert len(server.requests) == 1
    assert server.requests[0][2]["User-Agent"].startswith("STPM/")


def test_another_file_there(server, file, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"a\.pth: is not http.*: move it away"):
        fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == b"mine"
    assert not server.requests


def test_resumed_at_once(server, file, tmp_path):
    """A connection that breaks off is opened again, from there on."""
    server.breaks = [100_000, 150_000]
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=250000-"]


def test_resumed_later(server, file, tmp_path, monkeypatch):
    """A later call goes on from what an earlier one has left."""
    server.breaks = [100_000]
    monkeypatch.setattr(download, "CONNECTIONS", 1)
    assert "the connection ended after 100000 of 300000 bytes" in failure(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth.part").read_bytes() == CONTENT[:100_000]
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-"]
    assert names(tmp_path) == ["a.pth"]


def test_no_ranges(server, file, tmp_path):
    """A server that sends all of it again is listened to from the beginning."""
    server.ranges, server.breaks = False, [100_000]
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_always_truncated(server, file, tmp_path):
    """No endless loop, with ranges or without."""
    server.ranges, server.breaks = False, [100_000] * 99
    assert "after 100000 of 300000 bytes" in failure(file, tmp_path / "a.pth")
    assert len(server.requests) == 2
    server.ranges, server.breaks = True, [10] * 99
    assert "after 100100 of 300000 bytes" in failure(file, tmp_path / "a.pth")
    assert len(server.requests) == 2 + download.CONNECTIONS


def test_another_part(server, file, tmp_path):
    """Than the one asked for."""
    server.breaks, server.offset = [100_000], 5
    assert "another part of the file" in failure(file, tmp_path / "a.pth")


@pytest.mark.parametrize("says_length", [True, False])
def test_wrong_hash(server, file, tmp_path, says_length):
    """Of a file of the right size: nothing is kept."""
    server.content, server.says_length = CONTENT[:-1] + b"x", says_length
    found = hashlib.sha256(server.content).hexdigest()
    assert f"sent a file with the SHA-256 {found}, which was not kept" in failure(file, tmp_path / "a.pth")
    assert names(tmp_path) == []


def test_wrong_beginning(server, file, tmp_path):
    """Of another file, or a damaged one: it is fetched anew."""
    (tmp_path / "a.pth.part").write_bytes(b"x" * 1000)
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 1], ids=["as long", "longer"])
def test_wrong_whole(server, file, tmp_path, size):
    (tmp_path / "a.pth.part").write_bytes(bytes(size))
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_whole_part(server, file, tmp_path):
    """Killed before the last step: nothing is left to fetch."""
    (tmp_path / "a.pth.part").write_bytes(CONTENT)
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert not server.requests


@pytest.mark.parametrize("content", [b"<html>log in</html>", CONTENT * 2], ids=["smaller", "larger"])
@pytest.mark.parametrize("says_length", [True, False])
def test_another_size(server, file, tmp_path, content, says_length):
    """As the page of a network that wants a password."""
    server.content, server.says_length = content, says_length
    message = failure(file, tmp_path / "a.pth")
    if says_length:
        assert f"has {len(content)} bytes (text/plain), not the published 300000" in message
    else:
        assert ("sends more than the published 300000" if len(content) > 300_000 else "after 19 of 300000") in message
    assert names(tmp_path) in ([], ["a.pth.part"])
    server.content = CONTENT
    fetch(file, tmp_path / "a.pth")


def test_smaller_than_part(server, file, tmp_path):
    """416: there is nothing from there on. The server's own file tells what it is."""
    (tmp_path / "a.pth.part").write_bytes(bytes(1000))
    server.content = b"<html>"
    assert "has 6 bytes" in failure(file, tmp_path / "a.pth")
    assert ranges(server) == ["bytes=1000-", None]


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden"), (503, "503 Service")])
def test_refusals(server, file, tmp_path, status, words):
    """And what was there stays."""
    (tmp_path / "a.pth.part").write_bytes(CONTENT[:1000])
    server.status = status
    assert f"the server answers {words}" in failure(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth.part").read_bytes() == CONTENT[:1000]


def test_slow(server, file, tmp_path, monkeypatch):
    """It may take as long as it likes, if only it does not stand still."""
    server.pause, server.content = 0.02, CONTENT[:20_000]
    monkeypatch.setattr(download, "TIMEOUT", 0.25)
    short = Published(file.address, 20_000, hashlib.sha256(CONTENT[:20_000]).hexdigest())
    begin = time.monotonic()
    fetch(short, tmp_path / "a.pth")
    assert time.monotonic() - begin > 0.3
    server.pause, server.requests = 0.6, []
    assert "timed out" in failure(short, tmp_path / "b.pth")
    assert len(server.requests) == 1


def test_no_answer(file, tmp_path, monkeypatch):
    """A server that accepts and says nothing, one that hangs up, and none."""
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "timed out" in failure(file, tmp_path / "a.pth", mirror=mirror)
    assert "cannot be reached: Connection refused" in failure(file, tmp_path / "a.pth", mirror=mirror)
    with socket.create_server(("127.0.0.1", 0)) as rude:
        thread = threading.Thread(target=lambda: rude.accept()[0].close())
        thread.start()
        failure(file, tmp_path / "a.pth", mirror=f"http://127.0.0.1:{rude.getsockname()[1]}")
        thread.join()
    assert "cannot be reached" in failure(file, tmp_path / "a.pth", mirror="http://[1/")
    assert names(tmp_path) == []


def test_proxy(server, file, tmp_path, monkeypatch):
    """http_proxy is asked for what lies elsewhere; no_proxy: for what it is not; https_proxy makes a tunnel."""
    monkeypatch.setenv("http_proxy", server.address)
    fetch(Published(f"http://weights.invalid/{NAME}", file.size, file.sha256), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.requests[0][1] == f"http://weights.invalid/{NAME}"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert "Connection refused" in failure(file, tmp_path / "b.pth")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    fetch(file, tmp_path / "b.pth")
    monkeypatch.setenv("https_proxy", server.address)
    tunnelled = Published(f"https://weights.invalid/{NAME}", file.size, file.sha256)
    assert "Tunnel connection failed: 407 Who are you" in failure(tunnelled, tmp_path / "c.pth")
    assert server.requests[-1][:2] == ("CONNECT", "weights.invalid:443")


def test_mirror(server, file, tmp_path):
    """The file has the publisher's name there, and his hash."""
    elsewhere = Published(f"https://weights.invalid/models/{NAME}", file.size, file.sha256)
    fetch(elsewhere, tmp_path / "a.pth", mirror=f"{server.address}/a/b/")
    assert server.requests[0][1] == f"/a/b/{NAME}"


@contextlib.contextmanager
def no_file_beyond(size):
    """A disk that is full, to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(server, file, tmp_path):
    """It is told, and with more room the rest is fetched."""
    with no_file_beyond(131_072), pytest.raises(InputError, match=r"a\.pth\.part: cannot be written: File too large"):
        fetch(file, tmp_path / "a.pth")
    assert 0 < (tmp_path / "a.pth.part").stat().st_size <= 131_072
    fetch(file, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert ranges(server)[1] is not None


def test_two_at_once(server, file, tmp_path):
    """The second is told of the first."""
    server.pause = 0.01
    first, part = threading.Thread(target=fetch, args=(file, tmp_path / "a.pth")), tmp_path / "a.pth.part"
    first.start()
    while not (part.exists() and part.stat().st_size):  # it is locked before it is written to
        time.sleep(0.005)
    with pytest.raises(InputError, match=r"a\.pth\.part: another process is fetching it"):
        fetch(file, tmp_path / "a.pth")
    server.pause = 0
    first.join()
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


@pytest.fixture
def teacher(server, tmp_path, monkeypatch):
    """A ResNet-18 that the server publishes, in place of torchvision's."""
    state = reference.random_resnet(5, whole=True).state_dict()
    torch.save(state, tmp_path / "published")
    server.content = (tmp_path / "published").read_bytes()
    (tmp_path / "published").unlink()
    digest = hashlib.sha256(server.content).hexdigest()
    name = f"resnet18-{digest[:8]}.pth"
    monkeypatch.setattr(sys.modules[__name__], "NAME", name)
    published = Published(f"https://weights.invalid/models/{name}", len(server.content), digest)
    monkeypatch.setitem(pth2ckpt.TEACHERS, "resnet18", published)
    return state


def run(*words):
    return pth2ckpt.main(pth2ckpt.parse_args([str(word) for word in words]))


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_teacher(server, teacher, tmp_path, monkeypatch, way):
    """In one command; the flag goes before the variable."""
    monkeypatch.setenv("STPM_MIRROR", server.address if way == "variable" else "http://127.0.0.1:1")
    flags = ("--mirror", server.address) if way == "flag" else ()
    assert run("--download", "resnet18", "--ckpt_path", tmp_path / "new/resnet18.ckpt", *flags) == 0
    assert names(tmp_path / "new") == [NAME, "resnet18.ckpt"]
    arrays = read_checkpoint(tmp_path / "new/resnet18.ckpt")
    assert np.array_equal(arrays["conv1.weight"], teacher["conv1.weight"].numpy())
    (tmp_path / "new" / NAME).rename(tmp_path / "kept.pth")
    server.requests.clear()
    flags += ("--pth_path", tmp_path / "kept.pth")  # fetched, or brought, before
    assert run("--download", "resnet18", "--ckpt_path", tmp_path / "resnet18.ckpt", *flags) == 0
    assert not server.requests
    assert (tmp_path / "resnet18.ckpt").read_bytes() == (tmp_path / "new/resnet18.ckpt").read_bytes()


def test_published():
    """What is published: names hold the beginning of the hash."""
    for teacher in pth2ckpt.TEACHERS.values():
        assert re.fullmatch(r"https://download\.pytorch\.org/models/[\w-]+\.pth", teacher.address)
        assert re.fullmatch(r"[0-9a-f]{64}", teacher.sha256)
        assert teacher.name.endswith(f"-{teacher.sha256[:8]}.pth")


@pytest.mark.parametrize(
    ("flags", "variable", "words"),
    [
        ((), "", "--pth_path is required, or --download"),
        (("--pth_path", "a.pth", "--mirror", "http://a"), "", "--mirror goes with --download"),
        (("--download", "resnet34"), "", "invalid choice: 'resnet34'"),
        (("--download", "resnet18", "--mirror", "ftp://a"), "", "mirror 'ftp://a': expected the address of a folder"),
        (("--download", "resnet18", "--mirror", ""), "", "mirror '': expected the address"),
        (("--download", "resnet18"), "file:///etc", "mirror 'file:///etc': expected the address"),
        (("--download", "resnet18"), "http://a b", "mirror 'http://a b': expected the address"),
        (("--download", "resnet18", "--ckpt_path", "a.bin"), "", "a.bin: expected a name that ends in .ckpt"),
    ],
)
def test_flags(refused, tmp_path, monkeypatch, flags, variable, words):
    """Wrong ones are told before anything is fetched or made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STPM_MIRROR", variable)
    message = refused(pth2ckpt, "--ckpt_path", "a.ckpt", *flags)
    assert words in message
    assert names(tmp_path) == []


def test_killed(server, tmp_path):
    """Interrupted from the keyboard or killed, it leaves what had arrived, and goes on from there."""
    server.pause = 0.005
    code = (
        "import signal, sys; from pathlib import Path; from src import download, utils;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a job in the background ignores it
        "fetch = lambda _: download.fetch(download.Published(*eval(sys.argv[1])), Path('a.pth'));"
        "sys.exit(utils.run_entry_point(fetch, None))"
    )
    published = (f"{server.address}/{NAME}", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    for number in (signal.SIGINT, signal.SIGKILL):
        environment = user_environment(PYTHONPATH=str(ROOT))
        running = subprocess.Popen([sys.executable, "-c", code, repr(published)], cwd=tmp_path, env=environment)
        before = (tmp_path / "a.pth.part").stat().st_size if (tmp_path / "a.pth.part").exists() else 0
        while not (tmp_path / "a.pth.part").exists() or (tmp_path / "a.pth.part").stat().st_size <= before:
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(10) != 0
    server.pause = 0
    fetch(Published(*published), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert ranges(server)[0] is None
    assert ranges(server)[1].startswith("bytes=")
