"""Defines the errors of `python -m k8s`, each with its exit code."""


class K8sError(Exception):
    """The command failed (exit code 1); the message is for the person at the terminal."""

    exit_code = 1
    kind = "failed"


class TimedOut(K8sError):
    """The service was not ready in time (exit code 3); it may still become ready."""

    exit_code = 3
    kind = "timed_out"


class Unreachable(K8sError):
    """The API server does not answer or denies access (exit code 4)."""

    exit_code = 4
    kind = "unreachable"
