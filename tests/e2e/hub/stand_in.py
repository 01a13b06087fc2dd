"""A model hub on loopback: what huggingface_hub asks for, answered as huggingface.co answers.

Large files are sent from "another" host behind a redirect, small ones directly; every request is
kept. The other way to the large ones that the hub offers (Xet) leads nowhere here. Faults are
switched on by attributes.
"""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: From here on a file is stored apart, as Git LFS does; real repositories go by name.
LARGE = 4096
TOKEN, EXPIRED = "hf_letmein", "hf_expired"
#: A model that is there in every test.
NAME = "anna/small"
#: Of `vitreous train`: the shortest that shows whether weights arrived.
ONCE = ("--epochs", "1", "--set", "train.batch_size=64")


def snapshots(home: Path) -> list[Path]:
    """The files that huggingface_hub keeps in the test's folder."""
    return sorted((home / "hf" / "hub").glob("models--*/snapshots/*/*"))


def checksum(content: bytes) -> str:
    """SHA-256 of a large file, git's name of a small one."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """Add a commit that a branch or tag then stands for."""
        name = hashlib.sha1(repr((files, len(self.commits))).encode()).hexdigest()
        self.commits[name] = files
        self.refs[ref] = name
        return name


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.cuts = 0  # how many more downloads break off half-way
        self.shortens = False  # downloads end half-way and say that this is all
        self.spoils = False  # one bit of every download is another
        self.fails = False  # every answer is 503
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def add(self, name: str, files: dict[str, bytes], **kind: bool) -> str:
        self.repositories[name] = Repository(**kind)
        return self.repositories[name].commit(files)

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is none."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, path, headers))
        if self.server.fails:
            return self.answer(503)
        if headers.get("authorization") == f"Bearer {EXPIRED}":
            return self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.list(match[1], match[2] or "main")
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(.+)/([^/]+)", path):
            return self.resolve(match[1], match[2], match[3])
        if match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            return self.send(self.large()[match[1]])
        return self.answer(404)

    def answer(
        self, status: int, body: bytes = b"", length: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")  # so that a stopped hub has no ear left
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def found(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit and its files, or an answer that there is none."""
        repository = self.server.repositories.get(name)
        token = self.headers.get("authorization")
        if repository is None or (repository.private and token != f"Bearer {TOKEN}"):
            self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            return None
        return commit, repository.commits[commit]

    def list(self, name: str, revision: str) -> None:
        if (found := self.found(name, revision)) is None:
            return
        siblings = []
        for file, content in found[1].items():
            sibling = {"rfilename": file, "size": len(content), "blobId": checksum(content)}
            if len(content) >= LARGE:
                lfs = {"sha256": checksum(content), "size": len(content), "pointerSize": 130}
                sibling = {**sibling, "blobId": "0" * 40, "lfs": lfs}
            siblings.append(sibling)
        body = {"_id": "1", "id": name, "modelId": name, "sha": found[0], "siblings": siblings,
                "private": False, "gated": False, "tags": []}  # fmt: skip
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def resolve(self, name: str, revision: str, file: str) -> None:
        if (found := self.found(name, revision)) is None:
            return None
        token = self.headers.get("authorization")
        if self.server.repositories[name].gated and token != f"Bearer {TOKEN}":
            said = f"Access to model {name} is restricted. Please log in."
            status = 401 if token is None else 403
            return self.answer(status, X_Error_Code="GatedRepo", X_Error_Message=said)
        commit, files = found
        if file not in files:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = files[file]
        mark = f'"{checksum(content)}"'
        if len(content) < LARGE:
            return self.send(content, X_Repo_Commit=commit, ETag=mark)
        elsewhere = f"http://localhost:{self.server.server_port}/cdn/{checksum(content)}"
        return self.answer(302, X_Repo_Commit=commit, X_Linked_Etag=mark, Location=elsewhere,
                           X_Linked_Size=str(len(content)), ETag='"of-the-redirect"',
                           X_Xet_Hash="0" * 64, X_Xet_Refresh_Route="/api/token")  # fmt: skip

    def large(self) -> dict[str, bytes]:
        commits = (c for r in self.server.repositories.values() for c in r.commits.values())
        return {checksum(f): f for files in commits for f in files.values() if len(f) >= LARGE}

    def send(self, content: bytes, **headers: str) -> None:
        """A file or, on demand, the rest of it."""
        start = int((self.headers.get("range") or "bytes=0-")[6:].split("-")[0])
        status = 206 if start else 200
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        part, length = content[start:], None
        if self.command == "GET" and len(content) >= LARGE:
            if self.server.spoils:
                part = bytes([part[0] ^ 1]) + part[1:]
            if self.server.shortens:
                part = part[: len(part) // 2]
            if self.server.cuts:
                self.server.cuts -= 1
                length, part = len(part), part[: len(part) * 9 // 10]
        self.answer(status, part, length, **headers)

    def log_message(self, format: str, *args: object) -> None:
        """Standard error is the command's."""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
