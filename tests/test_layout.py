"""The shape of the tree, where a mistake would be silent."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Folders of this or that machine, in any file. A slash in front: `docs/home/` is a fine name.
MACHINE_PATH = re.compile(rb"(?<![\w./-])/(?:home|Users|root|work|tmp)/[\w.-]+")


def tracked() -> list[Path]:
    listed = subprocess.run(
        # Whoever owns the checkout: a build machine's checkout is often another user's.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


@pytest.mark.parametrize("folder", ["api", "operator", "worker-image"])
def test_a_folder_of_packages_is_no_package(folder: str) -> None:
    """`operator/__init__.py` would replace the standard library's module of that name."""
    assert not (ROOT / folder / "__init__.py").exists()


def test_every_folder_of_tests_is_a_package() -> None:
    """Two files of the same name in folders that are none would be one module to the importer."""
    folders = {path.parent for path in tracked() if path.parts[0] == "tests" and is_code(path)}
    assert [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []


def test_every_package_says_that_it_is_typed() -> None:
    markers = {path for path in tracked() if path.match("*/encoder_*/__init__.py")}
    packages = [path.parent for path in markers if len(path.parts) == 3]
    assert len(packages) >= 7
    assert [str(found) for found in packages if not (ROOT / found / "py.typed").exists()] == []


def test_every_module_begins_with_what_it_is() -> None:
    modules = [path for path in tracked() if is_code(path) and path.parts[0] != "benchmarks"]
    silent = [path for path in modules if not starts_with_docstring((ROOT / path).read_text())]
    assert [str(path) for path in silent] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {
        f"{path}: {hit.decode()}"
        for path in tracked()
        if not is_inside_an_image(path)
        for hit in MACHINE_PATH.findall((ROOT / path).read_bytes())
    }
    assert found == set()


def is_inside_an_image(path: Path) -> bool:
    """Paths of an image or a container are the same everywhere."""
    return path.name == "Dockerfile" or path.parts[0] in ("k8s", "overlays")


def is_code(path: Path) -> bool:
    return path.suffix == ".py"


def starts_with_docstring(code: str) -> bool:
    lines = [line for line in code.splitlines() if line and not line.startswith("#")]
    return bool(lines) and lines[0].startswith(('"""', 'r"""'))
