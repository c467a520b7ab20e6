"""Forms, whichever route takes them: what is read of them, and what is refused."""

import httpx
import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests.api.conftest import Served
from tests.api.test_uploads import wav

CODES = safetensors.save({"codes": np.ones((4, 2), np.int16)})
AUDIO = wav(0.5)
FILES = {
    "/v1/codec/encode": {"audio_file": AUDIO},
    "/v1/codec/decode": {"codes_file": CODES},
    "/v1/mbd/decode": {"codes_file": CODES},
    "/v1/mbd/regenerate": {"audio_file": AUDIO},
    "/v1/generations": {"continue_from": AUDIO},
}
PROMPT = {"prompt": "a", "duration": "1"}


def fields(path: str) -> dict[str, str]:
    return PROMPT if path == "/v1/generations" else {}


async def post(served: Served, path: str, **more: str) -> httpx.Response:
    return await served.http.post(path, files=FILES[path], data=fields(path) | more)


@pytest.mark.parametrize("path", FILES)
async def test_an_empty_field_is_left_out(served: Served, path: str):
    response = await post(served, path, model="")
    assert response.status_code == 200, response.text


async def test_every_empty_field_is_left_out(served: Served):
    empty = dict.fromkeys(("codebooks", "bandwidth", "format"), "")
    response = await post(served, "/v1/codec/encode", **empty)
    assert response.json()["codebooks"] == 4
    empty = dict.fromkeys(("prompts", "seed", "start", "continue_from"), "")
    files = {name: (None, value) for name, value in (PROMPT | empty).items()}
    response = await served.http.post("/v1/generations", files=files)
    assert response.status_code == 200, response.text
    browsers = {"continue_from": ("", b""), "melody": ("blob", b"")}
    response = await served.http.post("/v1/generations", files=browsers, data=PROMPT)
    assert response.status_code == 200, response.text
    assert [params.prompt for params in served.music.seen] == [None, None]


async def test_an_empty_file_that_was_chosen_is_refused(served: Served):
    chosen = {"melody": ("melody.wav", b"")}
    data = PROMPT | {"model": "hum"}
    response = await served.http.post("/v1/generations", files=chosen, data=data)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "melody")


async def test_a_part_ends_with_its_file(served: Served):
    response = await post(served, "/v1/generations", end="1e308")
    assert response.status_code == 200, response.text
    error = (await post(served, "/v1/generations", start="1e308")).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "start")


@pytest.mark.parametrize("path", FILES)
async def test_an_unknown_field_is_refused(served: Served, path: str):
    error = (await post(served, path, modle="music")).json()["error"]
    assert (error["code"], error["param"]) == ("unknown_field", "modle")
    assert "model" in error["message"]


@pytest.mark.parametrize("path", FILES)
async def test_what_is_no_form_is_refused(served: Served, path: str):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = await served.http.post(path, content=b"no form", headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_body"


@pytest.mark.parametrize("path", FILES)
async def test_a_content_type_is_known_in_any_case(served: Served, path: str):
    form = served.http.build_request("POST", path, files=FILES[path], data=fields(path))
    form.headers["content-type"] = form.headers["content-type"].replace("multipart", "MultiPart")
    response = await served.http.send(form)
    assert response.status_code == 200, response.text
