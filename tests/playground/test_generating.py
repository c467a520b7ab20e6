"""From a prompt to what is heard, seen and kept."""

import io
import re

import numpy as np
import pytest
import soundfile
from playwright.async_api import Page, expect

from api.settings import UserConfig
from engine.errors import GenerationFailed
from tests.playground.conftest import Gate, Site, compose, generate, wav
from tests.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def heard(page: Page) -> list[dict[str, float]]:
    """What was scheduled to be heard."""
    found: list[dict[str, float]] = await page.evaluate("heard")
    return found


async def downloaded(page: Page, number: int = 0) -> tuple[np.ndarray, int]:
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").nth(number).click()
    audio, rate = soundfile.read(io.BytesIO((await (await download.value).path()).read_bytes()))
    return audio, rate


async def test_what_is_typed_is_heard(page: Page, site: Site):
    await generate(page, duration="2", seed="5")
    parts = await heard(page)
    assert sum(part["seconds"] for part in parts) == pytest.approx(2)
    assert {part["rate"] for part in parts} == {16000}, "nothing is resampled"
    assert all(part["loudest"] > 0.01 for part in parts)
    ends = [part["at"] + part["seconds"] for part in parts]
    starts = [part["at"] for part in parts]
    assert all(start >= end - 1e-6 for start, end in zip(starts[1:], ends, strict=False))
    (params,) = site.music.seen
    assert (params.text, params.seed, params.frames) == ("calm piano", 5, 100)
    audio, rate = await downloaded(page)
    assert (len(audio), rate) == (32000, 16000)


async def test_it_is_heard_and_drawn_before_it_is_whole(page: Page, site: Site):
    site.music.gate = Gate()
    await compose(page, duration="6")
    await page.get_by_role("button", name="Generate").click()
    await until_async(lambda: heard(page))
    await expect(page.locator(".clip .download")).to_be_hidden()
    await expect(page.get_by_role("status")).to_have_text("The first sound has come.")
    assert 0 < await page.locator("progress").evaluate("one => one.value") < 0.5
    colours = """canvas => new Set(new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, 10, canvas.height).data.buffer)).size"""
    assert await page.locator(".spectrum").evaluate(colours) > 10
    site.music.gate.set()
    await expect(page.locator(".clip .download")).to_be_visible()


async def test_stopping_frees_the_slot_and_keeps_what_was_heard(page: Page, site: Site):
    site.music.gate = Gate()
    await compose(page, duration="10")
    await page.get_by_role("button", name="Generate").focus()
    await page.keyboard.press("Enter")
    await until_async(lambda: heard(page))
    await expect(page.locator("#cancel")).to_be_focused()
    await page.keyboard.press("Escape")

    async def cancelled() -> bool:
        return site.music.answers[0].cancelled

    await until_async(cancelled)
    await expect(page.get_by_role("button", name="Generate")).to_be_focused()
    await expect(page.locator(".note")).to_contain_text("Stopped after")
    audio, rate = await downloaded(page)
    assert 0 < len(audio) < 2 * rate, "a valid file, of what came"


@pytest.mark.slow
async def test_variations_stand_side_by_side_and_one_is_heard(page: Page, site: Site):
    await generate(page, clips=3, duration="1", n="3", seed="7")
    assert sorted(one.variation for one in site.music.seen) == [0, 1, 2]
    await expect(page.locator(".clip h3")).to_have_text(
        [f"Variation {number}" for number in (1, 2, 3)]
    )
    tops = [(await card.bounding_box() or {})["y"] for card in await page.locator(".clip").all()]
    assert tops[0] == tops[1]
    await page.get_by_role("button", name="Play Variation 2").click()
    await page.get_by_role("button", name="Play Variation 3").click()
    await expect(page.get_by_role("button", name="Play Variation 2")).to_be_visible()


@pytest.mark.parametrize("name", ["flac", "mp3", "opus"])
async def test_other_formats_are_heard_when_whole(page: Page, name: str):
    await generate(page, duration="1", format=name)
    await expect(page.locator(".time")).to_contain_text("/ 0:01")
    await expect(page.locator(".download")).to_have_attribute("download", re.compile(rf"\.{name}$"))


async def test_encodec_and_diffusion_from_one_seed(page: Page, site: Site):
    await generate(page, clips=2, duration="1", decoder="both")
    first, second = site.music.seen
    assert first.seed == second.seed
    await expect(page.locator(".clip h3")).to_have_text(
        ["EnCodec: calm piano", "Multi-band diffusion: calm piano"]
    )


