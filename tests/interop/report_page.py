"""Opens pages of `qlora report --html` and `qlora inspect data --html` in a headless Chromium, at 1280 and 390 pixels, light and dark.

    tests/interop/report_page.py PAGE.html... [--screenshots DIR]

Each page must run without a script error, load nothing, run no script that a row or an answer holds, be no wider than the
window, and show what its data say: a chart for each kind of number, each row, each prompt. Needs the Python package playwright and a
Chromium: its own (`playwright install chromium`), or that of $CHROMIUM. Last run with playwright 1.65 and Chromium 156.
"""
import argparse
import json
import os
import pathlib
import sys

from playwright.sync_api import sync_playwright

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


def expectations(page):
    """What the page holds, by what its data hold."""
    data = json.loads(page.locator("#data").text_content())
    runs = data.get("runs", [])
    rows = data.get("rows", []) + [row for run in runs for row in run["rows"]]
    prompts = [{sample["prompt"] for sample in run["samples"]} for run in runs]
    charts = any(value is not None for run in runs for value in run["steps"].get("loss", []))
    return {
        "charts": (page.locator(".chart > svg").count() > 0, charts),
        "rows": (page.locator("div.row").count(), len(rows)),
        "prompts": (page.locator(".pair").count(), sum(map(len, prompts))),
        "title": (page.title(), data["title"]),
        "spans": (page.locator("div.row pre span").all_text_contents(),
                  [text for row in rows for _, text in row["spans"]]),
        "elements from data": (page.locator("main img, main script, main iframe").count(), 0),
    }


def faults_of(browser, path, width, scheme, screenshots):
    faults = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("console", lambda line: faults.append(f"console: {line.text}") if line.type == "error" else None)
    page.on("dialog", lambda dialog: (faults.append("a dialog opened"), dialog.dismiss()))
    page.on("request", lambda request: faults.append(f"request: {request.url}") if not request.url.startswith("file:") else None)
    page.goto(path.resolve().as_uri())
    page.wait_for_timeout(300)
    faults += [f"{what}: found {found!r}, expected {wanted!r}" for what, (found, wanted) in expectations(page).items() if found != wanted]
    if (needed := page.evaluate("document.documentElement.scrollWidth")) > width:
        faults.append(f"the page is {needed} pixels wide")
    for box in page.locator("input[type=checkbox], .legend button").all()[:3]:
        box.click()
    if page.locator("input[type=range]").count():
        page.locator("input[type=range]").fill("0.5")
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    if page.locator(".chart path").count() and not page.locator(".readout:visible").count():
        faults.append("the last chart shows no values under the pointer")
    page.evaluate("window.scrollTo(0, 0)")
    if screenshots:
        page.reload()
        page.wait_for_timeout(300)
        page.screenshot(path=screenshots / f"{path.stem}-{width}-{scheme}.png", full_page=True)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    context.close()
    return faults, background


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="+", type=pathlib.Path)
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    failed = False
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        for path in arguments.pages:
            for width in WIDTHS:
                backgrounds = set()
                for scheme in SCHEMES:
                    faults, background = faults_of(browser, path, width, scheme, arguments.screenshots)
                    backgrounds.add(background)
                    failed |= bool(faults)
                    print(f"{path.name} {width} {scheme}: {'; '.join(faults) or 'ok'}")
                if len(backgrounds) < len(SCHEMES):
                    failed = True
                    print(f"{path.name} {width}: light and dark have the same background")
    sys.exit(failed)


if __name__ == "__main__":
    main()
