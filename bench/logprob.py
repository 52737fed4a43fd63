"""The head, side by side: milliseconds, TFLOP/s, memory and error of every way to log-probs.

    python bench/logprob.py                    on a GPU: 3B and 7B heads, N = 2048 ... 16384
                                               (a few minutes); on a CPU: a tiny size
    python bench/logprob.py --sweep            and other tile sizes for the two kernels
    python bench/logprob.py --write FILE.md    appends the tables to FILE.md, with device and date
    python bench/logprob.py --compile-only     no GPU needed: compiles the kernels for sm_90 and
                                               exits with 1 where one spills registers

The last line is JSON.  F = 2 N V H operations is one product with the head; `forward` is the
no-grad pass, `frozen` forward and backward for the hidden states only (LoRA), `full` also for the
weight.  TFLOP/s counts the products a method needs if it stores logits (F, 2F, 3F); one that
recomputes them does F more, and that is what its share of the measured GEMM rate is based on.
Memory is the peak beyond inputs and results.  Errors are relative to the largest fp64 value, at
256 tokens.  Left out: multi-GPU and other vocabularies; GPU clocks are taken as they come.
"""
import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.pop("TRITON_INTERPRET", None)

import torch  # noqa: E402
from models import CUDA, seconds  # noqa: E402
from torch import Tensor  # noqa: E402

from nanoaes.logprob import readable_logprob, token_logprob  # noqa: E402

HEADS = {"7B": (152_064, 3584), "3B": (151_936, 2048)} if CUDA else {"tiny, CPU": (20_000, 64)}
TOKENS = (2048, 4096, 8192, 16_384) if CUDA else (256, 1024)
MODES = ("forward", "frozen", "full")
DTYPE = torch.bfloat16 if CUDA else torch.float32


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What most trainers do: logits in the model's dtype, softmax in fp32."""
    logp = (hidden @ weight.T).float().log_softmax(-1)
    entropy = -(logp.detach().exp() * logp.detach()).sum(-1)
    return logp.gather(1, targets[:, None]).squeeze(1), entropy


def contenders() -> dict[str, tuple[Callable, bool]]:
    """Name -> (function of hidden, weight, targets; whether its backward makes logits again)."""
    found: dict[str, tuple[Callable, bool]] = {}
    if CUDA:
        found["nanoaes triton"] = (lambda h, w, t: token_logprob(h, w, t, backend="triton"), True)
    found["nanoaes torch"] = (lambda h, w, t: token_logprob(h, w, t, backend="torch"), True)
    found["plain torch"] = (plain, False)
    if hasattr(torch.nn.functional, "linear_cross_entropy"):  # torch 2.13; it has no entropy
        chunked = torch.nn.LinearCrossEntropyOptions()
        found["torch linear_cross_entropy"] = (lambda h, w, t: (
            -torch.nn.functional.linear_cross_entropy(h, w, t, reduction="none", options=chunked),
            None), False)
    try:
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction
        found["TRL chunked_logprob"] = (
            lambda h, w, t: ChunkedLogProbFunction.apply(h, w, None, t, 1.0)[:2], True)
    except ImportError:
        pass
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
        loss = LigerFusedLinearGRPOLoss(use_ref_model=False, beta=0.0)

        def liger(h: Tensor, w: Tensor, t: Tensor) -> tuple[Tensor, None]:
            """One scalar instead of (N,), and no no-grad pass: timing and memory only."""
            B = len(t) // 256
            ones = torch.ones(B, 256, device=h.device)
            return loss(h.view(B, 256, -1), w, t.view(B, 256), ones, ones[:, 0])[0], None
        found["Liger fused linear GRPO"] = (liger, False)
    except ImportError:
        pass
    return found


