"""What may not stand anywhere in the source, because some line of it would one day be fed from outside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "workers", "proxy_models", "mixing", "migrations", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Each of these runs what it reads: a file or a request that holds code must stay text.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "torch.load",
    "torch.save",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
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


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute, or an empty string."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
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
            yield from _offences_of_call(node)


def _offences_of_call(call: ast.Call) -> Iterator[tuple[int, str]]:
    name = dotted(call.func)
    if name in FORBIDDEN_CALLS | GLOBAL_SEEDS:
        yield call.lineno, f"calls {name}"
    for keyword in call.keywords:
        harmless = isinstance(keyword.value, ast.Constant) and not keyword.value.value
        if keyword.arg in {"shell", "allow_pickle", "trust_remote_code"} and not harmless:
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


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_read_from_outside_can_run(path: Path) -> None:
    assert list(offences(ast.parse(path.read_text(encoding="utf-8")))) == []


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
    ],
)
def test_the_check_lets_pass(source: str) -> None:
    assert list(offences(ast.parse(source))) == []


def test_the_check_tells_a_poll_from_a_sleep() -> None:
    assert list(bare_sleeps(ast.parse("time.sleep(1)"))) == [1]
    assert list(bare_sleeps(ast.parse("while not done():\n    time.sleep(0.02)"))) == []
