"""The Dockerfile is executed, and its image run as a cluster would run it, without a network."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.start import ROOT

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]
TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
NEEDED_GB = 50
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "audiocraft-serve-image"
ASK = """
import io, json, time, urllib.request, soundfile
end = time.monotonic() + 600
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/readyz", timeout=30)
        break
    except OSError:
        assert time.monotonic() < end
        time.sleep(1)
body = json.dumps({"text": "calm piano", "duration": 2, "seed": 1}).encode()
head = {"content-type": "application/json"}
asked = urllib.request.Request("http://127.0.0.1:8000/generate/music", body, head)
file = io.BytesIO(urllib.request.urlopen(asked, timeout=120).read())
samples, rate = soundfile.read(file)
print(len(samples) / rate, abs(samples).max() > 0.01)
"""


@pytest.fixture(scope="module")
def podman() -> list[str]:
    storage = ["--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run")]
    return [
        *("podman", *storage, "--storage-driver", "overlay"),
        *("--runtime", "runc", "--cgroup-manager=cgroupfs"),
    ]


@pytest.fixture(scope="module")
def image() -> str:
    if os.geteuid() != 0:
        pytest.skip("an image is built without an engine by root alone")
    if not Path("/etc/debian_version").exists():
        pytest.skip("the base's stand-in is made of Debian's packages, this is not Debian")
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.skip(f"needs Debian's packages: make test-image-deps ({', '.join(missing)})")
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free / 1e9
    if free < NEEDED_GB and not (CACHE / "storage").exists():
        pytest.skip(f"needs {NEEDED_GB} GB, {CACHE} has {free:.0f}")
    command = [ROOT / "tests" / "image" / "build.sh", CACHE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container(podman: list[str], image: str) -> Iterator[str]:
    # Podman's own limits are above what a container's parent may have here.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = [f"--ulimit=nofile={files}:{files}", "--ulimit=nproc=30000:30000"]
    locked_up = ["--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=all"]
    locked_up += ["--security-opt=no-new-privileges", "--shm-size=1g", "--no-healthcheck"]
    started = subprocess.run(
        [*podman, "run", "--detach", *limits, *locked_up, image],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    yield name
    subprocess.run([*podman, "rm", "--force", "--time", "10", name], check=True)


def inside(podman: list[str], container: str, *command: str, stdin: str = "") -> str:
    done = subprocess.run(
        [*podman, "exec", "--interactive", container, *command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_generates_without_a_network(podman: list[str], container: str):
    assert inside(podman, container, "python", "-", stdin=ASK).split() == ["2.0", "True"]


def test_a_login_shell_has_our_ray(podman: list[str], container: str):
    found = inside(podman, container, "bash", "-lc", "command -v ray python; id --user")
    assert found.split() == ["/opt/venv/bin/ray", "/opt/venv/bin/python", "1000"]


def test_its_root_is_not_written_and_no_registry_is_in_it(podman: list[str], container: str):
    writes = "touch /app/x 2>/dev/null && echo written; touch /app/build/x && echo kept"
    assert inside(podman, container, "bash", "-c", writes).split() == ["kept"]
    files = "ls /etc/pip.conf /etc/uv/uv.toml 2>/dev/null | xargs -r cat"
    assert "index" not in inside(podman, container, "bash", "-c", files)
