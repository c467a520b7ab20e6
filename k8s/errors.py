"""What goes wrong between this tool and a cluster: each error has its exit code."""


class K8sError(Exception):
    """One line for the person at the terminal, or two with the reason; the tool exits with 1."""

    exit_code = 1
    kind = "failed"


class TimedOut(K8sError):
    """It may still come to an end: exit code 3."""

    exit_code = 3
    kind = "timed_out"


class Unreachable(K8sError):
    """The API server does not answer, or does not let us in: exit code 4."""

    exit_code = 4
    kind = "unreachable"
