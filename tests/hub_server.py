"""A hub on this machine: the part of the hub's protocol that huggingface_hub and mlxtune speak, over real sockets.

Two servers, because the real hub sends large files from other hosts: the hub itself, which knows repositories and
tokens, and the store that it redirects to, which knows contents and ranges, and must never see a token. Uploads go the
same two ways: small files in the commit, large ones to the store first (git LFS's batch protocol).
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from mlxtune.network import CLOSED_BY_US, HUB_OFFLINE

TOKEN = "hf_thisIsASecretOfTheTest"  # noqa: S105 - of nobody
LARGE = 20_000  # bytes; the real hub keeps larger files than 10 MB apart


@dataclass
class Repository:
    """One repository, a data set where its name begins with ``datasets/``.

    ``commits`` holds the files of each, ``branches`` where each branch and tag is.
    """

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    gated: bool = False
    private: bool = False
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that the listing claims, where they are not the true ones."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """What comes for a large file instead of its content."""


@dataclass
class Request:
    server: str
    method: str
    path: str
    range: str | None
    token: str | None
    agent: str


class Hub:
    """What the two servers know and saw; to be changed by tests while they run."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.breaks: list[int] = []
        """For each of the next answers with a large file: after how many bytes the connection is cut."""
        self.ranges = True
        """Whether the store heeds ranges; some proxies do not."""
        self.failures: list[int] = []
        """The status of the next answers of the store."""
        self.stored: dict[str, bytes] = {}
        """What was uploaded to the store, by its hash."""
        self.refusals: dict[str, tuple[int, str]] = {}
        """Status and message for requests whose path holds a text, such as ``/commit/``."""
        self.listed: dict[str, Any] = {}
        """What a listing says of large files instead of the truth."""
        self.url = self.store_url = ""

    def add(self, name: str, folder: Path | dict[str, bytes], *, branch: str = "main", **settings: Any) -> str:
        """Add a repository, or a commit to a branch of it, main if no ``branch`` is named; returns the commit."""
        files = folder
        if isinstance(folder, Path):
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
            }
        digests = sorted((file, hashlib.sha1(content).hexdigest()) for file, content in files.items())  # noqa: S324 - git
        commit = hashlib.sha1(json.dumps(digests).encode()).hexdigest()  # noqa: S324 - git's
        repository = self.repositories.setdefault(name, Repository({}, {}))
        repository.commits[commit] = files
        repository.branches[branch] = commit
        for key, value in settings.items():
            setattr(repository, key, value)
        return commit

    def files_of(self, name: str) -> dict[str, bytes]:
        """What a repository holds on its main branch."""
        repository = self.repositories[name]
        return repository.commits[repository.branches["main"]]

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]