async def test_a_file_is_continued(page: Page, site: Site):
    await page.locator("#source-file").set_input_files(wav(1.0))
    await expect(page.locator("#source-name")).to_have_text("a file.wav")
    await generate(page, duration="3")
    (params,) = site.music.seen
    assert params.prompt
    assert (params.prompt.frames, params.frames) == (50, 150)
    assert len((await downloaded(page))[0]) == 48000
    await page.get_by_label("Answer begins with the file").uncheck()
    await generate(page, duration="3")
    assert len((await downloaded(page))[0]) == 32000


async def test_a_clip_is_continued(page: Page, site: Site):
    await generate(page, duration="1")
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_label("Prompt")).to_be_focused()
    await expect(page.get_by_label("Seconds", exact=True)).to_have_value("11")
    await generate(page, duration="2")
    prompt = site.music.seen[1].prompt
    assert prompt
    assert prompt.frames == 50


@pytest.mark.slow
async def test_a_melody_is_followed(page: Page, site: Site):
    await page.get_by_label("Model").select_option("hum")
    drop = """bytes => {
        const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array(bytes)], "hum.wav"));
        return dropped;
    }"""
    data = await page.evaluate_handle(drop, list(wav(1.0)["buffer"]))
    await page.dispatch_event("#source-drop", "drop", {"dataTransfer": data})
    await page.get_by_label("Follow its melody").check()
    await generate(page, duration="1")
    (params,) = site.hum.seen
    assert params.melody
    assert params.prompt is None


@pytest.mark.slow
async def test_history_is_restored_after_a_reload(page: Page, site: Site):
    await generate(page, duration="1", seed="11", temperature="0.7")
    await page.reload()
    await expect(page.locator(".clip")).to_have_count(0)
    await page.get_by_role("button", name="Restore “calm piano”").click()
    await expect(page.locator(".clip .download")).to_be_visible()
    await expect(page.get_by_label("Temperature")).to_have_value("0.7")
    await expect(page.get_by_label("Seed")).to_have_value("11")
    await page.get_by_role("button", name="Play calm piano").click()
    await expect(page.get_by_role("button", name="Pause calm piano")).to_be_visible()
    assert len(site.music.seen) == 1, "it is not made again"
    await page.get_by_role("button", name="Forget “calm piano”").click()
    await expect(page.locator("#history-empty")).to_be_visible()


async def test_a_refusal_says_what_to_do_at_its_field(page: Page, site: Site):
    site.service.limits = UserConfig(max_text_chars=5)
    await compose(page)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator("#prompt-wrong")).to_have_text(
        "prompt: 10 characters; allowed: 1 to 5"
    )
    await expect(page.get_by_label("Prompt")).to_be_focused()
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text("allowed: 1 to 5")
    named = await alert.locator("code").text_content()
    assert named
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await alert.get_by_role("button", name="Copy").click()
    await expect(alert.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == named


@pytest.mark.slow
async def test_who_must_wait_sees_for_how_long(page: Page, site: Site):
    refusal = """{"error": {"message": "too much is outstanding", "type": "invalid_request_error",
        "param": null, "code": "busy"}, "request_id": "one"}"""
    await page.route(
        "**/v1/generations",
        lambda route: route.fulfill(status=429, headers={"retry-after": "2"}, body=refusal),
        times=1,
    )
    await compose(page, duration="1")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_role("button", name="Try again in")).to_be_disabled()
    again = page.get_by_role("button", name="Try again", exact=True)
    await expect(again).to_be_enabled()
    await again.click()
    await expect(page.locator(".clip .download")).to_be_visible()


async def test_what_fails_on_the_way_is_told(page: Page, site: Site):
    site.music.error, site.music.fails_at = GenerationFailed("secret"), 1
    await compose(page, duration="5")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_role("alert")).to_contain_text("the model failed")
    await expect(page.locator(".note")).to_contain_text("Stopped after")


async def test_what_is_wrong_is_not_sent(page: Page, site: Site):
    await compose(page, "", duration="900", seed="x")
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_label("Prompt")).to_be_focused()
    for name in ("prompt", "duration", "seed"):
        await expect(page.locator(f"#{name}-wrong")).not_to_be_empty()
        await expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
    assert site.music.seen == []
