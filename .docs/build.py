"""The reference as pages: every public name from its docstring, and where each rule and constant comes from.

    python .docs/build.py OUT

Anything that the generator warns of is an error.
"""

import argparse
import importlib
import warnings
from pathlib import Path

import pdoc
from pdoc import render, render_helpers

HERE = Path(__file__).parent
MODULES = (
    "compiled_loss",
    "compiled_loss.assign.parts",
    "compiled_loss.assign.regions",
    "compiled_loss.audit",
    "compiled_loss.data.sources",
    "compiled_loss.exporting",
    "compiled_loss.geometry.boxes",
    "compiled_loss.geometry.keypoints",
    "compiled_loss.geometry.masks",
    "compiled_loss.geometry.rotated",
    "compiled_loss.integrations.libreyolo",
    "compiled_loss.integrations.luxonis",
    "compiled_loss.integrations.ultralytics",
    "compiled_loss.terms.box",
    "compiled_loss.terms.keypoints",
    "compiled_loss.terms.masks",
    "compiled_loss.terms.rotated",
)


def build(out: Path) -> None:
    """Write the pages."""
    for name in MODULES:
        # Packages load their names when asked for; the generator looks for those that are there.
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            getattr(module, public)
    render.configure(docformat="google", template_directory=HERE, show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=out)
    text = render_helpers.to_html((HERE / "provenance.md").read_text())
    page = render.env.get_template("page.html.jinja2").render(title="Where every rule comes from", text=text)
    (out / "provenance.html").write_text(page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    build(parser.parse_args().out)
