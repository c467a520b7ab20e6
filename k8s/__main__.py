"""`python -m k8s`: from an overlay to a service that is proven to run, and back.

Exit codes: 0, done; 1, it failed; 2, a wrong command line; 3, it took too long; 4, the API server
does not answer or does not let us in.
"""

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from k8s import manifests, revisions, rollout
from k8s.cluster import RAY, RAY_SERVICE, Cluster, connect
from k8s.errors import K8sError
from k8s.manifests import Manifest
from k8s.rules import problems
from k8s.serve_config import NAME, OVERLAYS, generated
from k8s.yaml_text import dump_all

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Overlay = Annotated[str, typer.Argument(help="one of ours by name, or a kustomize folder")]
Name = Annotated[str, typer.Option(help="of the RayService")]
Seconds = Annotated[float, typer.Option(help="to wait, in seconds")]


@dataclass
class Told:
    """How to reach the cluster, and how to answer."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None
    as_json: bool

    def cluster(self) -> Cluster:
        """Connect. Raises K8sError."""
        return connect(self.kubeconfig, self.context, self.namespace)

    def answer(self, text: str, **facts: Any) -> None:
        """Print the answer, for people or as one JSON object."""
        print(json.dumps(facts) if self.as_json else text)


@app.callback()
def options(
    context: typer.Context,
    kubeconfig: Annotated[str | None, typer.Option(help="as kubectl's")] = None,
    kube_context: Annotated[str | None, typer.Option("--context", help="of the kubeconfig")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="answer with one JSON object")] = False,
) -> None:
    """Keep what all commands share."""
    context.obj = Told(kubeconfig, kube_context, namespace, as_json)


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose K8sErrors become one line and their exit code."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(context: typer.Context, **arguments: Any) -> None:
            try:
                function(context, **arguments)
            except K8sError as error:
                told: Told = context.obj
                if told.as_json:
                    print(json.dumps({"error": {"type": error.kind, "message": str(error)}}))
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(error.exit_code) from error

        return app.command(name)(run)

    return register


def say(message: str) -> None:
    """Print progress, apart from the answer."""
    print(message, file=sys.stderr, flush=True)


def checked(overlay: str) -> list[Manifest]:
    """Return the objects of an overlay. Raises K8sError with all that is wrong."""
    objects = manifests.render(overlay)
    if found := problems(manifests.ray_service(objects)):
        raise K8sError("\n".join([f"{overlay}: not valid", *(f"  {one}" for one in found)]))
    return objects


@command("generate")
def generate(context: typer.Context) -> None:
    """Write the overlays' generated files anew from their settings."""
    written = []
    for settings in sorted(OVERLAYS.glob("*/settings.yaml")):
        for name, text in generated(settings.parent).items():
            (settings.parent / name).write_text(text)
            written.append(f"{settings.parent.name}/{name}")
    context.obj.answer("\n".join(written), written=written)


@command("render")
def render(context: typer.Context, overlay: Overlay) -> None:
    """Print the objects of an overlay."""
    objects = manifests.render(overlay)
    context.obj.answer(dump_all(objects).rstrip(), objects=objects)


@command("validate")
def validate(context: typer.Context, overlay: Overlay) -> None:
    """Check an overlay by the operator's own rules and ours, without a cluster."""
    objects = checked(overlay)
    context.obj.answer(f"{overlay}: {len(objects)} objects, valid", valid=True)


@command("deploy")
def deploy(
    context: typer.Context,
    overlay: Overlay,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="stop before applying")] = False,
) -> None:
    """Validate, try on the server, then apply; what others manage is not taken from them."""
    objects, cluster = checked(overlay), context.obj.cluster()
    service = manifests.ray_service(objects)
    name = service["metadata"]["name"]
    remembered = revisions.remembering(service, revisions.current(cluster, name))
    # The service last: what it mounts and reads is there before it.
    wanted = [*(one for one in objects if one is not service), remembered]
    for one in wanted:
        cluster.apply(one, dry_run=True)
    done = [] if dry_run else [cluster.apply(one, dry_run=False) for one in wanted]
    applied = [f"{one['kind']} {one['metadata']['name']}" for one in done]
    text = "\n".join(f"applied {one}" for one in applied) or f"{len(wanted)} objects would apply"
    context.obj.answer(text, applied=applied, dry_run=dry_run)


