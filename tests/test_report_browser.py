"""A real browser shows the page without a complaint, and would complain if it should."""

from __future__ import annotations

import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
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
