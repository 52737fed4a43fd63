"""Does transformers 4.57, which most servers still run, read what we save, and answer the same?

    python3 -m venv OTHER && OTHER/bin/pip install "transformers==4.57.*" torch pillow
    python bench/serve_check.py --python OTHER/bin/python

Tiny models of the three kinds, their head tied (as in 3B) and not (7B), are saved here and loaded
there, by classes of another major version that share no code with ours. Compared: the tokenizer's
words, the largest difference of the logits behind one prompt with a picture, and greedy answers
token by token. Pixels and ids are handed over, since 4.57's processor needs torchvision. The last
line is JSON; any difference of words or answers ends it with 1. Left out: servers themselves.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from kin import KIN, tiny_kin  # noqa: E402
from tiny import pictures  # noqa: E402

from nanoaes.inputs import Prompts  # noqa: E402
from nanoaes.rollout import rollout  # noqa: E402
from nanoaes.vlm import VLM  # noqa: E402

ANSWERS, LONGEST = 8, 24
TEXT = "<|im_start|>user\nJudge this photograph.<|vision_start|><|image_pad|> 0.62 ü"

THERE = """
import json, sys
from pathlib import Path
import torch, transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

folder, text, longest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
model, found = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
lost = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
words = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
given, out, i = load_file(folder / "asked.safetensors"), {}, 0
while f"{i}.ids" in given:
    asked = dict(input_ids=given[f"{i}.ids"], attention_mask=torch.ones_like(given[f"{i}.ids"]),
                 pixel_values=given[f"{i}.pixels"], image_grid_thw=given[f"{i}.grid"])
    with torch.no_grad():
        out[f"{i}.logits"] = model(**asked).logits[0, -1].float().contiguous()
        answer = model.generate(**asked, do_sample=False, max_new_tokens=longest)
    out[f"{i}.answer"] = answer[0, asked["input_ids"].shape[1]:].contiguous()
    i += 1
save_file(out, folder / "answered.safetensors")
print(json.dumps({"version": transformers.__version__, "lost": lost, "words": words}))
"""


def model(kin: str, tied: bool) -> VLM:
    """Large random weights: answers differ between pictures."""
    vlm = tiny_kin(kin, seed=3, scale=8)
    if tied:
        return vlm
    config = vlm.hf.config.to_dict()  # a copy of the object would carry our attention's names
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    hf = type(vlm.hf)(type(vlm.hf.config)(**config)).eval()
    hf.load_state_dict(vlm.hf.state_dict())
    torch.nn.init.normal_(hf.lm_head.weight, std=0.16)
    return VLM(hf, vlm.tokenizer, vlm.stop_ids, vlm.asking)


def check(python: str, kin: str, tied: bool, folder: Path) -> dict[str, object]:
    """One kind: saved here, loaded there, asked the same."""
    vlm = model(kin, tied)
    vlm.save(folder)
    asked, ours = {}, []
    for i, image in enumerate(pictures(ANSWERS)):
        prompts = vlm.prompts([image])
        asked |= {f"{i}.ids": prompts.ids, f"{i}.pixels": prompts.pixels,
                  f"{i}.grid": prompts.grid}
        ours.append((logits(vlm, prompts), answer(vlm, prompts)))
    save_file({k: v.contiguous() for k, v in asked.items()}, folder / "asked.safetensors")
    there = subprocess.run([python, "-c", THERE, str(folder), TEXT, str(LONGEST)],
                           capture_output=True, text=True)
    if there.returncode:
        return {"kind": kin, "tied": tied, "error": there.stderr.strip().splitlines()[-1]}
    said = json.loads(there.stdout.splitlines()[-1])
    theirs = load_file(folder / "answered.safetensors")
    return {"kind": kin, "tied": tied, "transformers": said["version"],
            "weights not matched": said["lost"],
            "tokens equal": said["words"] == vlm.tokenizer(TEXT)["input_ids"],
            "largest logit": max(float(x.abs().max()) for x, _ in ours),
            "largest difference": max(float((x - theirs[f"{i}.logits"]).abs().max())
                                      for i, (x, _) in enumerate(ours)),
            "equal answers": sum(x == theirs[f"{i}.answer"].tolist()
                                 for i, (_, x) in enumerate(ours)),
            "different answers": len({tuple(x) for _, x in ours}), "answers": ANSWERS}


def logits(vlm: VLM, prompts: Prompts) -> torch.Tensor:
    """(V,) behind the prompt; forbidden words as the model has them."""
    one = torch.ones(1, 1, 1)
    with torch.no_grad():
        return (vlm.hidden(prompts, one.long(), one.bool()) @ vlm.head.T)[0]


def answer(vlm: VLM, prompts: Prompts) -> list[int]:
    """Greedy, up to and including the stop token."""
    rolls = rollout(vlm, prompts, k=1, max_new_tokens=LONGEST, temperature=0)
    return rolls.ids[0, 0][rolls.mask[0, 0]].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="a Python that has transformers 4.57")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory() as place:
        rows = [check(python, kin, tied, Path(place) / f"{kin}{tied}")
                for kin in KIN for tied in (True, False)]
    print("| kind | head | transformers | weights not matched | tokens equal | largest logit | "
          "largest difference | equal answers |\n|---|---|---|---|---|---|---|---|")
    for row in rows:
        head = "tied" if row["tied"] else "of its own"
        if "error" in row:
            print(f"| {row['kind']} | {head} | cannot be loaded: {row['error']} |||||")
            continue
        print(f"| {row['kind']} | {head} | {row['transformers']} | "
              f"{len(row['weights not matched'])} | {row['tokens equal']} | "
              f"{row['largest logit']:.1f} | {row['largest difference']:.1e} | "
              f"{row['equal answers']} of {row['answers']}, "
              f"{row['different answers']} different |")
    print(json.dumps({"serve_check": rows}))
    good = all("error" not in r and not r["weights not matched"] and r["tokens equal"]
               and r["equal answers"] == r["answers"] for r in rows)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
