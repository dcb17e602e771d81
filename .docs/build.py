"""The documentation as pages: every public name from its docstring, beside them the guide and the pages of this folder.

    python .docs/build.py OUT

Anything that the generator warns of is an error.
"""

import argparse
import importlib
import re
import warnings
from pathlib import Path

import pdoc
from pdoc import render, render_helpers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
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
# Under these names; links between them are kept.
PAGES = {
    "guide": HERE / "guide.md",
    "recipes": ROOT / "examples" / "README.md",
    "parts": HERE / "parts.md",
    "trainers": ROOT / "examples" / "trainers" / "README.md",
    "export": ROOT / "export" / "README.md",
    "audit": HERE / "audit.md",
    "speed": HERE / "speed.md",
    "lucid": HERE / "lucid.md",
    "traps": HERE / "traps.md",
    "provenance": HERE / "provenance.md",
}


def build(out: Path) -> None:
    """Write the pages."""
    for name in MODULES:
        # Packages load their names when asked for; the generator looks for those that are there.
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            getattr(module, public)
    render.configure(docformat="google", template_directory=HERE, show_source=False)
    titles = {name: page.read_text().partition("\n")[0].lstrip("# ") for name, page in PAGES.items()}
    render.env.globals["pages"] = titles
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=out)
    template = render.env.get_template("page.html.jinja2")
    for name, page in PAGES.items():
        text = render_helpers.to_html(with_links(page))
        (out / f"{name}.html").write_text(template.render(title=titles[name], text=text))


def with_links(page: Path) -> str:
    """A page's text; what it links to is a page here, or is named alone."""
    places = {path: name for name, path in PAGES.items()}

    def link(match: re.Match[str]) -> str:
        label, target = match.groups()
        path, _, heading = target.partition("#")
        if "://" in target or not path:
            return match[0]
        name = places.get((page.parent / path).resolve())
        return label if name is None else f"[{label}]({name}.html{'#' * bool(heading)}{heading})"

    return re.sub(r"(?<!!)\[([^]]+)\]\(([^)]+)\)", link, page.read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    build(parser.parse_args().out)
