"""A Hub on loopback: repositories from a dict, the routes that huggingface_hub asks, each request remembered."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = Mapping[str, bytes]


@dataclass
class FakeHub:
    """Repositories by kind and name ("datasets/org/name"), the files of their `main`."""

    repos: dict[str, Files]
    asked: list[str] = field(default_factory=list)
    made: dict[str, bool] = field(default_factory=dict)  # repositories that were made, and whether they are private
    token: str | None = None  # without it nothing may be written
    url: str = ""

    def commit(self, repo: str) -> str:
        parts = [repo, *(name + hashlib.sha256(data).hexdigest() for name, data in sorted(self.repos[repo].items()))]
        return hashlib.sha1("".join(parts).encode()).hexdigest()

    def split(self, path: str) -> tuple[str, str] | None:
        """The repository that a path begins with, and the rest of it."""
        path = path.removeprefix("/api/models/").removeprefix("/api/").strip("/")
        for repo in self.repos:
            for spelled in (repo, repo.removeprefix("models/")):
                if path == spelled or path.startswith(spelled + "/"):
                    return repo, path[len(spelled) :].strip("/")
        return None


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _missing(self, code: str) -> None:
            self._send(404, b'{"error": "not found"}', {"X-Error-Code": code, "Content-Type": "application/json"})

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            found = hub.split(path)
            if found is None:
                self._missing("RepoNotFound")
                return
            repo, rest = found
            commit, files = hub.commit(repo), hub.repos[repo]
            action, _, tail = rest.partition("/")
            revision, _, name = tail.partition("/")
            if action in ("resolve", "revision", "tree") and revision not in ("main", commit):
                self._missing("RevisionNotFound")
            elif action == "resolve" and name not in files:
                self._missing("EntryNotFound")
            elif action == "resolve":
                etag = hashlib.sha256(files[name]).hexdigest()
                self._send(200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
            else:
                listed = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest(),
                           "rfilename": name} for name, data in files.items()]  # fmt: skip
                info = {"id": repo.partition("/")[2], "sha": commit, "siblings": listed, "private": False, "tags": []}
                body = listed if action == "tree" else info
                self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        do_GET = do_HEAD = _answer

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_POST(self) -> None:
            """What sending a folder asks for: a repository, how each file is to be sent, and a commit."""
            path, body = unquote(urlsplit(self.path).path), self._body()
            hub.asked.append(f"POST {path}")
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(401, b'{"error": "not allowed"}', {"Content-Type": "application/json"})
                return
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
                hub.made.setdefault(name, asked.get("visibility") == "private" or bool(asked.get("private")))
                hub.repos.setdefault(f"models/{name}", {})
                self._reply({"url": f"{hub.url}/{name}", "id": name})
                return
            repo, rest = hub.split(path) or ("", "")
            if rest.startswith("preupload/"):
                files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in
                         json.loads(body)["files"]]  # fmt: skip
                self._reply({"files": files})
            elif rest.startswith("commit/"):
                lines = [json.loads(line) for line in body.splitlines() if line.strip()]
                sent = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines
                        if line["key"] == "file"}  # fmt: skip
                hub.repos[repo] = {**hub.repos[repo], **sent}
                commit = hub.commit(repo)
                url = f"{hub.url}/{repo.removeprefix('models/')}/commit/{commit}"
                self._reply({"commitUrl": url, "commitOid": commit, "success": True})
            else:
                self._reply({})

        def _reply(self, value: Mapping[str, Any]) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    return Handler


@contextmanager
def fake_hub(repos: dict[str, Files]) -> Iterator[FakeHub]:
    """Serve these repositories until the block ends."""
    hub = FakeHub(repos)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
