"""What is asked of an API server, and its answers as errors that a person understands."""

import base64
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.rest import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from k8s.errors import K8sError, Unreachable
from k8s.manifests import Manifest

MANAGER = "audiocraft-serve"
RAY, RAY_SERVICE = "ray.io/v1", "RayService"
TIMEOUT_S = (5.0, 30.0)
"""To connect; between two pieces of an answer."""
IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _Client(client.ApiClient):  # type: ignore[misc]
    """Gives up where the server says nothing for too long, whoever asks."""

    def call_api(self, *arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
        timeout = _request_timeout or TIMEOUT_S
        return super().call_api(*arguments, _request_timeout=timeout, **options)


class NotThere(K8sError):
    """There is no such object."""

    kind = "not_found"


class Expired(K8sError):
    """What was watched from is too old (410): list again."""


class Cluster:
    """One namespace of one API server."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        """Ask for what kinds it has. Raises Unreachable."""
        self.namespace = namespace
        self._api = api
        # Discovery is kept in a file named after the host, unless told otherwise: servers that
        # take turns on one address would be given one another's kinds.
        self._folder = tempfile.TemporaryDirectory()
        with explained("the API server"):
            self._dynamic = DynamicClient(api, cache_file=f"{self._folder.name}/kinds.json")

    def apply(self, body: Manifest, *, dry_run: bool) -> Manifest:
        """Apply on the server's side as our field manager; another's fields are not taken.

        Raises K8sError: a conflict names the manager and its fields.
        """
        name = f"{body['kind']} {body['metadata']['name']}"
        with explained(name):
            resource = self._resource(body["apiVersion"], body["kind"])
            done = self._dynamic.server_side_apply(
                resource,
                body=body,
                namespace=self.namespace,
                field_manager=MANAGER,
                **({"dry_run": "All"} if dry_run else {}),
            )
        applied: Manifest = done.to_dict()
        return applied

    def get(self, version: str, kind: str, name: str) -> Manifest:
        """Return an object. Raises NotThere."""
        with explained(f"{kind} {name}"):
            found = self._resource(version, kind).get(name=name, namespace=self.namespace)
        object_: Manifest = found.to_dict()
        return object_

    def watch(self, service: Manifest, seconds: int) -> Iterator[Manifest]:
        """Yield each new state of a RayService after this one, for so long. Raises Expired."""
        metadata = service["metadata"]
        with explained(f"{RAY_SERVICE} {metadata['name']}"):
            for event in self._resource(RAY, RAY_SERVICE).watch(
                namespace=self.namespace,
                name=metadata["name"],
                resource_version=metadata["resourceVersion"],
                timeout=seconds,
            ):
                if event["type"] != "DELETED":
                    yield event["raw_object"]

    def delete(self, body: Manifest) -> bool:
        """Delete an object and what it owns; return whether it was there."""
        name = body["metadata"]["name"]
        try:
            with explained(f"{body['kind']} {name}"):
                self._resource(body["apiVersion"], body["kind"]).delete(
                    name=name, namespace=self.namespace
                )
        except NotThere:
            return False
        return True

    def events(self, name: str) -> list[str]:
        """Return what was last said about an object, the newest at the end."""
        with explained("events"):
            found = client.CoreV1Api(self._api).list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.name={name}",
            )
        return [f"{event.type} {event.reason}: {event.message}" for event in found.items]

    def secret(self, name: str, key: str) -> str:
        """Return a value of a secret. Raises NotThere."""
        with explained(f"Secret {name}"):
            found = client.CoreV1Api(self._api).read_namespaced_secret(name, self.namespace)
        data = found.data or {}
        if key not in data:
            raise NotThere(f"Secret {name} has no {key}")
        return base64.b64decode(data[key]).decode()

    def through(self, service: str, port: int, path: str, **headers: str) -> bytes:
        """GET from a service inside the cluster, by way of the API server. Raises K8sError."""
        inside = f"/api/v1/namespaces/{self.namespace}/services/{service}:{port}/proxy/{path}"
        headers = dict(headers)
        self._api.update_params_for_auth(headers, [], ["BearerToken"], inside, "GET", None)
        with explained(f"service {service}"):
            answer = self._api.call_api(
                *("GET", f"{self._api.configuration.host}{inside}"),
                header_params=headers,
            )
            answer.read()
        if not 200 <= answer.status < 300:
            raise K8sError(f"{service}:{port}/{path}: {answer.status}: {_message(answer.data)}")
        body: bytes = answer.data
        return body

    def _resource(self, version: str, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=version, kind=kind)


def connect(kubeconfig: str | None, context: str | None, namespace: str | None) -> Cluster:
    """Connect as kubectl does, or as a pod's own account. Raises K8sError."""
    settings = client.Configuration()
    try:
        config.load_kube_config(kubeconfig, context, settings, persist_config=False)
        _, active = config.list_kube_config_contexts(kubeconfig)
        if context:
            contexts = config.list_kube_config_contexts(kubeconfig)[0]
            active = next(one for one in contexts if one["name"] == context)
        inside = active["context"].get("namespace", "default")
    except ConfigException as error:
        if kubeconfig or context:
            raise K8sError(f"kubeconfig: {error}") from error
        try:
            config.load_incluster_config(settings)
            inside = IN_CLUSTER_NAMESPACE.read_text()
        except (ConfigException, OSError):
            raise K8sError(f"no kubeconfig ({error}), and not in a pod") from error
    settings.retries = 0
    return Cluster(_Client(settings), namespace or inside)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what the client raises into one line about `what`."""
    try:
        yield
    except ResourceNotFoundError as error:
        raise K8sError(
            f"{what}: the cluster has no such kind; is its operator installed?"
        ) from error
    except ApiException as error:
        raise _error(what, error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(f"the API server does not answer: {reason}") from error


def _error(what: str, error: ApiException) -> K8sError:
    message = _message(error.body) or error.reason or "no reason given"
    if error.status == 401:
        return Unreachable("the API server does not know us (401): check the kubeconfig's token")
    if error.status == 403:
        return Unreachable(f"{what}: not allowed (403): {message}")
    if error.status == 404:
        return NotThere(f"{what}: not found")
    if error.status == 410:
        return Expired(f"{what}: {message}")
    if error.status == 409:
        return K8sError(f"{what}: conflict, nothing was changed: {message}")
    # A field that the schema has not comes back as 500, and would again.
    if error.status in (400, 422) or "failed to create typed patch object" in message:
        return K8sError(f"{what}: refused: {message}")
    if error.status in (429, 500, 502, 503, 504):
        return Unreachable(f"{what}: the API server failed ({error.status}): {message}")
    return K8sError(f"{what}: {error.status}: {message}")


def _message(body: Any) -> str:
    """Return the message of a Kubernetes Status, of our own errors, or the text itself."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        answer = json.loads(text)
    except ValueError:
        return text.strip()
    found = answer.get("message") or (answer.get("error") or {}).get("message")
    return str(found or text)
