"""What may not stand anywhere in the source, because some line of it would one day be fed from outside."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "mixwright",
    "service",
    "exchange",
    "store",
    "workers",
    "proxy_models",
    "mixing",
    "migrations",
    "benchmarks",
)
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
TEMPLATES = sorted((ROOT / "service" / "dashboard" / "templates").rglob("*.html"))

# Each of these runs what it reads: a file or a request that holds code must stay text.
FORBIDDEN_MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "commands",
    "code", "codeop", "pty", "xmlrpc", "telnetlib", "crypt",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "__import__",
    "asyncio.create_subprocess_shell",
    "builtins.eval",
    "builtins.exec",
    "compile",
    "eval",
    "exec",
    "numpy.loads",
    "os.popen",
    "os.startfile",
    "os.system",
    "pandas.eval",
    "pandas.read_pickle",
    "pandas.to_pickle",
    "pty.spawn",
    "runpy.run_module",
    "runpy.run_path",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tempfile.mktemp",
    "torch.hub.load",
    "torch.jit.load",
    "torch.load",
    "torch.save",
    "torch.package.PackageImporter",
    "torch.serialization.load",
    "yaml.full_load",
    "yaml.full_load_all",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
}
# Whatever they are called on: an alias is no way around.
FORBIDDEN_ARGUMENTS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}
# One runs what the documentation shows, the other writes the file that must be refused.
EXCEPTIONS = {
    "tests/docs/test_docs.py": {"calls exec"},
    "tests/proxy_models/test_corpus.py": {"passes allow_pickle=True"},
}
# A generator everybody shares makes the numbers of one run depend on what ran before it.
GLOBAL_SEEDS = {
    "np.random.seed",
    "numpy.random.seed",
    "random.seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.manual_seed",
    "torch.random.manual_seed",
    "torch.seed",
}


def dotted(node: ast.expr, aliases: Mapping[str, str] = MappingProxyType({})) -> str:
    """``a.b.c`` of a name or attribute, its first part under the name it was imported from, or an empty string."""
    if not isinstance(node, ast.Name | ast.Attribute):
        return ""
    first, dot, rest = ast.unparse(node).partition(".")
    return aliases.get(first, first) + dot + rest


def aliases_in(tree: ast.AST) -> dict[str, str]:
    """What every imported name stands for: ``{"np": "numpy", "run": "os.system"}``."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    aliases = aliases_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            yield from ((node.lineno, f"imports {name}") for name in sorted(names & FORBIDDEN_MODULES))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in FORBIDDEN_MODULES:
                yield node.lineno, f"imports {module}"
            imported = {f"{module}.{alias.name}" for alias in node.names}
            yield from (
                (node.lineno, f"imports {name}") for name in imported & (FORBIDDEN_CALLS | GLOBAL_SEEDS)
            )
        elif isinstance(node, ast.Call):
            yield from _offences_of_call(node, aliases)


def _offences_of_call(call: ast.Call, aliases: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    for name in {dotted(call.func), dotted(call.func, aliases)}:
        if name in FORBIDDEN_CALLS | GLOBAL_SEEDS:
            yield call.lineno, f"calls {name}"
    if dotted(call.func, aliases) == "getattr" and len(call.args) > 1:
        looked_up = call.args[1]
        if isinstance(looked_up, ast.Constant) and looked_up.value in {"system", "popen", "eval", "exec"}:
            yield call.lineno, f"looks up {looked_up.value}"
    written_here = bool(call.args) and isinstance(call.args[0], ast.Constant)
    if dotted(call.func, aliases) in {"markupsafe.Markup", "jinja2.Markup"} and not written_here:
        yield call.lineno, "makes markup of what is not written here"
    if dotted(call.func, aliases) in {"numpy.load", "np.load"} and len(call.args) > 2:
        yield call.lineno, "passes allow_pickle by position"
    for keyword in call.keywords:
        if keyword.arg not in FORBIDDEN_ARGUMENTS:
            continue
        harmless = (
            isinstance(keyword.value, ast.Constant)
            and bool(keyword.value.value) is not FORBIDDEN_ARGUMENTS[keyword.arg]
        )
        if not harmless:
            yield call.lineno, f"passes {keyword.arg}={ast.unparse(keyword.value)}"


def bare_sleeps(tree: ast.AST) -> Iterator[int]:
    """Lines that sleep outside a ``while``: a test waits on a condition, never for an amount of time."""
    polling = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in polling:
            continue
        if dotted(node.func) in {"time.sleep", "sleep"}:
            yield node.lineno


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SOURCES, *TESTS, *SCRIPTS], ids=relative)
def test_nothing_read_from_outside_can_run(path: Path) -> None:
    allowed = EXCEPTIONS.get(relative(path), set())
    if path in TESTS:  # what a test draws is its own business
        allowed = allowed | {f"calls {name}" for name in GLOBAL_SEEDS}
    found = offences(ast.parse(path.read_text(encoding="utf-8")))
    assert [(line, what) for line, what in found if what not in allowed] == []


@pytest.mark.parametrize("path", TEMPLATES, ids=relative)
def test_pages_escape_everything_and_hold_no_inline_script_or_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape\s+false", text), "text from outside would be markup"
    assert not re.search(
        r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text, re.IGNORECASE
    )


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_tests_wait_on_conditions(path: Path) -> None:
    assert list(bare_sleeps(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('model.pt')",
        "from torch import load",
        "yaml.load(text)",
        "eval('1')",
        "subprocess.run(command, shell=True)",
        "np.load(path, allow_pickle=allowed)",
        "np.load(path, None, True)",
        "torch.load('model.pt', weights_only=False)",
        "from torch import load as read",
        "import os as machine\nmachine.system('ls')",
        "from os import system",
        "getattr(os, 'system')('ls')",
        "import yaml as y\ny.load(text)",
        "import joblib",
        "__import__('pickle')",
        "compile(text, 'x', 'exec')",
        "asyncio.create_subprocess_shell(command)",
        "subprocess.Popen(command, shell=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "from markupsafe import Markup\nMarkup(f'<b>{name}</b>')",
        "from markupsafe import Markup\nMarkup(text)",
        "tempfile.mktemp()",
        "pandas.read_pickle(path)",
        "np.random.seed(0)",
        "def train():\n    torch.manual_seed(1)",
    ],
)
def test_the_check_sees(source: str) -> None:
    assert list(offences(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "torch.Generator().manual_seed(1)",
        "np.random.default_rng(1)",
        "yaml.safe_load(text)",
        "subprocess.run(command, shell=False)",
        "model.eval()",
        "re.compile(pattern)",
        "from markupsafe import Markup\nMarkup('<b>{}</b>').format(name)",
        "np.load(path, mmap_mode='r', allow_pickle=False)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=False)",
        "getattr(settings, name)",
    ],
)
def test_the_check_lets_pass(source: str) -> None:
    assert list(offences(ast.parse(source))) == []


def test_the_check_tells_a_poll_from_a_sleep() -> None:
    assert list(bare_sleeps(ast.parse("time.sleep(1)"))) == [1]
    assert list(bare_sleeps(ast.parse("while not done():\n    time.sleep(0.02)"))) == []
