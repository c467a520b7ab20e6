"""Tests that the answers of jobs are read from the store in parts, with ranges (RFC 9110)."""

import pytest

from graph.jobs import store
from tests.api.jobs.conftest import Working, made


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-", 0, None),
        ("bytes=100-199", 100, 200),
        ("bytes=44-", 44, None),
        ("bytes=-10", -10, None),
        ("bytes=0-99999999", 0, None),
        ("bytes=0-0", 0, 1),
    ],
)
async def test_a_range_is_a_part_of_the_file(
    working: Working, asked: str, first: int, end: int | None
):
    job = await made(working)
    path = (await working.until(job["id"], "finished"))["audio"]
    whole = await working.http.get(path)
    assert whole.headers["accept-ranges"] == "bytes"
    assert int(whole.headers["content-length"]) == len(whole.content)
    part = await working.http.get(path, headers={"range": asked})
    assert part.status_code == 206
    assert part.content == whole.content[first:end]
    start = first % len(whole.content)
    last = start + len(part.content) - 1
    assert part.headers["content-range"] == f"bytes {start}-{last}/{len(whole.content)}"
    for name in ("etag", "content-type", "x-model", "content-disposition"):
        assert part.headers[name] == whole.headers[name]


async def test_tags_and_ranges_that_are_not_answered_by_a_part(working: Working):
    job = await made(working)
    path = (await working.until(job["id"], "finished"))["audio"]
    whole = await working.http.get(path)
    tag = whole.headers["etag"]
    for match in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await working.http.get(path, headers={"if-none-match": match})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    other = await working.http.get(path, headers={"if-none-match": '"other"'})
    assert other.status_code == 200
    ask = {"range": "bytes=5-9"}
    assert (await working.http.get(path, headers=ask | {"if-range": tag})).status_code == 206
    changed = await working.http.get(path, headers=ask | {"if-range": '"other"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    for ignored in ("bytes=9-5", "bytes=0-1,4-5", "frames=0-1", "bytes=-", "bytes=a-b"):
        answer = await working.http.get(path, headers={"range": ignored})
        assert (answer.status_code, answer.content) == (200, whole.content), ignored
    for beyond in (f"bytes={len(whole.content)}-", "bytes=99999999-", "bytes=-0"):
        refused = await working.http.get(path, headers={"range": beyond})
        assert refused.status_code == 416, beyond
        assert refused.headers["content-range"] == f"bytes */{len(whole.content)}"
        assert refused.json()["error"]["code"] == "invalid_range"


async def test_no_read_of_the_store_is_large(working: Working, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "PART_BYTES", 1000)
    job = await made(working)
    path = (await working.until(job["id"], "finished"))["audio"]
    whole = await working.http.get(path)
    kept = (await working.service.jobs.load_job(job["id"])).answer
    parts = list(working.service.jobs.files.read_parts(job["id"], kept.file, 10, 5000))
    assert [len(part) for part in parts] == [1000] * 4 + [990]
    assert b"".join(parts) == whole.content[10:5000]
