"""What an installed package has to have."""

from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[1]


def test_every_directory_with_code_is_a_package() -> None:
    directories = {path.parent.relative_to(ROOT) for path in (ROOT / "perceiver_io").rglob("*.py")}
    packages = find_packages(str(ROOT), include=["perceiver_io", "perceiver_io.*"])
    assert sorted(".".join(path.parts) for path in directories) == sorted(packages)
