"""Rollout against transformers' `generate`: the same model, prompts, sampling and lengths.

    python bench/rollout.py                        the toy on a CPU, N = 16, K = 8: with random
                                                   weights, and trained if runs/toy/rapo is there
    python bench/rollout.py --sizes 3B 7B          on a GPU: random weights, bf16, 64 rows, P = 500

`generate` gets the prompts once and makes K rows of each (`num_return_sequences`). With random
weights all rows run to the limit, so nothing is gained by rows that leave; a trained model's
answers end by themselves, and `rollout_vs_hf` is that model's where there is one. The floor of a
decode step is the time to read all weights and all keys and values once at the measured bandwidth.
Prints a table; the last line is JSON.
"""

import argparse
import json
from pathlib import Path

import torch
from models import CUDA, alternate, long_prompts, machine, random_model, seconds, toy_prompts

from nanoaes.graphs import Graphs
from nanoaes.inputs import Prompts
from nanoaes.rollout import prefill, rollout, storage
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM


def hf_rollout(vlm: VLM, prompts: Prompts, k: int, room: int) -> int:
    """Sample with transformers; returns the number of tokens up to the stop tokens."""
    n, p = prompts.ids.shape
    place = (torch.arange(p, device=vlm.device) + prompts.mask.sum(1, keepdim=True)) % p
    ids, mask = prompts.ids.gather(1, place), prompts.mask.gather(1, place)  # padding to the left
    with torch.no_grad():
        out = vlm.hf.generate(
            input_ids=ids, attention_mask=mask.long(), pixel_values=prompts.pixels,
            image_grid_thw=prompts.grid, mm_token_type_ids=(ids == vlm.image_id).int(),
            max_new_tokens=room, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            num_return_sequences=k, eos_token_id=vlm.stop_ids, pad_token_id=vlm.pad_id,
            suppress_tokens=vlm.forbidden.nonzero().flatten().tolist())[:, p:]
    stop = torch.isin(out, torch.tensor(vlm.stop_ids, device=out.device)).int()
    return int((stop.cumsum(1) - stop == 0).sum())


def bandwidth() -> float:
    """Bytes per second of reading and writing, measured with a large copy."""
    x = torch.empty(2**30 if CUDA else 2**26, device="cuda" if CUDA else "cpu").fill_(1)
    y = torch.empty_like(x)
    return 2 * x.nbytes / min(seconds(lambda: y.copy_(x)) for _ in range(5))


def floor(vlm: VLM, prompts: Prompts, k: int, room: int) -> float:
    """Seconds to read what a decode step must read: layers, head, keys and values half full."""
    weights = sum(p.nbytes for p in vlm.hf.model.language_model.layers.parameters())
    config = vlm.hf.config.text_config
    per_token = (2 * config.num_hidden_layers * config.num_key_value_heads * vlm.head.element_size()
                 * (config.hidden_size // config.num_attention_heads))
    n, p = prompts.ids.shape
    return (weights + vlm.head.nbytes + per_token * n * (p + k * room / 2)) / bandwidth()


def measure(name: str, vlm: VLM, prompts: Prompts, k: int, room: int, rounds: int) -> dict:
    """One row of the table."""
    graphs, tokens, n = Graphs() if CUDA else None, {}, len(prompts.ids)

    def ours() -> None:
        uniform = uniforms(0, len(tokens.get("ours", [])), range(n), k, room)
        rolls = rollout(vlm, prompts, k=k, max_new_tokens=room, uniform=uniform, graphs=graphs)
        tokens["ours"] = tokens.get("ours", []) + [int(rolls.mask.sum())]

    def theirs() -> None:
        tokens["hf"] = tokens.get("hf", []) + [hf_rollout(vlm, prompts, k, room)]

    def start() -> None:
        with torch.no_grad():
            prefill(vlm, prompts, storage(vlm, prompts, k, room, graphs), k, tokens=10**9)

    took = alternate({"ours": ours, "hf": theirs, "prefill": start}, rounds)
    # Trained models' answers differ in length by chance: compare tokens per second, not calls.
    rate = {who: sum(tokens[who]) / len(tokens[who]) / took[who] for who in tokens}
    row = {"model": name, "N": n, "K": k, "P": prompts.ids.shape[1], "T": room,
           "tokens_per_s": round(rate["ours"]), "hf_tokens_per_s": round(rate["hf"]),
           "rollout_vs_hf": round(rate["ours"] / rate["hf"], 2),
           "prefill_s": round(took["prefill"], 4)}
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        ours()
        peak = torch.cuda.max_memory_allocated()  # before `floor` fills memory to time it
        step = (took["ours"] - took["prefill"]) / (room - 1)
        row |= {"step_ms": round(step * 1e3, 3),
                "step_vs_floor": round(step / floor(vlm, prompts, k, room), 2),
                "peak_gb": round(peak / 2**30, 2)}
    print(" | ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="runs/toy/rapo", help="a trained toy, if it is there")
    parser.add_argument("--sizes", nargs="*", default=[], help="3B 7B: random weights, needs CUDA")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    print(machine())
    rows = []
    for size in flags.sizes:
        vlm = random_model(size, torch.bfloat16)
        rows.append(measure(size, vlm, long_prompts(vlm, 16), 4, 256, flags.rounds))
        del vlm
    if not flags.sizes:
        models = {"toy, random weights": random_model("toy", torch.float32)}
        if (Path(flags.model) / "config.json").is_file():
            models[flags.model] = VLM.load(flags.model)
        for name, vlm in models.items():
            rows.append(measure(name, vlm, toy_prompts(vlm, 16), 8, 48, flags.rounds))
    result = {r["model"]: r["rollout_vs_hf"] for r in rows}
    print(json.dumps({"machine": machine(), "rollout_vs_hf": rows[-1]["rollout_vs_hf"],
                      "of": rows[-1]["model"], "all": result, "rows": rows}))


if __name__ == "__main__":
    main()
