"""Deploys an overlay to a Kubernetes cluster, and checks, watches, rolls back or deletes it.

Exit codes: 0, done; 1, failed; 2, invalid command line; 3, timed out; 4, the API server does not
answer or denies access.
"""

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from k8s import manifests, revisions, rollout
from k8s.cluster import RAY, RAY_SERVICE, Cluster, connect_cluster
from k8s.errors import K8sError
from k8s.manifests import Manifest
from k8s.rules import find_problems
from k8s.serve_config import NAME, OVERLAYS, generate_files
from k8s.yaml_text import dump_yaml_all

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Overlay = Annotated[
    str, typer.Argument(help="name of an overlay in k8s/overlays, or a kustomize folder")
]
Name = Annotated[str, typer.Option(help="name of the RayService")]
Seconds = Annotated[float, typer.Option(help="longest wait in seconds")]


@dataclass
class CommandContext:
    """The options that all commands share: the cluster and the output format."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None
    as_json: bool

    def connect_cluster(self) -> Cluster:
        """Connect to the cluster. Raises K8sError."""
        return connect_cluster(self.kubeconfig, self.context, self.namespace)

    def print_answer(self, text: str, **facts: Any) -> None:
        """Print the answer on stdout: `text`, or with --json `facts` as one JSON object."""
        print(json.dumps(facts) if self.as_json else text)


@app.callback()
def set_shared_options(
    context: typer.Context,
    kubeconfig: Annotated[str | None, typer.Option(help="path, as for kubectl")] = None,
    kube_context: Annotated[
        str | None, typer.Option("--context", help="context in the kubeconfig")
    ] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the answer as one JSON object")
    ] = False,
) -> None:
    """Store the options that all commands share."""
    context.obj = CommandContext(kubeconfig, kube_context, namespace, as_json)


def register_command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that registers a command, and prints K8sErrors before it exits."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(context: typer.Context, **arguments: Any) -> None:
            try:
                function(context, **arguments)
            except K8sError as error:
                if context.obj.as_json:
                    print(json.dumps({"error": {"type": error.kind, "message": str(error)}}))
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(error.exit_code) from error

        return app.command(name)(run)

    return register


def print_progress(message: str) -> None:
    """Print progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def render_valid(overlay: str) -> list[Manifest]:
    """Return the manifests of an overlay. Raises K8sError with all problems of its RayService."""
    objects = manifests.render_overlay(overlay)
    if found := find_problems(manifests.find_ray_service(objects)):
        raise K8sError("\n".join([f"{overlay}: not valid", *(f"  {one}" for one in found)]))
    return objects


@register_command("generate")
def write_generated_files(context: typer.Context) -> None:
    """Generate the files of all overlays from their settings."""
    written = []
    for settings in sorted(OVERLAYS.glob("*/settings.yaml")):
        for name, text in generate_files(settings.parent).items():
            (settings.parent / name).write_text(text)
            written.append(f"{settings.parent.name}/{name}")
    context.obj.print_answer("\n".join(written), written=written)


@register_command("render")
def print_manifests(context: typer.Context, overlay: Overlay) -> None:
    """Print the manifests of an overlay."""
    objects = manifests.render_overlay(overlay)
    context.obj.print_answer(dump_yaml_all(objects).rstrip(), objects=objects)


@register_command("validate")
def validate_overlay(context: typer.Context, overlay: Overlay) -> None:
    """Check an overlay by KubeRay's and this project's rules, without a cluster."""
    objects = render_valid(overlay)
    context.obj.print_answer(f"{overlay}: {len(objects)} objects, valid", valid=True)


@register_command("deploy")
def deploy_overlay(
    context: typer.Context,
    overlay: Overlay,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only check, do not apply")] = False,
) -> None:
    """Validate, run a server-side dry run, then apply; fields of other managers are not changed."""
    objects, cluster = render_valid(overlay), context.obj.connect_cluster()
    service = manifests.find_ray_service(objects)
    name = service["metadata"]["name"]
    recorded = revisions.record_revision(service, revisions.read_annotations(cluster, name))
    # The service comes last, after the objects that it mounts and reads.
    wanted = [*(one for one in objects if one is not service), recorded]
    for one in wanted:
        cluster.apply_manifest(one, dry_run=True)
    done = [] if dry_run else [cluster.apply_manifest(one, dry_run=False) for one in wanted]
    applied = [f"{one['kind']} {one['metadata']['name']}" for one in done]
    text = "\n".join(f"applied {one}" for one in applied) or f"{len(wanted)} objects would apply"
    context.obj.print_answer(text, applied=applied, dry_run=dry_run)


