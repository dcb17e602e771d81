"""The explorer, built, served and opened in a browser; skips with a reason where that cannot be."""

import os
import shutil
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
import torch

from compiled_loss.exporting import eager, load
from compiled_loss.exporting.interface import sizes
from compiled_loss.exporting.verifying.compare import TOLERANCE, error_of
from export.consumers.web import build

FLAGS = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync")
FLAGS += ("disable-background-networking", "disable-component-update")
PATIENCE = 180_000  # milliseconds; a busy machine takes long to start a browser
# Typed arrays as plain numbers, once the page shows what was done last: inputs, and outputs by file.
STATE = """async () => {
    await explorer.settled();
    const numbers = ([name, x]) => [name, Array.from(x.data ?? x, Number)];
    const plain = (tensors) => Object.fromEntries(Object.entries(tensors).map(numbers));
    const answers = explorer.answers().map(({ file, outputs }) => [file, plain(outputs)]);
    return [plain(explorer.inputs()), Object.fromEntries(answers)];
}"""


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    """The built page."""
    if not build.RUNTIME.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("the explorer needs npm")
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--prefix", str(build.HERE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip("npm could not install onnxruntime-web")
    out = tmp_path_factory.mktemp("explorer")
    build.build(out)
    return out


@pytest.fixture(scope="module")
def address(explorer):
    """Where the page is served."""
    with build.server(explorer, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="the explorer is driven by playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("the explorer is driven in Chromium: CHROMIUM, or chromium on the path")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=[f"--{flag}" for flag in FLAGS], timeout=PATIENCE)
        yield found
        found.close()


@pytest.fixture
def new_page(browser):
    """Makes an empty page, large unless told otherwise."""
    pages = []

    def make(width=1400, height=1000, **options):
        pages.append(browser.new_page(viewport={"width": width, "height": height}, **options))
        pages[-1].set_default_timeout(PATIENCE)
        return pages[-1]

    yield make
    for page in pages:
        page.close()


@pytest.fixture
def view(new_page, address):
    """Opens the page; in the end nothing may have gone wrong, and nobody else may have been asked."""
    pages, wrong, asked = [], [], []

    def show(**options):
        page = new_page(**options)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield show
    assert all(page.locator("#failure").is_hidden() for page in pages)
    assert not wrong
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


@pytest.fixture(scope="module")
def truth(explorer):
    """Eager torch for every graph, by its file."""
    files = {path.name: load(path).metadata for path in explorer.glob("*.onnx")}
    return {name: (metadata, eager(metadata)) for name, metadata in files.items()}


@pytest.fixture
def answers(truth):
    """What a page shows, by file the (anchor, row, weight) of its positives: every output compared with eager torch."""

    def compared(page):
        inputs, found = page.evaluate(STATE)
        held = {}
        for file, outputs in found.items():
            metadata, expected = truth[file]
            held[file] = _compared(metadata, expected, inputs, outputs)
        assert page.locator("#total").inner_text() == " / ".join(str(len(rows)) for rows in held.values())
        return held

    return compared


@pytest.fixture
def positives(answers):
    """The same of a page that shows one assigner."""

    def compared(page):
        (held,) = answers(page).values()
        return held

    return compared


def _compared(metadata, function, inputs, outputs):
    axes = {"B": 1, "N": len(inputs["batch_idx"])}

    def tensors(ports, values, axes):
        return {p.name: torch.tensor(values[p.name], dtype=getattr(torch, p.dtype)).view(sizes(p, axes)) for p in ports}

    expected = function(tensors(metadata.inputs, inputs, axes))
    found = tensors(metadata.outputs, outputs, {**axes, "P": len(outputs["anchor"])})
    errors = {name: error_of(found[name], x) for name, x in expected.items()}
    assert max(errors.values()) <= TOLERANCE, errors
    held = [i for i, valid in enumerate(outputs["valid"]) if valid]
    return {(outputs["anchor"][i], outputs["row"][i], outputs["weight"][i]) for i in held}
