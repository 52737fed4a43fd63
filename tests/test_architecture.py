"""The house: who imports whom, how long files, functions and lines may be."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("nanoaes/**/*.py"))
SCRIPTS = [ROOT / name for name in ("train_rapo.py", "train_sft.py", "build_cot.py", "eval.py")]
ARROWS = {  # module -> what it may import from nanoaes; only scripts compose what is in the wings
    "errors": set(), "prompt": set(), "reward": set(), "rapo": set(), "metrics": set(),
    "cot": {"errors", "filters"}, "leak": set(), "kernels": set(),
    "attention": set(), "windows": set(), "batching": set(),
    "graphs": set(), "inputs": set(), "choices": set(), "sampling": set(), "progress": set(),
    "config": {"errors"}, "runs": {"errors", "progress"}, "watch": {"progress"},
    "parallel": {"errors"},
    "optimize": {"errors", "parallel"}, "schedule": {"config", "progress", "sampler"},
    "presets": {"config", "verbs"}, "verbs": {"config"}, "options": {"config", "presets"},
    "script": {"config", "errors", "options", "parallel", "progress"},
    "sharding": {"errors", "parallel", "vlm"},
    "lora": {"errors"},
    "models": {"adapters", "checkpoint", "config", "errors", "lora", "parallel", "progress",
               "prompt", "runs", "sharding", "vlm"},
    "anatomy": {"lora"}, "memory": {"anatomy", "graphs", "logprob", "rollout"},
    "budget": {"errors", "memory"}, "roofline": {"anatomy", "memory"},
    "dry_run": {"anatomy", "budget", "checks", "config", "folder", "hub", "memory", "parallel",
                "progress", "roofline"},
    "judge": {"config", "datasets", "prompt", "reward", "rollout"},
    "clock": set(), "tracker": {"errors"}, "completions": {"datasets", "judge"},
    "resume": {"checkpoint", "errors", "parallel", "runs", "stop"},
    "diary": {"anatomy", "checkpoint", "clock", "completions", "config", "datasets", "inputs",
              "judge", "parallel", "rollout", "roofline", "runs", "tracker", "vlm"},
    "same": {"adapters", "errors", "hub"},
    "stop": {"parallel", "progress"}, "patience": {"datasets", "errors", "judge", "progress"},
    "checkpoint": {"errors", "progress"}, "colour": set(), "images": {"colour", "errors"},
    "ahead": {"images"}, "index": {"checkpoint", "images", "runs"},
    "overlap": {"checkpoint", "images", "progress"},
    "mixture": set(), "tables": {"images", "progress"}, "downloads": {"mixture", "tables"},
    "unfit": {"prompt"}, "language": set(), "lexicon": {"prompt"}, "says": {"lexicon", "prompt"},
    "quality": {"cot", "prompt", "says"},
    "filters": {"language", "leak", "prompt", "says", "unfit"},
    "chat": {"errors", "images", "inputs"}, "turns": {"errors"}, "wire": {"errors"},
    "endpoint": {"chat", "errors", "progress", "turns", "wire"},
    "local": {"chat", "errors", "graphs", "hub", "images", "rollout", "same", "sampling", "vlm"},
    "card": {"cot", "leak", "unfit"},
    "sharegpt": {"checkpoint", "critiques", "errors", "prompt", "unfit"},
    "critiques": {"datasets", "images", "leak", "progress", "prompt", "records", "specs", "tables",
                  "unfit"},
    "answering": set(), "wording": {"prompt"},
    "teachers": {"chat", "cot", "errors", "wording"},
    "records": {"images", "progress", "tables"}, "specs": {"downloads", "images", "tables"},
    "datasets": {"downloads", "images", "index", "mixture", "progress", "records", "specs",
                 "tables"},
    "sampler": {"datasets", "errors", "images", "mixture"}, "logprob": {"kernels"},
    "checks": {"errors"}, "hub": {"checks"}, "template": {"checks"},
    "adapters": {"checks", "hub", "lora"},
    "older": {"checks"},
    "folder": {"adapters", "checks", "hub", "lora", "older", "prompt", "template"},
    "vlm": {"attention", "errors", "folder", "inputs", "logprob", "lora", "prompt", "template",
            "windows"},
    "rollout": {"attention", "batching", "errors", "graphs", "inputs", "logprob", "sampling",
                "vlm"},
    "tree": {"attention", "inputs", "logprob", "vlm"},
    "readout": {"errors", "graphs", "inputs", "prompt", "rollout", "sampling", "tree", "vlm"},
    "scorer": {"graphs", "images", "readout", "vlm"},
    "evaluation": {"ahead", "checkpoint", "checks", "config", "datasets", "errors", "graphs",
                   "index", "metrics", "models", "parallel", "predictions", "progress", "prompt",
                   "quality", "readout", "runs", "sampler", "vlm"},
    "found": {"config", "images"}, "ledger": {"checkpoint", "errors"}, "bursts": {"images"},
    "scoring": {"ahead", "batching", "bursts", "errors", "hub", "images", "ledger", "parallel",
                "readout", "rollout", "same", "vlm"},
    "standing": {"bursts", "config", "ledger"}, "xmp": {"errors"},
    "targets": {"checkpoint", "config", "errors", "standing", "verbs"},
    "predictions": {"checkpoint", "datasets", "errors", "parallel", "progress", "runs", "stop"},
    "details": {"choices", "datasets", "metrics", "prompt", "quality"},
    "calibration": {"datasets", "errors", "metrics"},
    "paired": {"choices", "errors", "metrics", "predictions"},
    "sft": {"batching", "inputs", "optimize", "parallel", "progress", "prompt", "vlm"},
    "page.text": set(), "page.charts": {"page.text"}, "page.parts": {"page.text"},
    "page.gallery": {"errors", "images", "page.charts", "page.parts", "page.text", "prompt"},
    "page.sheet": {"page.gallery", "page.parts", "page.text", "standing"},
    "page.curves": {"page.charts"}, "page.answers": {"page.gallery", "page.parts"},
    "page.breakdown": {"choices", "metrics", "page.parts", "page.text"},
    "page.critiques": {"card", "checkpoint", "cot", "critiques", "metrics", "page.charts",
                       "page.gallery", "page.parts", "page.text"},
    "page.quality": {"metrics", "page.curves", "page.parts"},
    "page.report": {"checkpoint", "metrics", "page.answers", "page.breakdown", "page.charts",
                    "page.curves", "page.gallery", "page.parts", "page.quality", "page.text"},
    "toy.render": set(), "toy.world": {"cot", "errors", "progress", "toy.render"},
    "toy.teacher": {"toy.world"}, "toy.road": {"toy.world"},
    "toy.model": {"folder", "prompt", "vlm"},
    "toy.school": {"checkpoint", "progress", "prompt", "schedule", "sft", "toy.model",
                   "toy.render", "toy.world", "vlm"},
}
PURE = {"reward", "rapo"}  # torch and math only: no I/O, no environment, no device choice


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            name = node.module or ""
            inner = {f"{name}.{a.name}" for a in node.names}
            found |= inner if (ROOT / name.replace(".", "/")).is_dir() else {name}
    return found


def module(path: Path) -> str:
    """nanoaes/toy/world.py -> toy.world, a script -> its name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("nanoaes.")


