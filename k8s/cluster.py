"""Sends requests to a Kubernetes API server, and explains its errors in one line."""

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
"""Longest wait for a connection, and for the next bytes of a response, in seconds."""
IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _ApiClient(client.ApiClient):  # type: ignore[misc]
    """An API client whose requests all have a timeout."""

    def call_api(self, *arguments: Any, _request_timeout: Any = None, **options: Any) -> Any:
        timeout = _request_timeout or TIMEOUT_S
        return super().call_api(*arguments, _request_timeout=timeout, **options)


class NotFound(K8sError):
    """The object does not exist (404)."""

    kind = "not_found"


class Expired(K8sError):
    """The version that a watch starts from is too old (410); read the object again."""


class Cluster:
    """A namespace of a Kubernetes cluster."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        """Read which kinds of objects the cluster has. Raises Unreachable."""
        self.namespace = namespace
        self._api = api
        # By default, DynamicClient caches the kinds in a file that is named after the host. If
        # another server later has the same address, it would get the wrong kinds.
        self._folder = tempfile.TemporaryDirectory()
        with explain_errors("the API server"):
            self._dynamic = DynamicClient(api, cache_file=f"{self._folder.name}/kinds.json")

    def apply_manifest(self, body: Manifest, *, dry_run: bool) -> Manifest:
        """Apply a manifest by server-side apply, as the field manager `audiocraft-serve`.

        Raises K8sError if another manager owns a changed field; the message names both.
        """
        name = f"{body['kind']} {body['metadata']['name']}"
        with explain_errors(name):
            resource = self._find_resource(body["apiVersion"], body["kind"])
            response = self._dynamic.server_side_apply(
                resource,
                body=body,
                namespace=self.namespace,
                field_manager=MANAGER,
                **({"dry_run": "All"} if dry_run else {}),
            )
        applied: Manifest = response.to_dict()
        return applied

    def get_object(self, version: str, kind: str, name: str) -> Manifest:
        """Return an object of the namespace. Raises NotFound."""
        with explain_errors(f"{kind} {name}"):
            found = self._find_resource(version, kind).get(name=name, namespace=self.namespace)
        object_: Manifest = found.to_dict()
        return object_

    def watch_service(self, service: Manifest, seconds: int) -> Iterator[Manifest]:
        """Yield the later states of a RayService for some seconds. Raises Expired."""
        metadata = service["metadata"]
        with explain_errors(f"{RAY_SERVICE} {metadata['name']}"):
            for event in self._find_resource(RAY, RAY_SERVICE).watch(
                namespace=self.namespace,
                name=metadata["name"],
                resource_version=metadata["resourceVersion"],
                timeout=seconds,
            ):
                if event["type"] != "DELETED":
                    yield event["raw_object"]

    def delete_object(self, body: Manifest) -> bool:
        """Delete an object and what it owns; return whether it existed."""
        name = body["metadata"]["name"]
        try:
            with explain_errors(f"{body['kind']} {name}"):
                self._find_resource(body["apiVersion"], body["kind"]).delete(
                    name=name, namespace=self.namespace
                )
        except NotFound:
            return False
        return True

    def read_events(self, name: str) -> list[str]:
        """Return the events of an object as text, the newest at the end."""
        with explain_errors("events"):
            found = client.CoreV1Api(self._api).list_namespaced_event(
                self.namespace,
                field_selector=f"involvedObject.name={name}",
            )
        return [f"{event.type} {event.reason}: {event.message}" for event in found.items]

    def read_secret(self, name: str, key: str) -> str:
        """Return the value of a key of a Secret. Raises NotFound."""
        with explain_errors(f"Secret {name}"):
            found = client.CoreV1Api(self._api).read_namespaced_secret(name, self.namespace)
        data = found.data or {}
        if key not in data:
            raise NotFound(f"Secret {name} has no key {key}")
        return base64.b64decode(data[key]).decode()

    def get_from_service(self, service: str, port: int, path: str, **headers: str) -> bytes:
        """Send GET to a service in the cluster through the API server's proxy. Raises K8sError."""
        proxy_path = f"/api/v1/namespaces/{self.namespace}/services/{service}:{port}/proxy/{path}"
        headers = dict(headers)
        self._api.update_params_for_auth(headers, [], ["BearerToken"], proxy_path, "GET", None)
        with explain_errors(f"service {service}"):
            answer = self._api.call_api(
                *("GET", f"{self._api.configuration.host}{proxy_path}"),
                header_params=headers,
            )
            answer.read()
        if not 200 <= answer.status < 300:
            raise K8sError(
                f"{service}:{port}/{path}: {answer.status}: {_read_message(answer.data)}"
            )
        body: bytes = answer.data
        return body

    def _find_resource(self, version: str, kind: str) -> Any:
        return self._dynamic.resources.get(api_version=version, kind=kind)


def connect_cluster(kubeconfig: str | None, context: str | None, namespace: str | None) -> Cluster:
    """Connect with the kubeconfig, as kubectl does, or in a pod with its service account.

    Raises K8sError.
    """
    settings = client.Configuration()
    try:
        config.load_kube_config(kubeconfig, context, settings, persist_config=False)
        _, active = config.list_kube_config_contexts(kubeconfig)
        if context:
            contexts = config.list_kube_config_contexts(kubeconfig)[0]
            active = next(one for one in contexts if one["name"] == context)
        default_namespace = active["context"].get("namespace", "default")
    except ConfigException as error:
        if kubeconfig or context:
            raise K8sError(f"kubeconfig: {error}") from error
        try:
            config.load_incluster_config(settings)
            default_namespace = IN_CLUSTER_NAMESPACE.read_text()
        except (ConfigException, OSError):
            raise K8sError(f"no kubeconfig was found ({error}), and this is not a pod") from error
    settings.retries = 0
    return Cluster(_ApiClient(settings), namespace or default_namespace)


@contextmanager
def explain_errors(what: str) -> Iterator[None]:
    """Raise errors of the Kubernetes client as K8sError, with one line about `what`."""
    try:
        yield
    except ResourceNotFoundError as error:
        raise K8sError(
            f"{what}: the cluster has no such kind; is its operator installed?"
        ) from error
    except ApiException as error:
        raise _build_error(what, error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(f"the API server does not answer: {reason}") from error


def _build_error(what: str, error: ApiException) -> K8sError:
    message = _read_message(error.body) or error.reason or "no reason given"
    if error.status == 401:
        return Unreachable(
            "the API server rejects the credentials (401): check the kubeconfig's token"
        )
    if error.status == 403:
        return Unreachable(f"{what}: not allowed (403): {message}")
    if error.status == 404:
        return NotFound(f"{what}: not found")
    if error.status == 410:
        return Expired(f"{what}: {message}")
    if error.status == 409:
        return K8sError(f"{what}: conflict, nothing was changed: {message}")
    # A field that the schema does not have comes back as 500; a retry would not help.
    if error.status in (400, 422) or "failed to create typed patch object" in message:
        return K8sError(f"{what}: refused: {message}")
    if error.status in (429, 500, 502, 503, 504):
        return Unreachable(f"{what}: the API server failed ({error.status}): {message}")
    return K8sError(f"{what}: {error.status}: {message}")


def _read_message(body: Any) -> str:
    """Return the message of a Kubernetes Status or of this API's error, or else the whole text."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        answer = json.loads(text)
    except ValueError:
        return text.strip()
    found = answer.get("message") or (answer.get("error") or {}).get("message")
    return str(found or text)
