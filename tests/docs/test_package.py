"""The package's shape: one namespace over three roots, data files shipped, no code in __init__.py, file sizes."""

import ast
import graphlib
import json
import os
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import flopmeter

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "agent", ROOT / "collector", ROOT / "protos")
PORTIONS = ("agent", "collector", "play", "cli", "contract", "wire/v1")
#: A file past 500 lines must earn it: name it here and say why.
LONG_FILES: dict[str, str] = {}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository that git would keep (tracked, or new and not ignored)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [p for line in listed.stdout.splitlines() if (p := ROOT / line).is_file()]


def source_files() -> list[Path]:
    return [p for root in SOURCES for p in sorted(root.rglob("*.py")) if "_pb2" not in p.name]


def test_flopmeter_is_a_namespace_over_three_roots() -> None:
    assert getattr(flopmeter, "__file__", None) is None
    assert {Path(p).resolve() for p in flopmeter.__path__} >= {(s / "flopmeter").resolve() for s in SOURCES}


def test_no_stray_init_hides_the_other_roots() -> None:
    for root in SOURCES:
        assert not (root / "__init__.py").exists()
        assert not (root / "flopmeter" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("portion", PORTIONS)
def test_each_portion_is_a_typed_package_without_code_in_its_init(portion: str) -> None:
    (folder,) = [s / "flopmeter" / portion for s in SOURCES if (s / "flopmeter" / portion).is_dir()]
    assert (folder / "py.typed").exists()
    for init in folder.rglob("__init__.py"):
        body = ast.parse(init.read_text()).body
        assert len(body) <= 1, f"{init}: code"
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def imported(module: str, tree: ast.AST, modules: Mapping[str, object]) -> Iterator[str]:
    """The modules of ours that one imports, anywhere in it: when it is used, and for types only, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in modules)


def circle(trees: Mapping[str, ast.AST]) -> list[str]:
    """A circle of modules, each imported by the one before; [] where there is none."""
    graph = {name: set(imported(name, tree, trees)) for name, tree in trees.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as e:
        return list(reversed(e.args[1]))
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    trees = {
        ".".join(p.relative_to(root).with_suffix("").parts): ast.parse(p.read_text())
        for root in SOURCES
        for p in source_files()
        if p.is_relative_to(root)
    }
    assert len(trees) > 600
    assert circle(trees) == []


def test_a_circle_is_seen_wherever_the_import_stands() -> None:
    late = {
        "f.a": ast.parse("def use():\n    from .b import B"),
        "f.b": ast.parse("if TYPE_CHECKING:\n    import f.a"),
    }
    assert sorted(set(circle(late))) == ["f.a", "f.b"]
    assert circle({**late, "f.b": ast.parse("import json")}) == []


def test_files_are_short() -> None:
    sizes = {p: len(p.read_text().splitlines()) for p in source_files() if p.name != "__init__.py"}
    assert statistics.median(sizes.values()) < 200
    long = {str(p.relative_to(ROOT)) for p, n in sizes.items() if n > 500}
    assert long == set(LONG_FILES)


def test_test_files_are_short() -> None:
    sizes = {p: len(p.read_text().splitlines()) for p in sorted((ROOT / "tests").rglob("*.py"))}
    assert len(sizes) > 100
    assert [str(p.relative_to(ROOT)) for p, n in sizes.items() if n > 500] == []


def test_wheel_holds_every_source_and_data_file(tmp_path: Path) -> None:
    """Built offline from what is checked out; data files are where importlib.resources looks for them."""
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            ROOT,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: text for name, text in os.environ.items() if name != "SOURCE_DATE_EPOCH"},
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("flopmeter-*.whl")
    with zipfile.ZipFile(wheel) as z:
        shipped = {n for n in z.namelist() if n.startswith("flopmeter/")}
        meta = next(n for n in z.namelist() if n.endswith("METADATA"))
        entry_points = z.read(next(n for n in z.namelist() if n.endswith("entry_points.txt"))).decode()
        metadata = z.read(meta).decode()
        assert any(n.endswith("licenses/LICENSE") for n in z.namelist())
        manual = {Path(n).name: z.read(n).decode() for n in z.namelist() if "/data/share/man/man1/" in n}
    here = {
        str(p.relative_to(root))
        for root in SOURCES
        for p in root.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc"
    }
    assert shipped == here
    # By a process of its own: commands remember how they were first asked for help.
    asked = "import json; from flopmeter.cli.main import flopmeter; from flopmeter.cli.manual import pages"
    asked += "; print(json.dumps({f'{name}.1': text for name, text in pages(flopmeter, '')}))"
    told = json.loads(subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True).stdout)
    assert manual == told
    assert len(manual) > 100
    for kind in (".proto", ".toml", "py.typed", "_pb2.py", "_pb2.pyi"):
        assert any(n.endswith(kind) for n in shipped), kind
    assert "flopmeter/__init__.py" not in shipped
    assert "flopmeter = flopmeter.cli.main:main" in entry_points
    assert "Requires-Python: >=3.11" in metadata
    for extra in ("agent", "collector"):
        assert f"Provides-Extra: {extra}" in metadata
