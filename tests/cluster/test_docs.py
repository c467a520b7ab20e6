"""The curls of docs/api.md, tried; and no endpoint without one."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import media
from engine.params import MediaLimits
from tests.application import ROOT
from tests.cluster.conftest import Deployed

PAGE = (ROOT / "docs" / "api.md").read_text()
METHODS = ("get", "post", "put", "patch", "delete")


def test_every_endpoint_is_in_the_docs(deployed: Deployed):
    paths = deployed.http.get("/openapi.json").json()["paths"]
    served = {f"{m.upper()} {path}" for path, of in paths.items() for m in METHODS if m in of}
    assert served == set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", PAGE, re.MULTILINE))


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="needs Debian's packages curl and jq"
)
def test_every_curl_works(deployed: Deployed, tmp_path: Path):
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    host, port = deployed.address
    environment = os.environ | {"URL": f"http://{host}:{port}", "CURL_HOME": str(tmp_path)}
    ran = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    written = set(re.findall(r"-o (\S+\.(?:wav|mp3|flac))", script))
    assert len(written) > 10
    for name in written:
        assert media.decode((tmp_path / name).read_bytes(), MediaLimits(10**8, 60, 2)).samples, name
