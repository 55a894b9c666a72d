"""The page's pure JavaScript, by Node.js' own test runner: each `*.test.js` beside this file."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[3] / "collector/flopmeter/collector/web/pages"
TESTS = sorted(Path(__file__).parent.glob("*.test.js"))


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_the_pure_modules_of_the_page(file: Path, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}\n')  # what a browser takes them for
    shutil.copytree(PAGES, tmp_path / "pages")
    shutil.copy(file, tmp_path)
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", file.name],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "TZ": "America/St_Johns", "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "\n# pass 0\n" not in done.stdout


def test_there_are_such_tests() -> None:
    assert {"scales.test.js", "paths.test.js", "curve.test.js", "lineage.test.js"} <= {
        file.name for file in TESTS
    }
