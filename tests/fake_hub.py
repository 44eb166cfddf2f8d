"""A hub on loopback that serves models and data sets as huggingface.co does, as far as needed."""

import contextlib
import hashlib
import http.server
import json
import os
import re
import threading
import urllib.parse

COMMIT = "c0ffee" * 6 + "c0ff"  # of every branch called main


class Hub(http.server.ThreadingHTTPServer):
    """Serves {(repository, branch): {path: bytes}}."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {}
        self.requests = []  # (method, path, Range header)
        self.cut_next = False  # send half of the next file and hang up
        self.fail = ""  # answer 403 for files whose path contains this
        self.gated = ""  # a repository whose licence was not accepted

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files_asked_for(self):
        return [
            path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path
        ]


def commit(branch):
    return COMMIT if branch == "main" else hashlib.sha1(branch.encode()).hexdigest()


@contextlib.contextmanager
def serve():
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(hub, home, **more):
    """Variables of a process that knows no other hub."""
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return {
        **clean,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **more,
    }


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def log_message(self, *_):
        pass

    def _answer(self, body):
        # A proxy is asked for whole addresses.
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        api = r"/api/(?:models|datasets)/([^/]+/[^/]+)/(revision|tree)/(.+?)/?"
        if match := re.fullmatch(api, path):
            repository, what, revision = match.groups()
            branch = self._branch(repository, revision)
            if branch is None:
                known = any(name == repository for name, _ in self.server.repositories)
                self._refuse(404, "RevisionNotFound" if known else "RepoNotFound")
            elif what == "revision":
                files = self.server.repositories[repository, branch]
                siblings = [{"rfilename": name} for name in files]
                self._json({"id": repository, "sha": commit(branch), "siblings": siblings})
            else:
                files = self.server.repositories[repository, branch]
                self._json([self._entry(name, content) for name, content in files.items()])
        elif match := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, revision, name = match.groups()
            if repository == self.server.gated:
                self._refuse(403, "GatedRepo")
                return
            branch = self._branch(repository, revision)
            files = self.server.repositories[repository, branch]
            self._file(files[name], commit(branch), body, name)
        else:
            self.send_error(404)

    def _branch(self, repository, revision):
        for name, branch in self.server.repositories:
            if name == repository and revision in (branch, commit(branch)):
                return branch
        return None

    def _refuse(self, code, reason):
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _entry(self, name, content):
        lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 9}
        return {"type": "file", "path": name, "size": len(content), "oid": "0" * 40, "lfs": lfs}

    def _json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, content, commit, body, name):
        if self.server.fail and self.server.fail in name:
            self.send_error(403)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            half = self.server.cut_next
            self.server.cut_next = False
            self.wfile.write(content[start : len(content) // 2 if half else None])
            if half:
                self.wfile.flush()
                self.connection.close()
