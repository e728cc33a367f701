"""Which module imports which: the core stands alone, the library without its scripts, and there are no cycles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "perceiver_io").rglob("*.py")
}
CORE = {
    f"perceiver_io.{name}"
    for name in (
        *("attention", "encoder", "decoder", "perceiver", "preprocessors", "queries", "postprocessors", "multimodal"),
        *("position_encoding", "initializers", "patches", "convolutions", "checks"),
    )
}


def imported(module: str) -> set[str]:
    """All modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{module}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found


@pytest.mark.parametrize("module", sorted(CORE & FILES.keys()))
def test_the_core_imports_the_core_alone(module: str) -> None:
    ours = {name for name in imported(module) if name.partition(".")[0] == "perceiver_io"}
    assert ours <= CORE


def test_the_library_does_not_import_what_surrounds_it() -> None:
    for module in FILES:
        assert not {name.partition(".")[0] for name in imported(module)} & {"conversion", "examples", "benchmarks"}


def test_there_is_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for module in FILES:
        graph[module] = imported(module) & FILES.keys()
        # Importing a module runs the packages that it lies in, unless they are being imported already.
        packages = {".".join(name.split(".")[:end]) for name in graph[module] for end in range(1, name.count(".") + 1)}
        graph[module] |= {name for name in packages if not f"{module}.".startswith(f"{name}.")}
    TopologicalSorter(graph).prepare()
