"""A real browser shows the page without a complaint, and would complain if it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_views import make_view

from ensemble_svc.report.html import render
from ensemble_svc.report.verdict import judge

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so no browser can open the page"),
]

QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-extensions")  # fmt: skip


def load(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's DOM after it has settled, and what its console said."""
    log = ("--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", *QUIET, *log, f"--user-data-dir={profile}"]
    command += ["--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_page_opens_with_a_silent_console(task: str, tmp_path: Path) -> None:
    hostile = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    view = make_view(task, members=4, lost=1, rows=60, word=hostile, names=(hostile, "b"))
    (tmp_path / "report.html").write_text(render(view), encoding="utf-8")
    dom, console = load(tmp_path / "report.html", tmp_path / "profile")
    assert not console
    assert judge(view.metrics, view.manifest).detail in unescape(dom)
    assert "<title>taken" not in dom
    assert dom.count("<svg") > 5


def test_a_style_that_the_policy_does_not_name_would_be_heard_of(tmp_path: Path) -> None:
    html = render(make_view(members=2, rows=30)).replace("</style>", "body { color: red }</style>")
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    assert load(tmp_path / "report.html", tmp_path / "profile")[1]


def picture(page: Path, *options: str) -> np.ndarray:
    """The first screen of the page, [height, width, 3]."""
    out = page.with_suffix(".png")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", *QUIET, "--window-size=1000,1400", *options]
    command += [f"--user-data-dir={page.parent / 'profile'}", f"--screenshot={out}", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return np.asarray(Image.open(out).convert("RGB"))


def test_it_is_light_by_day_and_dark_by_night_and_its_pictures_show(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(make_view(members=3, rows=40)), encoding="utf-8")
    light = picture(page, "--blink-settings=preferredColorScheme=1")
    dark = picture(page, "--blink-settings=preferredColorScheme=0")
    assert np.median(light) > 200
    assert np.median(dark) < 60
    assert light.std() > 10
    assert dark.std() > 10
    dom, console = load(page, tmp_path / "profile")
    assert "data:image/png;base64," in dom
    assert not console


def test_the_pictures_are_refused_where_the_policy_does_not_name_them(tmp_path: Path) -> None:
    html = render(make_view(members=2, rows=30)).replace("img-src data:; ", "")
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    assert any("data:" in line for line in load(tmp_path / "report.html", tmp_path / "profile")[1])


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("width", [400, 800])
def test_nothing_stands_out_of_a_narrow_page(task: str, width: int, tmp_path: Path) -> None:
    """The page with a script in place of its policy, in a frame of this width, says by how much it is wider."""
    view = make_view(
        task, members=16, rows=60, names=("y",) if task == "regression" else tuple(map(str, range(12)))
    )
    html = re.sub(r"<meta http-equiv[^>]*>", "", render(view))
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    told = f"<script>parent.postMessage({wider}, '*')</script>"
    (tmp_path / "report.html").write_text(html.replace("</body>", f"{told}</body>"), encoding="utf-8")
    outer = (
        "<title>none</title><script>addEventListener('message', e => { document.title = e.data })</script>"
        f'<iframe src="report.html" style="width: {width}px; height: 900px; border: 0"></iframe>'
    )
    (tmp_path / "frame.html").write_text(outer, encoding="utf-8")
    dom, _ = load(tmp_path / "frame.html", tmp_path / "profile")
    assert re.findall(r"<title>(.*?)</title>", dom)[0] == "0"


def test_it_prints_on_a_few_pages(tmp_path: Path) -> None:
    page, out = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(render(make_view(members=30, rows=40)), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--blink-settings=preferredColorScheme=0", f"--print-to-pdf={out}", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    body = out.read_bytes()
    assert body.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", body)) <= 20
