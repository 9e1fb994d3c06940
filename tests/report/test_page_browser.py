"""The report page in a real browser, from disk and without a network, as wide as a desk's screen and as a phone's."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import handmade_model
import handmade_study
import pytest

import ecgcmr
from ecgcmr.report import page, prediction

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--allow-file-access-from-files",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)

# Headless Chromium makes no window below 500 pixels, so the page is measured in a frame.
FRAME = """<iframe src="{address}" style="border: 0; width: {width}px; height: 900px"></iframe><pre></pre><script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument, all = (name) => [...page.querySelectorAll(name)];
  const unfolded = all("details"); unfolded.forEach((one) => one.open = true);
  document.querySelector("pre").textContent = JSON.stringify({{
    width: page.documentElement.scrollWidth, height: page.documentElement.scrollHeight,
    images: all("img").map((one) => one.naturalWidth), unfolded: unfolded.length,
    small: all("p, td, th, li, summary").filter((one) => one.textContent.trim()
      && parseFloat(page.defaultView.getComputedStyle(one).fontSize) < 11).length,
    fetched: page.defaultView.performance.getEntriesByType("resource").map((one) => one.name),
    dead: all("a[href^='#']").filter((one) => !page.getElementById(one.hash.slice(1))).map((one) => one.hash),
  }});
}});
</script>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A function of a page and a width in pixels: what the browser says of it."""
    if BROWSER is None:
        pytest.skip(f"none of {', '.join(NAMES)} on the path")
    folder = tmp_path_factory.mktemp("browser")

    def measured(path, width):
        frame = folder / f"{width}.html"
        frame.write_text(FRAME.format(address=Path(path).as_uri(), width=width))
        command = [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
        ]
        done = subprocess.run(
            [*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        return json.loads(html.unescape(re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)[1]))

    return measured


@pytest.fixture(scope="module")
def measure(browser, tmp_path_factory):
    """A function of a width in pixels: what the browser says of the whole study's page."""
    _, _, files = handmade_study.reported(tmp_path_factory.getbasetemp())
    return lambda width: browser(files[page.PAGE], width)


@pytest.mark.parametrize("width", [1280, 390])
def test_it_never_scrolls_sideways_and_shows_every_picture(width, measure):
    found = measure(width)
    assert found["width"] <= width
    assert found["height"] > 5000
    assert len(found["images"]) >= 12
    assert min(found["images"]) > 300
    assert found["unfolded"] >= 8
    assert found["small"] == 0


def test_it_fetches_nothing_and_every_link_within_it_leads_somewhere(measure):
    found = measure(1280)
    assert [name for name in found["fetched"] if not name.startswith("data:")] == []
    assert found["dead"] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_prediction_fits_as_well(width, browser, tmp_path_factory, tmp_path):
    _, runs, raw = handmade_model.made(tmp_path_factory.getbasetemp())
    model = ecgcmr.load(runs / "t/evaluation", device="cpu")
    found = [
        model.predict_signal(signal, 500, prediction.ecg.LEADS) for signal in list(raw.values())[:2]
    ]
    prediction.write(tmp_path / "a.html", found, model)
    seen = browser(tmp_path / "a.html", width)
    assert seen["width"] <= width
    assert len(seen["images"]) == 2
    assert min(seen["images"]) > 1000
    assert seen["small"] == 0
    assert [name for name in seen["fetched"] if not name.startswith("data:")] == []
