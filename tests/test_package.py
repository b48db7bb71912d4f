"""What is installed is whole: the package brings its templates and stacks, wherever it is put."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from consolidate.kinds import Catalogue, data_folder

ROOT = Path(__file__).resolve().parent.parent


def test_a_wheel_has_the_templates_and_renders_with_them(tmp_path: Path) -> None:
    """Unpacked anywhere, far from the sources, it knows every kind and renders a stack."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=200)
    (wheel,) = tmp_path.glob("consolidate-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "there")
    (tmp_path / "stack.yml").write_text(
        "stack: t\nservers:\n  www: {kind: web, domains: [a.test]}\n  e: {kind: proxy}\n"
    )

    def run(*words: str) -> str:
        program = f"import sys; sys.path.insert(0, {str(tmp_path / 'there')!r}); from consolidate.__main__ import main"
        line = f"{program}; import consolidate; print(consolidate.__file__); sys.exit(main({list(words)!r}))"
        done = subprocess.run([sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(tmp_path / "there")), "it is the wheel that runs"
        return done.stdout

    listed = run("kinds", "list", "--format", "json")
    assert all(f'"{kind}"' in listed for kind in Catalogue([data_folder("templates")]).names)
    assert "# www/config/nginx.conf" in run("render", "stack.yml")
