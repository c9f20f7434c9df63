"""The live page in a real Chromium: it shows figures, says when they are old, and is accessible."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any

import pytest

from extproc.server import live
from tests.grpc.served import learn_once

api = pytest.importorskip("playwright.async_api", reason="the browser is driven by playwright")

Router = Callable[..., Any]
CHROMIUM = which("chromium") or which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@asynccontextmanager
async def new_page(**settings: Any) -> AsyncIterator[Any]:
    """Start a browser, and yield an empty page of it with these settings."""
    async with api.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield await browser.new_page(**settings)
        await browser.close()


def test_unknown_values_are_not_shown(router: Router, tmp_path: Path) -> None:
    """A gauge that is NaN, such as the time of a state never saved, does not break the page."""
    servers = "endpoints: {urls: ['http://127.0.0.1:1']}"
    settings = (
        f"state: {{path: '{tmp_path / 'state'}', every_s: 3600}}\n"
        f"pools: [{{name: short, max_budget_tokens: 9, {servers}}}, {{name: long, max_budget_tokens: 99}}]"
    )

    async def scenario() -> None:
        async with router(settings) as app, new_page() as page:
            messages: list[str] = []
            page.on("pageerror", lambda error: messages.append(str(error)))
            await page.goto(f"http://{app.admin_address}/")
            await page.locator("#gauges", has_text="streams open").wait_for(timeout=60_000)
            assert "No responses read yet." == await page.inner_text("#c-errors")
            assert "state saved" not in await page.inner_text("#gauges")
            assert "null" not in await page.inner_text("body")
            assert [] == messages

    asyncio.run(scenario())


def test_a_page_whose_router_is_gone_does_not_say_that_it_is_ready(router: Router, call: type[Any]) -> None:
    """When the connection is lost, readiness and rate disappear, and the rest is marked as old."""

    async def scenario() -> None:
        async with router() as app, new_page() as page:
            await learn_once(app, call)
            await page.goto(f"http://{app.admin_address}/")
            await page.locator("#ready", has_text="ready").wait_for(timeout=60_000)
            await app.stop()
            await page.locator("body.old #state", has_text="connection lost").wait_for(timeout=60_000)
            assert "" == await page.inner_text("#ready")
            assert "\N{EN DASH}" == await page.inner_text("#rate")

    asyncio.run(scenario())


def test_a_page_says_how_old_its_figures_are(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a starved router's events are old when they come, the page says so, until a new one comes."""
    stopped_s: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: stopped_s[0] if stopped_s else time.monotonic())

    async def scenario() -> None:
        async with router() as app, new_page() as page:
            await learn_once(app, call)
            monkeypatch.setattr(live, "time", clock)
            await page.goto(f"http://{app.admin_address}/")
            await page.locator("#ready", has_text="ready").wait_for(timeout=60_000)
            stopped_s.append(time.monotonic())
            await page.locator("body.old #state", has_text="not up to date").wait_for(timeout=60_000)
            assert "" == await page.inner_text("#ready")
            stopped_s.clear()
            await page.locator("body:not(.old) #state", has_text="live").wait_for(timeout=60_000)
            assert "ready" in await page.inner_text("#ready")

    asyncio.run(scenario())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page_and_axe_finds_no_violation(router: Router, call: type[Any], scheme: str) -> None:
    """In a real Chromium as wide as a phone: figures, an empty console, and no violation found by axe-core."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright")

    async def scenario() -> None:
        phone = {"width": 390, "height": 844}
        async with router() as app, new_page(color_scheme=scheme, viewport=phone) as page:
            messages: list[str] = []
            page.on("console", lambda message: messages.append(message.text))
            page.on("pageerror", lambda error: messages.append(str(error)))
            await learn_once(app, call)
            await page.goto(f"http://{app.admin_address}/")
            await page.locator("#models tr").first.wait_for(timeout=60_000)
            await learn_once(app, call)
            await page.locator("#recent tr").first.wait_for(timeout=60_000)
            assert "100.0\N{NO-BREAK SPACE}%" in await page.inner_text("#pools")
            assert "8,192" == await page.inner_text("#at")  # the smallest pool's, until the slider is moved
            captions = "[...document.querySelectorAll('caption')].map(each => each.offsetWidth)"
            assert max(await page.evaluate(captions)) < 390  # of a table that has to be scrolled, too
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= 390
            for table in ("pools", "models", "recent"):  # a long name leaves room for the figures beside it
                name = f"document.querySelector('#{table} .name')"
                assert await page.evaluate(f"{name}.textContent = 'x'.repeat(99), {name}.offsetWidth") < 200
            await page.focus("#threshold")
            before = await page.inner_text("#at")
            await page.keyboard.press("ArrowRight")
            assert before != await page.inner_text("#at")
            results = await axe.Axe().run(page)
            assert 0 == results.violations_count, results.generate_report()
            assert [] == messages

    asyncio.run(scenario())