def problem(N: int, V: int, H: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random hidden (N, H), weight (V, H), targets (N,) whose logits spread like a model's."""
    device = "cuda" if CUDA else "cpu"
    g = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(N, H, generator=g, device=device).to(DTYPE)
    weight = (2.5 / H**0.5 * torch.randn(V, H, generator=g, device=device)).to(DTYPE)
    return hidden, weight, torch.randint(V, (N,), generator=g, device=device)


def once(function: Callable, hidden: Tensor, weight: Tensor, targets: Tensor, mode: str
         ) -> list[Tensor]:
    """One pass; returns its results, gradients included."""
    hidden = hidden.detach().requires_grad_(mode != "forward")
    weight = weight.detach().requires_grad_(mode == "full")
    logp, entropy = function(hidden, weight, targets)
    if mode != "forward":
        logp.backward(torch.ones_like(logp))
    return [x for x in (logp.detach(), entropy, hidden.grad, weight.grad) if x is not None]


def milliseconds(function: Callable) -> float:
    """Median time of seven calls after two warm-up calls."""
    return 1e3 * statistics.median([seconds(function) for _ in range(9)][2:])


def measure(function: Callable, recomputes: bool, N: int, V: int, H: int, mode: str,
            ceiling: float) -> dict[str, Any]:
    """Time and peak memory of one contender in one mode."""
    inputs = problem(N, V, H)
    row: dict[str, Any] = {}
    try:
        row["ms"] = milliseconds(lambda: once(function, *inputs, mode))
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            kept = sum(x.nbytes for x in once(function, *inputs, mode))
            row["extra_mb"] = (torch.cuda.max_memory_allocated() - before - kept) / 2**20
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"error": "out of memory"}
    except (RuntimeError, ValueError, TypeError) as error:  # a rival's API or limits: say so
        return {"error": str(error)[:80]}
    products = 1 + MODES.index(mode)
    teraflop = 2e-12 * N * V * H
    row["tflops"] = products * teraflop / row["ms"] * 1e3
    done = products + (recomputes and mode != "forward")
    row["of_gemm"] = done * teraflop / row["ms"] * 1e3 / ceiling
    return row


def gemm_ceiling(V: int, H: int) -> float:
    """TFLOP/s of the plain matrix products of a head: the best of the three shapes."""
    N = max(TOKENS[:3])
    hidden, weight, _ = problem(N, V, H)
    part = weight[:32_768]
    d = torch.randn(N, len(part), device=hidden.device).to(DTYPE)
    work = {"x": lambda: hidden @ part.T, "dW": lambda: d.T @ hidden, "dh": lambda: d @ part}
    return max(2e-9 * N * H * len(part) / milliseconds(f) for f in work.values())


