"""What no line of the code does, because somebody could be hurt by it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path for room in ("app", "workers", "config", "offhook") for path in (ROOT / room).rglob("*.py"))
PAGES = sorted(
    path
    for kind in ("*.js", "*.html")
    for path in (ROOT / "app/web").rglob(kind)
    if "vendor" not in path.parts  # Preact has its own way to markup, which is looked for in what uses it
)
SECRET = re.compile(r"secret|signature|token|passw", re.IGNORECASE)
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|dangerouslySetInnerHTML|srcdoc"
    r"|javascript:|\|\s*safe|autoescape false"
)
IN_LUA = "redis.call("


def secrets_compared(code: str) -> list[str]:
    """Comparisons of something called a secret that take longer the more of it is right."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
            sides = [side for side in (node.left, *node.comparators) if not isinstance(side, ast.Constant)]
            if len(sides) > 1 and any(SECRET.search(ast.unparse(side)) for side in sides):
                found.append(ast.unparse(node))
    return found


def scripts_made(code: str) -> list[str]:
    """Lua that is put together from parts: f-strings, +, %, format, join; but for the one constant that is put in."""
    found = []
    for node in ast.walk(ast.parse(code)):
        made = isinstance(node, ast.JoinedStr | ast.BinOp) or (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        )
        if not made or IN_LUA not in ast.unparse(node):
            continue
        text = ast.unparse(node)
        if not text.endswith(".replace('ID_BYTES', str(ID_BYTES))"):
            found.append(text)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_secrets_are_compared_in_constant_time_and_scripts_are_constants(path: Path) -> None:
    code = path.read_text()
    assert secrets_compared(code) == []
    assert scripts_made(code) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_turns_text_into_markup(path: Path) -> None:
    assert MARKUP.findall(path.read_text()) == []


@pytest.mark.parametrize(
    "code", ["signature == given", "if self.token != token: pass", "a == key.secret", "x = 1 < y == password_of(z)"]
)
def test_a_comparison_that_leaks_is_found(code: str) -> None:
    assert secrets_compared(code) != []


@pytest.mark.parametrize(
    "code",
    [
        """X = f"redis.call('GET', '{name}')" """,
        """X = "redis.call('GET', '%s')" % name""",
        """X = "redis.call('GET', '" + name + "')" """,
        """X = "redis.call('GET', '{}')".format(name)""",
        """X = "redis.call('GET', NAME)".replace("NAME", name)""",
        """r.register_script("; ".join(["redis.call('GET', KEYS[1])", name]))""",
    ],
)
def test_a_script_that_is_put_together_is_found(code: str) -> None:
    assert scripts_made(code) != []


def test_there_is_code_to_look_at() -> None:
    assert len(MODULES) > 40
    assert len(PAGES) > 10
    assert sum(IN_LUA in path.read_text() for path in MODULES) >= 4
