"""A proxy that adds services, events and secrets to the tests' API server.

The server has custom resources only; all other requests are forwarded to it. `kinds` adds one kind
per API version, whose objects are accepted without a check.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import yaml


class ApiServerProxy:
    """Answers as an API server of a cluster in which `services` (name and port: address) run."""

    def __init__(
        self, behind: str, services: dict[str, str], kinds: dict[str, str] | None = None
    ) -> None:
        self.applied: set[str] = set()
        """The kinds, out of `kinds`, that have been applied."""
        self._kinds = kinds or {}
        self.events: list[dict[str, Any]] = []
        self.secrets: dict[str, dict[str, str]] = {}
        self._behind, self._services = behind, services
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.answer(self)

            do_PATCH = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        parts = path.strip("/").split("/")
        core = parts[:3] == ["api", "v1", "namespaces"]
        if core and parts[4] == "services":
            url = self._services[parts[5]] + "/" + path.split("/proxy/", 1)[1]
            self._forward(request, f"{url}?{query}" if query else url)
        elif core and parts[4] == "events":
            self._send(request, {"kind": "EventList", "apiVersion": "v1", "items": self.events})
        elif core and parts[4] == "secrets":
            data = {
                k: base64.b64encode(v.encode()).decode() for k, v in self.secrets[parts[5]].items()
            }
            self._send(request, {"kind": "Secret", "apiVersion": "v1", "data": data})
        elif parts == ["apis"] and self._kinds:
            self._send(request, self._groups(request.headers["authorization"]))
        elif version := next((one for one in self._kinds if path.startswith(f"/apis/{one}")), None):
            self._accept(request, version, path)
        else:
            self._forward(request, self._behind + request.path)

    def _groups(self, authorization: str) -> dict[str, Any]:
        """Return the API groups of the server and those of `kinds`."""
        headers = {"authorization": authorization}
        answer = httpx.get(f"{self._behind}/apis", headers=headers, verify=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        for version in self._kinds:
            entry = {"groupVersion": version, "version": version.split("/")[1]}
            name = version.split("/")[0]
            found["groups"].append({"name": name, "versions": [entry], "preferredVersion": entry})
        return found

    def _accept(self, request: BaseHTTPRequestHandler, version: str, path: str) -> None:
        """List the resources of an API version, or accept an object that is applied."""
        kind = self._kinds[version]
        if path == f"/apis/{version}":
            resource = {"name": f"{kind.lower()}s", "kind": kind, "namespaced": True}
            resources = [resource | {"singularName": kind.lower(), "verbs": ["get", "patch"]}]
            listing = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
            self._send(request, listing)
            return
        assert request.command == "PATCH", request.command
        body = request.rfile.read(int(request.headers["content-length"]))
        self.applied.add(kind)
        self._send(request, yaml.safe_load(body))

    def _send(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        request.send_response(200)
        request.send_header("content-type", "application/json")
        request.end_headers()
        request.wfile.write(json.dumps(body).encode())

    def _forward(self, request: BaseHTTPRequestHandler, url: str) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        leave = {"host", "content-length", "connection", "accept-encoding"}
        headers = {k: v for k, v in request.headers.items() if k.lower() not in leave}
        if not url.startswith(self._behind):  # as a real API server does
            headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        try:
            with httpx.stream(
                request.command, url, headers=headers, content=body, verify=False, timeout=60
            ) as answer:
                request.send_response(answer.status_code)
                kind = answer.headers.get("content-type", "application/octet-stream")
                request.send_header("content-type", kind)
                request.end_headers()
                for piece in answer.iter_raw():
                    request.wfile.write(piece)
                    request.wfile.flush()
        except httpx.TransportError:
            request.send_error(503)
