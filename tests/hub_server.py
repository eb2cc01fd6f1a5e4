"""A server that speaks the routes of the Hugging Face hub, with a second one behind it for large files, both over HTTP.

    GET            /api/{models,datasets}/OWNER/NAME[/revision/COMMIT]      what commit there is
    GET, HEAD      /[datasets/]OWNER/NAME/resolve/REVISION/FILE             a small file, or where a large one lies
    GET, HEAD      /large/SHA256?X-Amz-Signature=...                        on the other port; no token belongs here

Small files carry git's hash as ETag, large ones their sha256 as X-Linked-ETag, errors an X-Error-Code, as at the hub.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
SIGNATURE = "X-Amz-Signature=5ecre7"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Files of one repository, at one commit."""

    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    commit: str = COMMIT
    members: set[str] | None = None
    """Tokens that have access to a gated repository; None: it is not gated."""


@dataclass(frozen=True)
class Seen:
    """A request."""

    where: str
    method: str
    path: str
    range: str | None
    token: str | None


class HubServer:
    """Both servers, in threads of this process."""

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.seen: list[Seen] = []
        self.cuts: list[tuple[str, int]] = []
        """How the next bodies of files end: (`fin` | `rst` | `stall`, after how many bytes)."""
        self.served: dict[str, bytes] = {}
        """Other bytes for a file than it has, by name: a broken disk, a proxy, a forged mirror."""
        self.status: int | None = None
        """Answer everything with this."""
        self.valid = {"hf_member", "hf_stranger"}
        self.going = threading.Event()
        self.front, self.back = self._listen("hub"), self._listen("storage")

    def _listen(self, where):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self, "where": where}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.front.server_port}"

    def add(self, repo_id, repo_type="model", **settings):
        return self.repositories.setdefault((f"{repo_type}s", repo_id), Repository(**settings))

    def requests(self, method, ending, where=None):
        return [one for one in self.seen if one.method == method and urlsplit(one.path).path.endswith(ending)
                and where in (None, one.where)]

    def close(self):
        self.going.set()
        for server in (self.front, self.back):
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    where: str

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.seen.append(Seen(self.where, self.command, self.path, self.headers.get("Range"), self.token))
        path = unquote(urlsplit(self.path).path)
        if self.hub.status is not None:
            self._error(self.hub.status, None, f"out of order; you sent {self.token}")
        elif self.token is not None and self.token not in self.hub.valid:
            self._error(401, None, "Invalid credentials in Authorization header")
        elif self.where == "storage":
            self._large(path.removeprefix("/large/"))
        elif (match := _API.fullmatch(path)) is not None:
            self._info(*match.groups())
        elif (match := _FILE.fullmatch(path)) is not None:
            self._file("datasets" if match[1] else "models", *match.groups()[1:])
        else:
            self._error(404, None, "Not found")

    def _repository(self, kind, repo_id, revision):
        found = self.hub.repositories.get((kind, repo_id))
        if found is None:
            self._error(404 if self.token else 401, "RepoNotFound" if self.token else None, "Repository not found")
        elif revision not in (None, "main", found.commit):
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return found
        return None

    def _info(self, kind, repo_id, revision):
        if (found := self._repository(kind, repo_id, revision)) is not None:
            names = [{"rfilename": name} for name in (*found.files, *found.large)]
            self._send(200, json.dumps({"id": repo_id, "sha": found.commit, "siblings": names}).encode(),
                       {"Content-Type": "application/json"})

    def _file(self, kind, repo_id, revision, name):
        if (found := self._repository(kind, repo_id, revision)) is None:
            return
        if found.members is not None and self.token not in found.members:
            self._error(403 if self.token else 401, "GatedRepo",
                        f"Access to model {repo_id} is restricted. You sent {self.token}.")
            return
        commit = {"X-Repo-Commit": found.commit}
        if name in found.large:
            content = found.large[name]
            digest = hashlib.sha256(content).hexdigest()
            address = f"http://127.0.0.1:{self.hub.back.server_port}/large/{digest}?{SIGNATURE}"
            self._send(302, b"", commit | {"Location": address, "X-Linked-Size": str(len(content)),
                                           "X-Linked-ETag": f'"{digest}"'})
        elif name in found.files:
            content = found.files[name]
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._body(self.hub.served.get(name, content), commit | {"ETag": f'"{blob}"'})
        else:
            self._error(404, "EntryNotFound", "Entry not found", commit)

    def _large(self, digest):
        for found in self.hub.repositories.values():
            for name, content in found.large.items():
                if hashlib.sha256(content).hexdigest() == digest:
                    self._body(self.hub.served.get(name, content), {"ETag": '"of-the-storage"'})
                    return
        self._error(404, None, "no such key")

    def _body(self, content, headers):
        start = 0
        if (asked := self.headers.get("Range")) is not None:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        how, after = self.hub.cuts.pop(0) if self.command == "GET" and self.hub.cuts else ("", len(content))
        self._send(206 if start else 200, content[start:], headers, how, after)

    def _error(self, status, code, message, headers=None):
        said = {"X-Error-Message": message} | ({} if code is None else {"X-Error-Code": code}) | (headers or {})
        self._send(status, json.dumps({"error": message}).encode(), said)

    def _send(self, status, content, headers, how="", after=0):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[:after] if how else content)
        self.wfile.flush()
        if how == "stall":
            self.hub.going.wait(60)
        if how == "rst":  # closing with this option throws away what is not sent yet and resets the connection
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if how:
            self.close_connection = True
