"""The page in Debian's Chromium, before the application over fakes and the embedded codec."""

import asyncio
import io
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import pytest_asyncio
import soundfile
import uvicorn
from playwright.async_api import Browser, FilePayload, Page, Route, async_playwright, expect

from api.ingress import create_app
from api.readiness import DeploymentState
from api.service import Service
from api.settings import UserConfig
from deployments.settings import (
    AnyModelSettings,
    AudioGenSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    MusicGenSettings,
)
from engine.codec import Codec
from engine.discriminators import Discriminators
from engine.params import BatchLoad, GenerationParams, Load
from graph.settings import FolderStore, JobsSettings
from tests.api.conftest import (
    Answers,
    FakeDiffusion,
    FakeLanguageModel,
    Media,
    Method,
    Real,
    serving,
)
from tests.waiting import until_async

CHROMIUM = "/usr/bin/chromium"
ARGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
LOAD = Load(3, 1, 2, 8, 4, 0.0, 0, 0, 0, 1.0, 0.0, 0.0, 0, 60.0, 0.0)
BATCHES = BatchLoad(0, 5, 3)
WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.pages)


HEARD = """
window.heard = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (at, ...more) {
  const samples = this.buffer.getChannelData(0);
  const loudest = samples.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
  window.heard.push({ at, seconds: this.buffer.duration, rate: this.buffer.sampleRate, loudest });
  return start.call(this, at, ...more);
};
"""
"""Notes what is scheduled to be heard."""


class Gate(asyncio.Event):
    """Lets one pass before it is set."""

    passed = False

    async def wait(self) -> Literal[True]:
        if self.passed:
            return await super().wait()
        self.passed = True
        return True


@dataclass
class Singer(FakeLanguageModel):
    """A language model that is asked how it is, and remembers who was answered."""

    answers: list[Answers] = field(default_factory=list)

    @property
    def load(self) -> Method:
        return Method(lambda: LOAD)

    def remote(self, params: GenerationParams, *sizes: int, **carried: Any) -> Answers:
        self.answers.append(super().remote(params, *sizes, **carried))
        return self.answers[-1]


class Part(Real):
    """A real part of the engine, that is asked how it is."""

    @property
    def load(self) -> Method:
        return Method(lambda: BATCHES)


class Diffusion(FakeDiffusion):
    @property
    def load(self) -> Method:
        return Method(lambda: BATCHES)


@dataclass
class Site:
    """A server of the page, and what is behind it."""

    url: str
    music: Singer
    hum: Singer
    service: Service


@pytest.fixture(scope="session")
def parts() -> dict[str, Part]:
    return {
        "codec": Part(Codec.load("bundle:tiny/codec", device="cpu")),
        "judge": Part(Discriminators.load("bundle:tiny/discriminators", device="cpu")),
    }


@asynccontextmanager
async def listening(service: Service) -> AsyncIterator[str]:
    """Serve over HTTP, on a port of its own."""
    config = uvicorn.Config(
        create_app(service), port=0, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started

    await until_async(started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def site_of(
    parts: dict[str, Part], folder: Path, *, all_kinds: bool, limits: UserConfig
) -> AsyncIterator[Site]:
    """Serve the page: with every kind of model, or with those that are needed alone."""
    music, hum = Singer(), Singer(melody=True)
    models: list[AnyModelSettings] = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
    ]
    handles: dict[str, Any] = {"music": music, "codec": parts["codec"], "media": Media()}
    if all_kinds:
        models += [
            MusicGenSettings(name="hum", kind="musicgen", checkpoint="x", codec="codec"),
            AudioGenSettings(name="sound", kind="audiogen", checkpoint="x", codec="codec"),
            DiffusionSettings(name="diffusion", kind="mbd", checkpoint="x", codec="codec"),
            DiscriminatorsSettings(name="judge", kind="discriminators", checkpoint="x"),
        ]
        handles |= {
            "hum": hum,
            "sound": Singer(),
            "diffusion": Diffusion(),
            "judge": parts["judge"],
        }

    async def states() -> dict[str, DeploymentState]:
        return {model.name: DeploymentState("HEALTHY", 1) for model in models}

    jobs = JobsSettings(store=FolderStore(folder=str(folder / "jobs")))
    service = serving(models, handles, limits, states, settings=jobs)
    async with listening(service) as url:
        yield Site(url, music, hum, service)


@pytest_asyncio.fixture(loop_scope="package")
async def site(parts: dict[str, Part], tmp_path: Path) -> AsyncIterator[Site]:
    async with site_of(parts, tmp_path, all_kinds=True, limits=UserConfig()) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="package")
async def bare_site(parts: dict[str, Part], tmp_path: Path) -> AsyncIterator[Site]:
    """A server with one music model and its codec."""
    async with site_of(parts, tmp_path, all_kinds=False, limits=UserConfig()) as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    if not shutil.which(CHROMIUM):
        pytest.skip("needs Debian's package chromium")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="package")
async def page(browser: Browser, site: Site) -> AsyncIterator[Page]:
    """The page, open; at last nothing has gone wrong in it, and nothing has left its server."""
    async with opened(browser, site) as made:
        yield made


@asynccontextmanager
async def opened(
    browser: Browser, site: Site, *, ready: bool = True, **context: Any
) -> AsyncIterator[Page]:
    """Open the page in a browser of its own; none of its requests may leave the server."""
    own = await browser.new_context(**context)
    strays, problems = list[str](), list[str]()

    async def guard(route: Route) -> None:
        if route.request.url.startswith((site.url, "blob:", "data:")):
            await route.continue_()
        else:
            strays.append(route.request.url)
            await route.abort()

    await own.route("**/*", guard)
    await own.add_init_script(HEARD)
    own.set_default_timeout(WAIT_MS)
    made = await own.new_page()
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    await made.goto(site.url)
    if ready:
        await made.locator("#model option").first.wait_for(state="attached")
    yield made
    await own.close()
    assert strays == []
    # Chromium logs what a server refuses; that is what some tests ask for.
    assert [one for one in problems if "responded with a status" not in one] == []


async def compose(page: Page, prompt: str = "calm piano", **fields: str) -> None:
    """Fill the form."""
    if not await page.locator("#advanced[open]").count():
        await page.locator("#advanced > summary").click()
    await page.get_by_label("Prompt").fill(prompt)
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        if await field.evaluate("one => one.tagName") == "SELECT":
            await field.select_option(value)
        else:
            await field.fill(value)


async def generate(page: Page, clips: int = 1, prompt: str = "calm piano", **fields: str) -> None:
    """Fill the form, generate, and wait until every clip is whole."""
    await compose(page, prompt, **fields)
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_role("status")).to_contain_text("Done")
    await expect(page.locator(".clip .download:visible")).to_have_count(clips)


def wav(seconds: float, rate: int = 16000) -> FilePayload:
    """A file to choose, with a tone."""
    tone = 0.3 * np.sin(np.arange(int(seconds * rate)) * 0.2)
    file = io.BytesIO()
    soundfile.write(file, tone, rate, format="WAV")
    return {"name": "a file.wav", "mimeType": "audio/wav", "buffer": file.getvalue()}
