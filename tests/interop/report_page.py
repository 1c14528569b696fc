# make interop: QLORA=$QLORA $PYTHON tests/interop/report_page.py --made $WORK
"""Opens pages of `qlora report --html` and `qlora inspect data --html` in a headless Chromium, at 1280 and 390 pixels, light and dark.

    tests/interop/report_page.py PAGE.html... [--screenshots DIR]
    QLORA=build/bin/qlora tests/interop/report_page.py --made FOLDER      # pages of a short run on a made model

Each page must run without a script error, load nothing, run no script that a row or an answer holds, be no wider than the
window, and show what its data say: a chart for each kind of number, each row, each prompt. Needs the Python package playwright and a
Chromium: its own (`playwright install chromium`), or that of $CHROMIUM; with --made, without them it says so and passes. Last run with
playwright 1.65 and Chromium 156.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

try:
    from playwright.sync_api import Error, sync_playwright
except ImportError:
    sync_playwright = None

QLORA = os.environ.get("QLORA", "build/bin/qlora")
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"quotes\" Ünïcödé"


def qlora(*arguments):
    done = subprocess.run([QLORA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def made_pages(folder):
    """The report of a run with evaluations and samples, and the rows of its recipe."""
    from made_model import make_model
    folder.mkdir(parents=True, exist_ok=True)
    make_model(str(folder / "model"))
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": f"Row {i} of forty.\n{HOSTILE}"}) + "\n" for i in range(40)))
    recipe = {"model": {"path": str(folder / "model")}, "quantization": {"method": "nf4"}, "lora": {"rank": 4, "alpha": 8},
              "data": {"train": [{"path": str(folder / "rows.jsonl"), "format": "text"}], "eval_fraction": 0.2, "sequence_length": 256},
              "train": {"max_steps": 10, "eval_every": 5, "sample_prompts": ["Row 3", HOSTILE], "device": "cpu"},
              "output": {"dir": str(folder / "run")}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    report, rows = folder / "report.html", folder / "rows.html"
    qlora("train", str(folder / "recipe.yaml"))
    qlora("report", str(folder / "run"), "--html", str(report))
    qlora("inspect", "data", str(folder / "recipe.yaml"), "--html", str(rows))
    return [report, rows]


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


def leave(why, arguments):
    print(f"{why}; no page is opened")
    sys.exit(0 if arguments.made else 1)


def opened(playwright, arguments):
    try:
        return playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
    except Error as error:
        if "doesn't exist" not in str(error):
            raise
        return leave("there is no Chromium: `playwright install chromium` fetches one, CHROMIUM names another", arguments)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    parser.add_argument("--made", type=pathlib.Path, help="folder for a short run, whose pages are opened")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    if not arguments.pages and not arguments.made:
        parser.error("name pages, or a folder with --made")
    if sync_playwright is None:
        leave("playwright is not installed (tests/interop/requirements_more.txt)", arguments)
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    failed = False
    with sync_playwright() as playwright:
        browser = opened(playwright, arguments)
        for path in arguments.pages + (made_pages(arguments.made) if arguments.made else []):
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