@pytest.mark.parametrize("path", FILES, ids=module)
def test_import_arrows(path: Path) -> None:
    inner = {name.removeprefix("nanoaes.") for name in imports(path) if name.startswith("nanoaes.")}
    assert inner <= (set() if path.stem == "__init__" else ARROWS[module(path)])
    assert not imports(path) & {s.stem for s in SCRIPTS}, "modules never import scripts"


@pytest.mark.parametrize("path", sorted(ROOT.glob("bench/**/*.py")), ids=lambda path: path.stem)
def test_what_bench_imports_is_there(path: Path) -> None:
    """A script that runs once a month is broken silently when a function moves."""
    ours = {"nanoaes", *(script.stem for script in SCRIPTS)}
    taken = [node for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ours]
    for node in taken:
        home = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(home, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")


def test_the_algorithm_knows_only_torch_and_math() -> None:
    for name in PURE:
        tops = {x.split(".")[0] for x in imports(ROOT / "nanoaes" / f"{name}.py")}
        assert tops <= {"torch", "math", "dataclasses", "collections"}


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=module)
def test_lengths(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 300
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "every file opens with what it does"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "bare except"


def test_the_loop_fits_one_screen() -> None:
    tree = ast.parse((ROOT / "train_rapo.py").read_text())
    loop = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "train")
    assert loop.end_lineno - loop.lineno < 80

    def walk(node: ast.AST, level: int) -> int:
        inner = level + isinstance(node, ast.For | ast.If | ast.With | ast.While)
        return max([inner, *(walk(child, inner) for child in ast.iter_child_nodes(node))])

    assert walk(loop, 0) <= 4


def test_only_the_declared_packages_are_imported() -> None:
    declared = {line.split(">")[0].split("=")[0].split(";")[0].strip()
                for line in (ROOT / "requirements.txt").read_text().splitlines()}
    declared = {"PIL" if d == "pillow" else d for d in declared}
    local = {"nanoaes", *(s.stem for s in SCRIPTS)}
    for path in [*FILES, *SCRIPTS]:
        tops = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - local
        assert tops - {"__future__"} <= declared, path.name


@pytest.mark.parametrize("formula", [
    "mu_j = mean_k o_jk",
    "p_ik(i,j) = Phi((o_ik − mu_j) / sqrt(var_i + var_j + gamma))",
    "p_c(i,j) = 1 if s_i >= s_j",
    "r_rel(o_ik) = 1/(N−1) · sum_{j≠i} [ sqrt(p_c p_ik) + sqrt((1−p_c)(1−p_ik)) ]",
    "r_abs(o_ik) = exp(−½ (|o_ik − s_i| / sigma)²)",
    "A_ik = (r_ik − mean_k r_i) / std_k r_i",
    "min(ratio·A, clip(ratio, 1−eps_low, 1+eps_high)·A)",
    "KL = k3 = exp(ref−logp) − (ref−logp) − 1",
])
def test_each_formula_of_the_paper_stands_above_one_line(formula: str) -> None:
    assert sum(path.read_text().count("# " + formula) for path in FILES) == 1
