"""Takes processes off the network: nobody hears from them again, not even that they ended."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil
import pytest

PORTS_OF_A_RULE = 15
"""More are not allowed."""


def iptables(*arguments: str) -> None:
    """Change the rules. Skips the test where that cannot be done."""
    try:
        subprocess.run(["iptables", *arguments], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs iptables, and the right to use it: {error}")


def ports_of(processes: Sequence[psutil.Process]) -> list[str]:
    """Return the ports at their ends of what they are connected by, or listen at."""
    ends = (one.laddr for process in processes for one in process.net_connections("tcp"))
    return sorted({str(end.port) for end in ends if end})


@contextmanager
def silent(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Drop what they send and what is sent to them, by the ports that they have now."""
    ports = ports_of(processes)
    with ExitStack() as stack:
        for first in range(0, len(ports), PORTS_OF_A_RULE):
            some = ",".join(ports[first : first + PORTS_OF_A_RULE])
            rule = ["INPUT", "-p", "tcp", "-m", "multiport", "--ports", some, "-j", "DROP"]
            iptables("-I", *rule)
            stack.callback(iptables, "-D", *rule)
        yield