def errors(function: Callable, V: int, H: int) -> dict[str, Any]:
    """Largest error of each result of `full` at 256 tokens, relative to the largest fp64 value."""
    hidden, weight, targets = problem(256, V, H)
    try:
        got = once(function, hidden, weight, targets, "full")
    except (RuntimeError, ValueError, TypeError) as error:
        return {"failed": str(error)[:80]}
    if got[0].ndim == 0:
        return {"failed": "returns one scalar"}
    want = once(readable_logprob, hidden.double(), weight.double(), targets, "full")
    names = ["logp", "entropy", "d_hidden", "d_weight"]
    if len(got) == 3:  # no entropy
        del names[1], want[1]
    return {name: ((a.double() - b).abs().max() / b.abs().max()).item()
            for name, a, b in zip(names, got, want, strict=True)}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| head | N | method | pass | ms | TFLOP/s | of GEMM | MB beyond in and out |",
             "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        cells = [r["head"], r["N"], r["method"], r["mode"]]
        if "error" in r:
            cells += [r["error"], "", "", ""]
        else:
            cells += [f"{r['ms']:.2f}", f"{r['tflops']:.3g}", f"{r['of_gemm']:.0%}",
                      f"{r['extra_mb']:.0f}" if "extra_mb" in r else "not measured"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def sweep(V: int, H: int, N: int = 8192) -> list[dict[str, Any]]:
    """Both kernels at other tile sizes: what to put into `kernels.tile_config`."""
    from nanoaes import kernels
    hidden, weight, targets = problem(N, V, H)
    chosen, row_data, rows = torch.empty(N, device="cuda"), torch.ones(5, N, device="cuda"), []
    part = weight[:32_768]
    for BM, BV, BK, warps, stages, kernels.GROUP in [
            (128, 256, 64, 8, 4, 8), (128, 256, 64, 8, 3, 8), (128, 256, 64, 8, 4, 4),
            (128, 256, 64, 8, 4, 16), (128, 256, 64, 8, 4, 64), (256, 128, 64, 8, 4, 8),
            (128, 128, 64, 8, 4, 8), (128, 128, 64, 4, 3, 8), (128, 128, 128, 8, 3, 8)]:
        config = {"BM": BM, "BV": BV, "BK": BK, "num_warps": warps, "num_stages": stages}
        calls = {"statistics": lambda c=config: kernels.statistics(
                     hidden, part, targets, 1.0, None, chosen, c),
                 "grad": lambda c=config: kernels.grad_logits(
                     hidden, part, targets, 1.0, None, row_data, False, c)}
        for name, call in calls.items():
            row = {"kernel": name, "group": kernels.GROUP, **config}
            try:
                row["tflops"] = 2e-9 * N * len(part) * H / milliseconds(call)
            except Exception as error:  # out of shared memory has several names
                row["error"] = str(error)[:60]
            rows.append(row)
            print(row, flush=True)
    kernels.GROUP = 8
    return rows


def compile_kernels() -> list[dict[str, Any]]:
    """Registers, stack (where spills go), shared memory of each kernel compiled for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget

    from nanoaes import kernels as k
    rows = []
    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    jobs = [(k._token_loss_kernel, "fp32", {"BLOCK": 1024, "num_warps": 4, "num_stages": 1}, "")]
    for dtype, mask in [("bf16", None), ("bf16", "*u8"), ("fp16", "*u8"), ("fp32", "*u8")]:
        for kernel, entropy in [(k._statistics_kernel, None), (k._grad_kernel, False),
                                (k._grad_kernel, True)]:
            constants = {"H": 3584, "UPCAST": False, "GROUP": k.GROUP,
                         **k.tile_config(types[dtype], bool(entropy))}
            constants |= {} if entropy is None else {"ENTROPY": entropy}
            constants |= {} if mask else {"forbidden": None}
            jobs.append((kernel, dtype, constants, f"{' entropy' if entropy else ''}"
                                                   f"{' mask' if mask else ''}"))
    for kernel, dtype, c, label in jobs:
        options = {name: c.pop(name) for name in ("num_warps", "num_stages")}
        tile = {name: f"tensordesc<{dtype}[{c.get(a)}, {c.get(b)}]>"
                for name, a, b in (("h", "BM", "BK"), ("w", "BV", "BK"), ("d", "BM", "BV"))}
        integers = dict.fromkeys(("M", "V", "n_tiles", "row_stride"), "i32")
        floats = dict.fromkeys(("scale", "low", "high", "beta"), "fp32")
        other = {"targets": "*i64", "forbidden": "*u8", **tile, **integers, **floats}
        signature = {name: "constexpr" if name in c else other.get(name, "*fp32")
                     for name in kernel.arg_names}
        aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names)
                   if signature[name].startswith("*")}
        compiled = triton.compile(
            triton.compiler.ASTSource(kernel, signature, constexprs=c, attrs=aligned),
            target=GPUTarget("cuda", 90, 32), options=options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            usage = subprocess.run([triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
                                   capture_output=True, text=True, check=True).stdout
        number = {key: int(usage.split(f"{key}:")[1].split()[0]) for key in ("REG", "STACK")}
        rows.append({"kernel": kernel.__name__ + label, "dtype": dtype, **options,
                     "registers": number["REG"], "stack_bytes": number["STACK"],
                     "shared_bytes": compiled.metadata.shared,
                     "wgmma": compiled.asm["ptx"].count("wgmma.mma_async")})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Reads the flags, runs, prints tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--write", type=Path)
    flags = parser.parse_args()
    if flags.compile_only:
        rows = compile_kernels()
        print(json.dumps({"target": "sm_90", "kernels": rows}))
        sys.exit(any(r["stack_bytes"] for r in rows))
    device = torch.cuda.get_device_name() if CUDA else "CPU, NOT a GPU"
    result: dict[str, Any] = {"device": device, "date": str(datetime.date.today()),
                              "torch": torch.__version__, "dtype": str(DTYPE), "heads": {}}
    text = f"\n## The head, {device}, {result['date']}, torch {torch.__version__}, {DTYPE}\n"
    for head, (V, H) in HEADS.items():
        ceiling = gemm_ceiling(V, H)
        rows, wrong = [], {}
        for method, (function, recomputes) in contenders().items():
            wrong[method] = errors(function, V, H)
            for N in TOKENS:
                for mode in MODES:
                    rows.append({"head": head, "N": N, "method": method, "mode": mode,
                                 **measure(function, recomputes, N, V, H, mode, ceiling)})
        rows.sort(key=lambda r: (r["N"], MODES.index(r["mode"])))
        text += (f"\n{head}: V = {V}, H = {H}, measured GEMM rate {ceiling:.3g} TFLOP/s\n\n"
                 f"{table(rows)}\n\nErrors: " + "; ".join(
                     f"{m}: " + ", ".join(f"{k} {v:.2g}" if k != "failed" else v
                                          for k, v in e.items()) for m, e in wrong.items()) + "\n")
        result["heads"][head] = {"V": V, "H": H, "gemm_tflops": ceiling, "rows": rows,
                                 "errors": wrong}
    print(text)
    if flags.sweep and CUDA:
        result["sweep"] = sweep(*HEADS["7B"])
    if flags.write:
        with flags.write.open("a") as file:
            file.write(text)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
