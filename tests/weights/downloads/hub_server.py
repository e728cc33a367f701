"""A server on this machine that speaks as much of the hub's interface as fetching and publishing need."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        files: by repository and name.
        repositories: those that were created.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    repositories: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    address: str = ""
    commit: str = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Serves a hub within the block; sets its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._resolve(body=False)

        def do_GET(self) -> None:
            self._resolve(body=True)

        def do_POST(self) -> None:
            hub.asked.append(f"POST {self.path}")
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/api/repos/create":
                asked = json.loads(content)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.repositories.append(name)
                hub.files.setdefault(name, {})
                self._send(200, json.dumps({"url": f"{hub.address}/{name}"}).encode())
            elif "/preupload/" in self.path:
                files = json.loads(content)["files"]
                answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                self._send(200, json.dumps(answer).encode())
            elif "/commit/" in self.path:
                repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
                for line in content.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        content = base64.b64decode(entry["value"]["content"])
                        hub.files.setdefault(repository, {})[entry["value"]["path"]] = content
                answer = {"commitUrl": f"{hub.address}/{repository}/commit/{hub.commit}", "commitOid": hub.commit}
                self._send(200, json.dumps(answer).encode())
            else:
                self._send(200, b"{}")

        def _resolve(self, body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.asked.append(f"{self.command} {path}")
            repository, found, rest = path.strip("/").partition("/resolve/")
            if not found:
                repository = path.removeprefix("/api/models/").partition("/")[0:1][0]
                self._send(200, json.dumps({"id": path, "sha": hub.commit, "siblings": []}).encode(), body=body)
                return
            if repository not in hub.files:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
                return
            content = hub.files[repository].get(rest.partition("/")[2])
            if content is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit}, body)
                return
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": hub.commit}
            self._send(200, content, headers, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
