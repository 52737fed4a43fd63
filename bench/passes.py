"""What one pass keeps and calls: the answers' mask in training, the windows of the vision tower.

    python bench/passes.py                 3 to 4 minutes on a CPU, one thread

Memory: bytes that autograd keeps in a layer of the language model, a bool mask (which every call
turns into a float one) against one additive mask for all layers; an eighth of 3B's width, K = 8,
P = 500, T = 250. Vision: attention calls of all layers and seconds of a forward pass, transformers'
"sdpa" (a call per window) against one call per length of window, in turns. The towers are the
toy's, one of an eighth of 3B's width, and two layers of 3B's whole width, whose first sees windows
and second the whole picture. A CPU has no launches to save: there the ratio of seconds (above 1 is
in our favour) is to stay near 1. The last line is JSON.
"""

import json
import time
import warnings

import models
import torch
from models import CUDA, alternate, long_prompts, machine, random_model, toy_pictures
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from nanoaes import windows
from nanoaes.attention import PackedRows
from nanoaes.inputs import Prompts
from nanoaes.vlm import VLM
from nanoaes.windows import Windows

models.SIZES["two layers"] = ((256, 512, 1, 4, 1, 2048, True), (2, 1280, 3420, 16))
TOWERS = {"toy": 64, "eighth": 64, "two layers": 64 if CUDA else 4}  # pictures


class CallCount(TorchFunctionMode):
    """How often attention is called."""

    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += function is scaled_dot_product_attention
        return function(*args, **(kwargs or {}))


def kept(vlm: VLM, prompts: Prompts, rows: PackedRows) -> int:
    """Bytes of all storages that autograd keeps for the language model's backward."""
    storages, alive = {}, []

    def note(x: Tensor) -> Tensor:
        alive.append(x)  # or a freed storage's address would be another's
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    words = prompts.ids.new_zeros(rows.step.shape)
    positions = (prompts.next_position[:, None] + rows.step).expand(3, -1, -1)
    positions = torch.cat([prompts.positions, positions], dim=2)
    x, _ = vlm.embed(prompts, words)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        vlm.decode_layers(x, positions, rows)
    return sum(storages.values())


def memory(k: int = 8, t: int = 250) -> dict[str, float]:
    """MB a layer of either mask, without and with gradient checkpointing."""
    result = {}
    for dtype in (torch.float32, torch.bfloat16):
        vlm = random_model("eighth", dtype)
        prompts = long_prompts(vlm, 1)
        mask = torch.ones(1, k, t, dtype=torch.bool, device=vlm.device)
        for checkpointing in (False, True):
            if checkpointing:
                vlm.hf.gradient_checkpointing_enable()
                vlm.train()
            rows = PackedRows(prompts.mask, mask, vlm.groups)
            layers = len(vlm.hf.model.language_model.layers)
            after = kept(vlm, prompts, rows) / layers / 1e6
            rows.bias = rows.bias == 0  # the rival: what each call would be given otherwise
            before = kept(vlm, prompts, rows) / layers / 1e6
            name = f"{str(dtype)[6:]}{'_checkpointing' if checkpointing else ''}"
            print(f"{name}: {before:.1f} MB a layer with a bool mask, {after:.1f} MB with one "
                  "additive mask", flush=True)
            result |= {f"kept_mb_{name}_before": round(before, 1),
                       f"kept_mb_{name}": round(after, 1)}
    return result


@torch.no_grad()
def vision(size: str, n: int, rounds: int) -> dict[str, float]:
    """Calls a layer and seconds of a pass over n pictures, before and after."""
    vlm = random_model(size, torch.bfloat16 if CUDA else torch.float32)
    prompts = vlm.prompts(toy_pictures(n), [""] * n) if size == "toy" else long_prompts(vlm, n)
    pixels, visual = prompts.pixels.to(vlm.hf.dtype), vlm.hf.model.visual

    def look(name: str) -> None:
        vlm.hf.set_attn_implementation({"vision_config": name})
        visual(pixels, grid_thw=prompts.grid,
               **({"windows": Windows()} if name == windows.NAME else {}))

    contenders = {"sdpa": lambda: look("sdpa"), "ours": lambda: look(windows.NAME)}
    calls = {}
    for name, run in contenders.items():
        with CallCount() as count:
            run()
        calls[name] = round(count.calls / len(visual.blocks), 1)
    took = alternate(contenders, rounds)
    key = size.replace(" ", "_")
    print(f"{size}, {n} pictures of {' x '.join(map(str, prompts.grid[0, 1:].tolist()))} patches: "
          + ", ".join(f"{name} {calls[name]} calls a layer, {s:.3f} s"
                      for name, s in took.items()), flush=True)
    return {f"calls_{key}_before": calls["sdpa"], f"calls_{key}": calls["ours"],
            f"vision_ratio_{key}": round(took["sdpa"] / took["ours"], 2)}


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing")
    torch.set_num_threads(1)
    print(machine())
    started = time.perf_counter()
    result = memory()
    for size, n in TOWERS.items():
        result |= vision(size, n, 9 if size == "toy" else 3)
    print(f"{time.perf_counter() - started:.0f} s")
    print(json.dumps({"machine": machine(), **result}))


if __name__ == "__main__":
    main()
