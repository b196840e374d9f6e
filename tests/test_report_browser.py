"""Reports in a real browser: every figure is seen, nothing sticks out, nothing is fetched, and print has pages."""

from __future__ import annotations

import contextlib
import functools
import html
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import synthetic_runs

from nessampler.runs.page import Report, write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 800, 1400)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
REPORTS: dict[str, Callable[[], Report]] = {
    "difference": synthetic_runs.difference,
    "density": synthetic_runs.density,
    "lattice": synthetic_runs.lattice,
    "two lattices": synthetic_runs.two_lattices,
    "molecule": synthetic_runs.molecule,
    "works": synthetic_runs.given_works,
    "works of one direction": functools.partial(synthetic_runs.given_works, one_way=True),
}

# The page is looked at in frames of three widths by a page around it; a frame may read another of the same origin.
LOOK = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const widths = %s, seen = {};
function look(frame, width) {
  const page = frame.contentDocument, root = page.documentElement;
  seen[width] = {
    scroll: root.scrollWidth, client: root.clientWidth,
    images: [...page.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.getBoundingClientRect().width]),
    wide: [...page.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre") &&
      e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.tagName + "." + e.className),
    background: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.body).color,
    title: page.title, headline: page.querySelector(".headline").innerText
  };
  if (Object.keys(seen).length == widths.length) {
    const out = document.createElement("output"); out.textContent = JSON.stringify(seen); document.body.append(out);
  }
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => Promise.all([...frame.contentDocument.images].map(i => i.decode().catch(() => 0)))
    .then(() => look(frame, width));
  frame.src = "report.html"; document.body.append(frame);
}
</script></body>"""


@pytest.fixture(scope="module", autouse=True)
def _browser() -> None:
    if BROWSER is None:
        message = "these tests need Chromium: install it with apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def browse(folder: Path, *arguments: str) -> str:
    """What headless Chromium prints."""
    profile = folder / "profile"
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *QUIET, f"--user-data-dir={profile}", *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """A server of the folder: its port, and what pages asked for, whatever host it was meant for.

    What the browser asks for on its own account comes without a referrer.
    """
    asked: list[str] = []

    class Noting(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "Referer" in self.headers:
                asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """The list above is the log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Noting, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()


def seen_in(folder: Path) -> tuple[dict[str, Any], set[str]]:
    """What a browser sees of `report.html` at each width, and what it asked for besides."""
    (folder / "look.html").write_text(LOOK % json.dumps(WIDTHS), encoding="utf-8")
    with served(folder) as (port, asked):
        page = browse(
            folder,
            f"--host-resolver-rules=MAP * 127.0.0.1:{port}",
            "--window-size=1500,1000",
            "--virtual-time-budget=20000",
            "--dump-dom",
            f"http://127.0.0.1:{port}/look.html",
        )
    found = re.search(r"<output>(.*?)</output>", page, re.DOTALL)
    assert found, page[-2000:]
    return json.loads(html.unescape(found[1])), set(asked) - {"/report.html", "/favicon.ico"}


@pytest.fixture(scope="module", params=REPORTS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    report = REPORTS[request.param]()
    write_report(report, folder / "report.html")
    return report, folder


def test_every_figure_is_seen_nothing_sticks_out_and_nothing_is_fetched(page: tuple[Report, Path]) -> None:
    report, folder = page
    seen, fetched = seen_in(folder)
    assert fetched == set()
    assert set(seen) == set(map(str, WIDTHS))
    for width, found in seen.items():
        assert found["client"] == int(width)
        assert found["scroll"] <= found["client"], f"overflow at {width} px: {found['wide']}"
        assert found["wide"] == []
        assert len(found["images"]) == len(report.panels) >= 4
        assert all(complete and min(sizes) > 50 for complete, *sizes in found["images"])
        assert (found["background"], found["ink"]) == ("rgb(255, 255, 255)", "rgb(34, 34, 34)")
        assert str(report.answer.value) in found["headline"]
        assert found["headline"].endswith(f"{report.answer.level}.")


def test_a_page_that_sticks_out_lacks_a_figure_or_fetches_one_is_caught(tmp_path: Path) -> None:
    """Negative control: the browser sees what the test above would refuse."""
    written = write_report(synthetic_runs.lattice(), tmp_path / "report.html").read_text(encoding="utf-8")
    policy = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
    broken = policy.sub("", written).replace("data:image/svg+xml;base64,", "data:image/svg+xml;base64,AAAA", 1)
    fetching = '<img src="gone.png" alt="gone"><link rel="stylesheet" href="http://fonts.example.org/some.css">'
    broken = broken.replace("<main>", f'<main><p style="width:1600px">wide</p>{fetching}', 1)
    (tmp_path / "report.html").write_text(broken, encoding="utf-8")
    seen, fetched = seen_in(tmp_path)
    found = seen["1400"]
    assert found["scroll"] > found["client"]
    assert "P." in found["wide"]
    assert sum(min(sizes[:2]) == 0 for _, *sizes in found["images"]) == 2
    assert fetched == {"/gone.png", "/some.css"}


def test_print_has_pages_with_the_answer_and_its_figures(page: tuple[Report, Path]) -> None:
    _, folder = page
    paper = folder / "report.pdf"
    browse(folder, "--no-pdf-header-footer", f"--print-to-pdf={paper}", f"file://{folder}/report.html")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 2 <= pages <= 20
    assert content.count(b"/Type /Font") + content.count(b"/Type/Font") >= 2  # text, not a picture of it
    assert len(content) > 30_000
