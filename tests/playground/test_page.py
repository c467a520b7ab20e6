"""How the page is served, what it offers, and to whom."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256

import httpx
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from api.settings import KeySettings, UserConfig
from tests.playground.conftest import WAIT_MS, Site, generate, opened, wav

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(loop_scope="package")
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url) as client:
        yield client


async def test_files_are_kept_until_they_change(http: httpx.AsyncClient):
    for path in ("/", "/playground/app.js", "/playground/vendor/wavesurfer.js"):
        first = await http.get(path)
        assert first.status_code == 200
        assert first.headers["cache-control"] == "no-cache"
        again = await http.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert (await http.head("/")).status_code == 200


async def test_the_policy_lets_nothing_in(http: httpx.AsyncClient):
    policy = (await http.get("/")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_only_its_own_folder_is_served(http: httpx.AsyncClient):
    for path in ("/playground/", "/playground/nothing.js", "/playground/%2e%2e/app.py"):
        answer = await http.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["error"]["code"] == "not_found"


async def test_it_is_no_endpoint_of_the_api(http: httpx.AsyncClient):
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/playground")]


@pytest.mark.slow
async def test_a_key_is_asked_for_where_there_are_keys(browser: Browser, site: Site):
    site.service.limits = UserConfig(
        keys=(KeySettings(name="studio", sha256=[sha256(b"secret").hexdigest()]),)
    )
    async with opened(browser, site, ready=False) as page:
        dialog = page.get_by_role("dialog", name="API key")
        await expect(dialog).to_contain_text("no API key")
        await dialog.get_by_label("Key").fill("secret")
        await page.keyboard.press("Enter")
        await expect(page.locator("#pulse")).to_contain_text("running")
        await generate(page, duration="1")
        await page.reload()
        await expect(page.locator("#pulse")).to_contain_text("running")
    (charge,) = site.music.seen
    assert charge.text == "calm piano"


@pytest.mark.slow
async def test_what_no_model_can_do_is_disabled_and_says_why(browser: Browser, bare_site: Site):
    async with opened(browser, bare_site) as page:
        await page.locator("#source-file").set_input_files(wav(1.0))
        melody = page.get_by_label("Follow its melody")
        await expect(melody).to_be_disabled()
        await expect(melody).to_have_accessible_description(
            "The model “music” does not follow melodies; no configured model does."
        )
        await page.locator("#advanced > summary").click()
        for name in ("Multi-band diffusion", "Both, side by side"):
            await expect(page.get_by_role("option", name=name)).to_be_disabled()
        await expect(page.locator("#decoder-reason")).to_contain_text("none is configured")
        await expect(page.locator("#analyse-file")).to_be_disabled()
        await expect(page.locator("#analyse-reason")).to_contain_text("kind discriminators")
        await generate(page, duration="2")
        await expect(page.get_by_role("button", name="Analyse")).to_be_disabled()


async def test_another_model_follows_the_melody(page: Page):
    await page.locator("#source-file").set_input_files(wav(1.0))
    await expect(page.locator("#melody-hint")).to_contain_text("choose hum.")
    await page.get_by_label("Model").select_option("hum")
    await expect(page.get_by_label("Follow its melody")).to_be_enabled()


async def test_a_file_is_analysed(page: Page, site: Site):
    await page.locator("#analyse-file").set_input_files(wav(1.0))
    await expect(page.locator("#analysis strong")).to_contain_text("likely real")
    async with httpx.AsyncClient(base_url=site.url) as http:
        file = {"audio_file": wav(1.0)["buffer"]}
        told = (await http.post("/analyze", files=file)).json()
    scores = await page.get_by_role("img", name="Scores").get_attribute("aria-label") or ""
    assert f"Periods {told['mpd_score']:.2f}" in scores
    assert f"Spectra {told['msstftd_score']:.2f}" in scores
    maps = page.locator("figure canvas")
    assert await maps.evaluate("one => one.height") == len(told["feature_maps"])


async def test_a_file_that_is_none_is_told(page: Page):
    await page.locator("#analyse-file").set_input_files(
        {"name": "x.wav", "mimeType": "audio/wav", "buffer": b"no audio"}
    )
    await expect(page.get_by_role("alert")).to_contain_text("cannot be read")


async def test_the_server_is_watched_while_the_page_is_seen(page: Page):
    music = page.locator("#models article").first
    await expect(music).to_contain_text("2 of 8 slots, 1 waiting")
    await expect(music).to_contain_text("1 replica")
    await expect(page.locator("#pulse")).to_have_text("6 running · 3 waiting")
    hide = """() => {
        Object.defineProperty(document, "visibilityState", { value: "hidden" });
        document.dispatchEvent(new Event("visibilitychange"));
        window.looks = 0;
        const fetch = window.fetch;
        window.fetch = (...asked) => { window.looks += 1; return fetch(...asked); };
    }"""
    await page.clock.install()
    await page.evaluate(hide)
    await page.clock.run_for(60_000)
    assert await page.evaluate("looks") == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(browser: Browser, site: Site, scheme: str):
    async with opened(browser, site, color_scheme=scheme) as page:
        axe = Axe()

        async def serious() -> list[str]:
            found = (await axe.run(page)).response["violations"]
            return [
                f"{one['id']}: {node['html']} {node['failureSummary']}"
                for one in found
                for node in one["nodes"]
                if one["impact"] in ("serious", "critical")
            ]

        await page.locator("#advanced > summary").click()
        assert await serious() == []
        await generate(page, clips=2, duration="1", n="2")
        await page.get_by_role("button", name="Analyse").first.click()
        await expect(page.locator("#analysis canvas")).to_be_visible()
        site.service.limits = UserConfig(max_text_chars=5)
        await page.locator("#source-file").set_input_files(wav(1.0))
        await page.get_by_role("button", name="Generate").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        assert await serious() == []
        await page.get_by_role("button", name="API key").click()
        assert await serious() == []


@pytest.mark.slow
async def test_a_phone_needs_no_sideways_scrolling(browser: Browser, site: Site):
    async with opened(browser, site, viewport={"width": 360, "height": 740}) as page:
        await page.locator("#source-file").set_input_files(wav(1.0) | {"name": "x" * 90 + ".wav"})
        await page.locator("#source-remove").click()
        await generate(page, clips=2, duration="1", n="2", prompt="word" * 40)
        await page.get_by_role("button", name="Analyse").first.click()
        await expect(page.locator("#analysis canvas")).to_be_visible()
        widths = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths == [360, 360]


@pytest.mark.slow
async def test_all_of_it_by_keyboard(page: Page, site: Site):
    # Asked for at once, a key that is pressed next may come to Chromium first.
    choosing = asyncio.Event()
    page.on("filechooser", lambda _: choosing.set())
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the prompt")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Prompt")).to_be_focused()
    await page.keyboard.type("calm piano")
    await page.get_by_label("Seconds", exact=True).fill("2")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator(".download")).to_be_visible()
    await page.locator(".play").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Play calm piano")).to_be_visible()
    seek = page.get_by_role("slider", name="Position in calm piano")
    await seek.focus()
    await page.keyboard.press("Home")
    for _ in range(5):
        await page.keyboard.press("ArrowRight")
    await expect(seek).to_have_attribute("aria-valuetext", "0.5 s of 2 s")
    await page.locator("#source-file").focus()
    await page.keyboard.press("Space")
    async with asyncio.timeout(WAIT_MS / 1000):
        await choosing.wait()