@register_command("wait")
def wait_for_service(context: typer.Context, name: Name = NAME, timeout: Seconds = 1800) -> None:
    """Wait until the service serves the configuration that was applied."""
    cluster = context.obj.connect_cluster()

    def ask_hash() -> str | None:
        return rollout.parse_readyz(cluster.get_from_service(f"{name}-serve-svc", 8000, "readyz"))

    service = rollout.wait_until_ready(cluster, name, timeout, ask_hash, print_progress)
    found = rollout.read_expected_hash(service)
    context.obj.print_answer(f"{name} serves configuration {found}", ready=True, config_hash=found)


@register_command("status")
def show_status(context: typer.Context, name: Name = NAME) -> None:
    """Show applications, deployments and endpoints, as the operator last reported them."""
    service = context.obj.connect_cluster().get_object(RAY, RAY_SERVICE, name)
    verdict, found = rollout.judge_service(service), service.get("status") or {}
    active = found.get("activeServiceStatus") or {}
    lines = [
        f"{name}: {verdict.state}: {verdict.message}",
        f"cluster {active.get('rayClusterName')}, {found.get('numServeEndpoints', 0)} endpoints",
    ]
    for application, at in (active.get("applicationStatuses") or {}).items():
        lines.append(f"  {application:<24} {at.get('status')}")
        deployments = at.get("serveDeploymentStatuses") or {}
        lines += [f"    {one:<22} {state.get('status')}" for one, state in deployments.items()]
    context.obj.print_answer(
        "\n".join(lines), state=verdict.state, message=verdict.message, status=found
    )


@register_command("rollback")
def roll_back(context: typer.Context, name: Name = NAME) -> None:
    """Apply the previous specification again; use `wait` to wait for it."""
    cluster = context.obj.connect_cluster()
    service = revisions.build_previous(cluster, name)
    cluster.apply_manifest(service, dry_run=True)
    cluster.apply_manifest(service, dry_run=False)
    found = rollout.read_expected_hash(service)
    context.obj.print_answer(
        f"{name}: applied the previous configuration {found}", config_hash=found
    )


@register_command("logs")
def show_logs(
    context: typer.Context,
    deployment: Annotated[
        str, typer.Argument(help="name of a deployment, such as ingress or musicgen-small")
    ],
    name: Name = NAME,
    lines: Annotated[int, typer.Option(help="number of lines per replica")] = 100,
) -> None:
    """Print the last lines of each replica of a deployment."""
    cluster = context.obj.connect_cluster()
    service = cluster.get_object(RAY, RAY_SERVICE, name)
    dashboard = functools.partial(cluster.get_from_service, f"{name}-head-svc", 8265)
    headers = _build_dashboard_headers(cluster, service)
    serve = json.loads(dashboard("api/serve/applications/", **headers))
    found = {}
    for application in serve["applications"].values():
        for replica in (application["deployments"].get(deployment) or {}).get("replicas", []):
            file = replica["log_file_path"].lstrip("/")
            query = f"node_id={replica['node_id']}&filename={file}&lines={lines}"
            text = dashboard(f"api/v0/logs/file?{query}", **headers)
            found[replica["replica_id"]] = text.decode(errors="replace")
    if not found:
        raise K8sError(f"{name}: no replica of {deployment!r} is running")
    text = "\n".join(f"== {replica}\n{log}" for replica, log in found.items())
    context.obj.print_answer(text, replicas=found)


def _build_dashboard_headers(cluster: Cluster, service: Manifest) -> dict[str, str]:
    """Return the headers of a request to the Ray dashboard.

    The token has its own header, because `Authorization` is that of the API server.
    """
    options = service["spec"]["rayClusterConfig"].get("authOptions") or {}
    if options.get("mode") != "token":
        return {}
    running = service["status"]["activeServiceStatus"]["rayClusterName"]
    token = cluster.read_secret(options.get("secretName") or running, "auth_token")
    return {"X-Ray-Authorization": f"Bearer {token}"}


@register_command("port-forward")
def print_port_forward(context: typer.Context, name: Name = NAME, port: int = 8000) -> None:
    """Print the kubectl command that forwards a local port to the API."""
    namespace = context.obj.connect_cluster().namespace
    kubectl = f"kubectl -n {namespace} port-forward service/{name}-serve-svc {port}:8000"
    context.obj.print_answer(kubectl, command=kubectl)


@register_command("delete")
def delete_overlay(context: typer.Context, overlay: Overlay) -> None:
    """Delete the objects of an overlay except volumes, which hold models and job results."""
    cluster, gone, kept = context.obj.connect_cluster(), [], []
    for one in reversed(manifests.render_overlay(overlay)):
        title = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "PersistentVolumeClaim":
            kept.append(title)
        elif cluster.delete_object(one):
            gone.append(title)
    text = "\n".join([*(f"deleted {one}" for one in gone), *(f"kept {one}" for one in kept)])
    context.obj.print_answer(text, deleted=gone, kept=kept)


if __name__ == "__main__":
    app()
