"""What `make serve` takes from /readyz once the application runs."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from launch import start


@contextmanager
def answering(*codes: str | None) -> Iterator[str]:
    """Answer with these error codes in turn, None for ready; the last one again and again."""
    left = list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code = left.pop(0) if len(left) > 1 else left[0]
            body = json.dumps({"error": {"code": code, "message": f"why {code}"}}).encode()
            self.send_response(503 if code else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def test_an_answer_that_was_kept_for_somebody_else_ends_nothing():
    with answering("not_ready", None) as address:
        start.check_ready(address)


def test_models_that_do_not_fit_end_the_start_at_once():
    wrong = pytest.raises(start.LaunchError, match="why configuration")
    with answering("configuration", None) as address, wrong:
        start.check_ready(address)


def test_not_ready_ends_the_start_where_it_lasts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(start, "READY_S", 0.1)
    late = pytest.raises(start.LaunchError, match="why not_ready")
    with answering("not_ready") as address, late:
        start.check_ready(address)
