"""A web server on this machine that breaks off some of its answers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def serving(files: Mapping[str, bytes], cuts: Mapping[str, int]) -> Iterator[tuple[str, Counter[str]]]:
    """The server's address, and how often each file's body was asked for.

    Args:
        cuts: how many first answers with a file's body end half way.
    """
    requests: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head()

        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            body = self._head()
            requests[name] += 1
            cut = requests[name] <= cuts.get(name, 0)
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

        def _head(self) -> bytes:
            body = files.get(self.path.removeprefix("/"))
            self.send_response(403 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            return body or b""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
