"""The package as a whole: what it imports, which module stands on which, and what its public names carry."""

import ast
import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import compiled_loss

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "compiled_loss"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {p: ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in MODULES}

# A module imports only from lower floors, or from its own where the pair is listed.
FLOORS = {
    "types": 0,
    "checks": 0,
    "numerics": 0,
    "exact": 0,
    "torch_private": 0,
    "ragged": 1,
    "pages": 1,
    "grid": 1,
    "geometry": 1,
    "assign": 2,
    "terms": 2,
    "overlaps": 2,
    "reduce": 3,
    "data": 3,
    "losses": 4,
    "parts": 5,
    "suppression": 5,
    "integrations": 5,
    "audit": 5,
    "exporting": 5,
    "api": 6,
    "__init__": 7,
    "__main__": 8,
}
WITHIN_A_FLOOR = {
    ("numerics", "torch_private"),
    ("pages", "ragged"),
    ("geometry", "ragged"),
    ("geometry", "pages"),
}


def room(dotted: str) -> str:
    """`compiled_loss.assign.candidates` is in the room `assign`."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> list[str]:
    """Every `compiled_loss...` module that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found += [name if name in NAMES.values() else node.module or "" for name in names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.split(".")[0] == "compiled_loss"]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_from_lower_floors_alone(path):
    place = path.relative_to(PACKAGE)
    own = place.parts[0].removesuffix(".py")
    assert own in FLOORS, f"{own}: give it a floor"
    for name in imports(path):
        other = room(name)
        if other == own:
            continue
        assert (FLOORS[other] < FLOORS[own]) or (own, other) in WITHIN_A_FLOOR, f"{place} imports {name}"


def test_no_module_imports_itself_by_way_of_others():
    waiting = {NAMES[path]: {*imports(path)} - {NAMES[path]} for path in MODULES}
    while free := {name for name, needed in waiting.items() if not needed & waiting.keys()}:
        waiting = {name: needed for name, needed in waiting.items() if name not in free}
    assert not waiting


def test_assignment_and_terms_know_nothing_of_each_other():
    for path in MODULES:
        own, rooms = path.relative_to(PACKAGE).parts[0], {room(name) for name in imports(path)}
        assert not (own == "assign" and "terms" in rooms), path
        assert not (own == "terms" and "assign" in rooms), path


def test_importing_the_package_loads_torch_and_nothing_else():
    def loaded(name: str) -> set[str]:
        code = f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        return {module.split(".")[0] for module in json.loads(out.stdout)}

    extra = loaded("compiled_loss.api") - loaded("torch") - set(sys.stdlib_module_names)
    assert extra == {"compiled_loss"}


def test_every_public_name_exists_and_the_list_is_sorted():
    assert compiled_loss.__all__ == sorted(compiled_loss.__all__)
    for name in compiled_loss.__all__:
        assert hasattr(compiled_loss, name)


def test_a_public_name_is_no_other_modules_name():
    # Importing a module puts it in the place of whatever its package calls by that name.
    modules = {path.stem if path.parent == PACKAGE else path.parent.name for path in MODULES}
    assert {x for x in modules & {*compiled_loss.__all__} if not inspect.ismodule(getattr(compiled_loss, x))} == set()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'DetectionLos'"):
        compiled_loss.DetectionLos  # noqa: B018
    assert {"DetectionLoss", "__all__"} <= {*dir(compiled_loss)}


def public_objects() -> dict[str, object]:
    """The public names, and for a public module those of its functions and classes."""
    found = {}
    for name in compiled_loss.__all__:
        thing = getattr(compiled_loss, name)
        members = vars(thing).items() if inspect.ismodule(thing) else [(name, thing)]
        home = thing.__name__ if inspect.ismodule(thing) else thing.__module__
        for member, value in members:
            if getattr(value, "__module__", "") == home and not member.startswith("_"):
                found[member] = value
    return found


@pytest.mark.parametrize("name", public_objects())
def test_every_public_object_explains_itself_with_an_example(name):
    text = inspect.getdoc(public_objects()[name])
    assert text
    assert text.splitlines()[0].endswith((".", ":"))
    assert "Args:" in text
    assert "Example:" in text
    assert doctest.DocTestParser().get_examples(text)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_public_function_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, path
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list):
                continue  # the last of the name explains
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("folder", ["compiled_loss", "examples", "export", "tests"])
def test_no_file_is_longer_than_300_lines(folder):
    long = {p.name: n for p in (ROOT / folder).rglob("*.py") if (n := len(p.read_text().splitlines())) > 300}
    assert not long
