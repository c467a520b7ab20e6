"""From a prompt to what is heard, seen and kept."""

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.playground.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def compose(page: Page, prompt: str = "calm piano", **fields: str) -> None:
    """Fill the form."""
    if await page.locator("#advanced[open]").count() == 0:
        await page.locator("#advanced > summary").click()
    await page.get_by_label("Prompt").fill(prompt)
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        if await field.evaluate("one => one.tagName") == "SELECT":
            await field.select_option(value)
        else:
            await field.fill(value)


async def generate(page: Page, clips: int = 1, **fields: str) -> None:
    """Fill the form, generate, and wait until every clip is whole."""
    await compose(page, **fields)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.locator(".clip .download:visible")).to_have_count(clips)


async def test_what_is_typed_is_heard(page: Page, site: Site):
    await generate(page, duration="2", seed="5")
    heard = await page.evaluate("heard")
    assert sum(part["seconds"] for part in heard) == 2
    assert {part["rate"] for part in heard} == {16000}, "nothing is resampled"
    assert all(part["loudest"] > 0.01 for part in heard)
    ends = [part["at"] + part["seconds"] for part in heard]
    starts = [part["at"] for part in heard]
    assert all(start >= end - 1e-6 for start, end in zip(starts[1:], ends, strict=False))
    (params,) = site.music.seen
    assert (params.text, params.seed, params.frames) == ("calm piano", 5, 100)


async def test_it_is_heard_before_it_is_whole(page: Page, site: Site):
    site.music.gate = asyncio.Event()
    await compose(page, duration="6")
    await page.get_by_role("button", name="Generate").click()
    await page.wait_for_function("heard.length > 0")
    await expect(page.locator(".clip .download")).to_be_hidden()
    await expect(page.get_by_role("status")).to_have_text("The first sound has come.")
    site.music.gate.set()
    await expect(page.locator(".clip .download")).to_be_visible()
