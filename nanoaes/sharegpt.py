"""Kept critiques as LLaMA-Factory reads them, and `critiques.py`: the sharegpt layout.

    dataset_dir: RUN        of its YAML
    dataset: cot_sharegpt   the name of the file, under which RUN/dataset_info.json describes it

Left out: a system turn, the rejected ones.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanoaes.checkpoint import write_whole
from nanoaes.critiques import picture_of
from nanoaes.errors import UserError
from nanoaes.prompt import SCORING_PROMPT, answer_text
from nanoaes.unfit import unfit

INFO = "dataset_info.json"  # the name that LLaMA-Factory looks for
# LLaMA-Factory's own defaults are the older layout's: conversations of from, value; human, gpt.
LAYOUT = {"formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"},
          "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                   "assistant_tag": "assistant"}}


def sharegpt(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A dialogue for each kept row of build_cot.py: the question, the whole answer, the picture.

    An earlier version also kept what is no critique (`unfit.py`): that is left out.
    """
    return [{"messages": [{"role": "user", "content": f"<image>{SCORING_PROMPT}"},
                          {"role": "assistant",
                           "content": answer_text(row["critique"].strip(), row["score"])}],
             "images": [str(Path(row["image"]).resolve())]}
            for row in rows if row["kept"] and not unfit(row["critique"])]


def write_sharegpt(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """The list into `path`, its description into dataset_info.json beside it, among others.

    A picture's path may be relative to `path`, as to the list of rows beside it.

    Raises:
        UserError: what is in dataset_info.json is none; then nothing is written.
    """
    info = path.with_name(INFO)
    try:
        others = json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}
        described = {**others, path.stem: {"file_name": path.name, **LAYOUT}}
    except (ValueError, TypeError):
        raise UserError(f"{info}: no JSON object; correct or delete it") from None
    rows = [{**row, "image": picture_of(path, row["image"])} for row in rows]
    for file, value in ((path, sharegpt(rows)), (info, described)):
        write_whole(file, [json.dumps(value, ensure_ascii=False, indent=1), "\n"])
