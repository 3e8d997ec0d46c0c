"""A registry of images, as far as `docker pull` needs one, that can be slow and silent.

    registry.py PORT PROGRAM LOG

Every repository has one image: PROGRAM as its entry point. Begins its name with `slow/`, the image comes slowly; with
`hung/`, the registry never answers; with `missing/`, there is none. Every request is a line of LOG.
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SLICES = 20
PAUSE_S = 0.1


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(program: Path, repository: str) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        tar.add(program, "workload")
        # Layers that differ, or the engine would have them from another image.
        name = tarfile.TarInfo("name")
        name.size = len(repository)
        tar.addfile(name, io.BytesIO(repository.encode()))
    return output.getvalue()


class Images:
    def __init__(self, program: Path) -> None:
        self._program = program
        self._made: dict[str, tuple[bytes, dict[str, bytes]]] = {}

    def of(self, repository: str) -> tuple[bytes, dict[str, bytes]]:
        """The manifest and the blobs."""
        if repository not in self._made:
            unpacked = layer(self._program, repository)
            packed = gzip.compress(unpacked, mtime=0)
            config = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": {"Entrypoint": ["/workload"], "Cmd": ["wait"]},
                    "rootfs": {"type": "layers", "diff_ids": [digest(unpacked)]},
                }
            ).encode()
            described = [
                {"mediaType": kind, "size": len(content), "digest": digest(content)}
                for kind, content in [
                    ("application/vnd.docker.container.image.v1+json", config),
                    ("application/vnd.docker.image.rootfs.diff.tar.gzip", packed),
                ]
            ]
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
            blobs = {digest(config): config, digest(packed): packed}
            self._made[repository] = (json.dumps(manifest).encode(), blobs)
        return self._made[repository]


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    images: Images
    log: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with self.log.open("a") as log:
            log.write(f"{self.command} {self.path}\n")
        if self.path == "/v2/":
            return self.answer(200, b"{}", "application/json")
        _, _, rest = self.path.partition("/v2/")
        repository, kind, wanted = rest.rsplit("/", 2)
        if repository.startswith("hung/"):
            time.sleep(3600)
        if repository.startswith("missing/"):
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return self.answer(404, json.dumps(error).encode(), "application/json")
        manifest, blobs = self.images.of(repository)
        if kind == "manifests":
            return self.answer(200, manifest, MANIFEST)
        self.answer(200, blobs[wanted], "application/octet-stream", repository.startswith("slow/"))

    def answer(self, status: int, content: bytes, kind: str, is_slow: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest(content))
        self.end_headers()
        if self.command == "HEAD":
            return
        size = -(-len(content) // SLICES) if is_slow else len(content)
        for begin in range(0, len(content), size or 1):
            self.wfile.write(content[begin : begin + size])
            self.wfile.flush()
            if is_slow:
                time.sleep(PAUSE_S)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port, program, log = sys.argv[1:]
    Registry.images = Images(Path(program))
    Registry.log = Path(log)
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(port)), Registry).serve_forever()