def is_large(content: bytes) -> bool:
    return len(content) > LARGE


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # noqa: S324 - git's


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # who asked went away, as a test wanted it to
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    name: str

    def log_message(self, *_: Any) -> None:
        pass

    def note(self) -> None:
        token = self.headers.get("Authorization")
        agent = self.headers.get("User-Agent", "")
        self.hub.requests.append(Request(self.name, self.command, self.path, self.headers.get("Range"), token, agent))

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self.note()
        self.respond()

    do_HEAD = do_GET  # noqa: N815 - the server's interface

    def do_POST(self) -> None:
        self.note()
        self.receive(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    do_PUT = do_POST  # noqa: N815 - the server's interface

    def respond(self) -> None:
        raise NotImplementedError

    def receive(self, content: bytes) -> None:
        raise NotImplementedError

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")


class HubHandler(Handler):
    name = "hub"

    def respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/(?:models/)?((?:datasets/)?[^/]+/[^/]+)/revision/(.+)", path)
        file = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        repository = self.hub.repositories.get(found[1]) if found else None
        if found is None or repository is None or (repository.private and not self.has_token()):
            self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return
        commit = repository.branches.get(found[2], found[2])
        if commit not in repository.commits:
            self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {found[2]}")
        elif api:
            self.listing(found[1], repository, commit)
        elif repository.gated and not self.has_token():
            status = 403 if self.headers.get("Authorization") else 401
            self.answer(status, X_Error_Code="GatedRepo", X_Error_Message="Access to this model is restricted.")
        elif found[3] not in repository.commits[commit]:
            self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=commit)
        else:
            self.file(repository, commit, found[3])

    def receive(self, content: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        refusal = next((answer for part, answer in self.hub.refusals.items() if part in path), None)
        if refusal is not None:
            self.answer(refusal[0], X_Error_Message=refusal[1])
        elif not self.has_token():
            self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self.create(json.loads(content))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(content)["content"])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            self.preupload(found[1], json.loads(content)["files"])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self.batch(json.loads(content)["objects"])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(found[1], [json.loads(line) for line in content.splitlines()])
        else:
            self.answer(404)

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self.answer(409, X_Error_Message="You already created this model repo")
            return
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs"}, private=asked["visibility"] == "private")
        self.answer_json({"url": f"{self.hub.url}/{name}"})

    def validate(self, card: str) -> None:
        front = card.split("---\n")[1] if card.startswith("---\n") else ""
        known = yaml.safe_load(front) if front else {}
        missing = [key for key in ("license",) if key not in known]
        errors = [{"message": f'"{key}" is required'} for key in missing]
        self.answer_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, name: str, files: list[dict[str, Any]]) -> None:
        there = self.hub.files_of(name)
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] > LARGE else "regular",
                "shouldIgnore": False,
                "oid": git_hash(there[file["path"]]) if file["path"] in there else None,
            }
            for file in files
        ]
        self.answer_json({"files": modes})

    def batch(self, objects: list[dict[str, Any]]) -> None:
        for one in objects:
            if one["oid"] not in self.hub.stored:
                one["actions"] = {"upload": {"href": f"{self.hub.store_url}/{one['oid']}?signature=x"}}
        self.answer_json({"transfer": "basic", "objects": objects})

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.files_of(name))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.hub.add(name, files)
        self.answer_json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def listing(self, name: str, repository: Repository, commit: str) -> None:
        siblings = []
        for file, content in repository.commits[commit].items():
            size = repository.listed_sizes.get(file, len(content))
            entry: dict[str, Any] = {"rfilename": file, "size": size, "blobId": git_hash(content)}
            if is_large(content):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
                entry["lfs"] |= {key: value for key, value in self.hub.listed.items() if key == "sha256"}
                entry |= {key: value for key, value in self.hub.listed.items() if key == "size"}
            siblings.append(entry)
        name = name.removeprefix("datasets/")
        info = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": ["license:apache-2.0"]}
        self.answer_json({**info, "private": repository.private})

    def file(self, repository: Repository, commit: str, file: str) -> None:
        content = repository.commits[commit][file]
        if not is_large(content):
            self.answer(200, content, ETag=f'"{git_hash(content)}"', X_Repo_Commit=commit)
            return
        etag = hashlib.sha256(content).hexdigest()
        self.answer(
            302,
            Location=f"{self.hub.store_url}/{etag}?signature=x",
            X_Linked_Etag=f'"{etag}"',
            X_Linked_Size=str(len(content)),
            X_Repo_Commit=commit,
        )


class StoreHandler(Handler):
    name = "store"

    def respond(self) -> None:
        wanted = urlsplit(self.path).path[1:]
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                for file, content in files.items():
                    if hashlib.sha256(content).hexdigest() == wanted:
                        self.send(repository.sent.get(file, content))
                        return
        self.answer(404)

    def receive(self, content: bytes) -> None:
        wanted = urlsplit(self.path).path[1:]
        if hashlib.sha256(content).hexdigest() != wanted:
            self.answer(400)
            return
        self.hub.stored[wanted] = content
        self.answer(200)

    def send(self, content: bytes) -> None:
        if self.hub.failures:
            self.answer(self.hub.failures.pop(0))
            return
        start = 0
        if self.hub.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        rest = content[start:]
        headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        if self.hub.breaks and self.command == "GET":
            self.close_connection = True
            cut = rest[: self.hub.breaks.pop(0)]
            self.answer(206 if start else 200, cut, Content_Length=str(len(rest)), **headers)
            return
        self.answer(206 if start else 200, rest, **headers)


@contextmanager
def asked_hub(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub that this process asks, without a token, and whose cache is in ``folder``."""
    patch.setenv(CLOSED_BY_US, "0")
    for name in (*HUB_OFFLINE, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(name, raising=False)
    with running_hub() as hub:
        # What HF_ENDPOINT and HF_HOME set, where they are there before huggingface_hub is imported.
        patch.setattr(constants, "ENDPOINT", hub.url)
        template = "{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{template}")
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
        yield hub
        close_session()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers at ``url`` while the block runs."""
    hub = Hub()
    servers = []
    for kind in (HubHandler, StoreHandler):
        handler = type(kind.__name__, (kind,), {"hub": hub})
        server = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
    hub.url, hub.store_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