@command("wait")
def wait(context: typer.Context, name: Name = NAME, timeout: Seconds = 1800) -> None:
    """Wait until the service is proven to serve what was applied."""
    cluster = context.obj.cluster()

    def served() -> str | None:
        return rollout.hash_of(cluster.through(f"{name}-serve-svc", 8000, "readyz"))

    service = rollout.wait(cluster, name, timeout, served, say)
    found = rollout.expected_hash(service)
    context.obj.answer(f"{name} serves configuration {found}", ready=True, config_hash=found)


@command("status")
def status(context: typer.Context, name: Name = NAME) -> None:
    """Show applications, deployments and endpoints, as the operator last saw them."""
    service = context.obj.cluster().get(RAY, RAY_SERVICE, name)
    verdict, found = rollout.judge(service), service.get("status") or {}
    active = found.get("activeServiceStatus") or {}
    lines = [
        f"{name}: {verdict.state}: {verdict.message}",
        f"cluster {active.get('rayClusterName')}, {found.get('numServeEndpoints', 0)} endpoints",
    ]
    for application, at in (active.get("applicationStatuses") or {}).items():
        lines.append(f"  {application:<24} {at.get('status')}")
        deployments = at.get("serveDeploymentStatuses") or {}
        lines += [f"    {one:<22} {state.get('status')}" for one, state in deployments.items()]
    context.obj.answer("\n".join(lines), state=verdict.state, message=verdict.message, status=found)


@command("rollback")
def rollback(context: typer.Context, name: Name = NAME) -> None:
    """Apply the specification that was applied before the last one; `wait` for it as ever."""
    cluster = context.obj.cluster()
    service = revisions.previous(cluster, name)
    cluster.apply(service, dry_run=True)
    cluster.apply(service, dry_run=False)
    found = rollout.expected_hash(service)
    context.obj.answer(f"{name} is to serve configuration {found} again", config_hash=found)


@command("logs")
def logs(
    context: typer.Context,
    deployment: Annotated[str, typer.Argument(help="such as ingress or musicgen-small")],
    name: Name = NAME,
    lines: Annotated[int, typer.Option(help="of each replica")] = 100,
) -> None:
    """Print the last lines of each replica of a deployment."""
    cluster = context.obj.cluster()
    service = cluster.get(RAY, RAY_SERVICE, name)
    dashboard = functools.partial(cluster.through, f"{name}-head-svc", 8265)
    told = _ray_token(cluster, service)
    serve = json.loads(dashboard("api/serve/applications/", **told))
    found = {}
    for application in serve["applications"].values():
        for replica in (application["deployments"].get(deployment) or {}).get("replicas", []):
            file = replica["log_file_path"].lstrip("/")
            where = f"node_id={replica['node_id']}&filename={file}&lines={lines}"
            text = dashboard(f"api/v0/logs/file?{where}", **told)
            found[replica["replica_id"]] = text.decode(errors="replace")
    if not found:
        raise K8sError(f"{name}: no replica of {deployment!r} runs")
    text = "\n".join(f"== {replica}\n{told}" for replica, told in found.items())
    context.obj.answer(text, replicas=found)


def _ray_token(cluster: Cluster, service: Manifest) -> dict[str, str]:
    """Return the dashboard's header; `Authorization` would be for the API server itself."""
    options = service["spec"]["rayClusterConfig"].get("authOptions") or {}
    if options.get("mode") != "token":
        return {}
    running = service["status"]["activeServiceStatus"]["rayClusterName"]
    token = cluster.secret(options.get("secretName") or running, "auth_token")
    return {"X-Ray-Authorization": f"Bearer {token}"}


@command("port-forward")
def port_forward(context: typer.Context, name: Name = NAME, port: int = 8000) -> None:
    """Print the command that makes the API reachable from here."""
    namespace = context.obj.cluster().namespace
    kubectl = f"kubectl -n {namespace} port-forward service/{name}-serve-svc {port}:8000"
    context.obj.answer(kubectl, command=kubectl)


@command("delete")
def delete(context: typer.Context, overlay: Overlay) -> None:
    """Delete the objects of an overlay, but for volumes: they hold what was fetched and made."""
    cluster, gone, kept = context.obj.cluster(), [], []
    for one in reversed(manifests.render(overlay)):
        title = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "PersistentVolumeClaim":
            kept.append(title)
        elif cluster.delete(one):
            gone.append(title)
    text = "\n".join([*(f"deleted {one}" for one in gone), *(f"kept {one}" for one in kept)])
    context.obj.answer(text, deleted=gone, kept=kept)


if __name__ == "__main__":
    app()
