"""A folder's chat template, tried once before it is trusted.

A template is a program of strangers. transformers' sandbox keeps it away from files, but not from
a loop that never ends or a string of gigabytes, which no thread or signal can interrupt. So it is
rendered first in a child process with a second of processor time and a gibibyte of memory, and
must put one picture into one prompt of ordinary length. Left out: a template that behaves once
and misbehaves later; who fears that must not load strangers' folders.
"""

import multiprocessing
import resource
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from nanoaes.checks import CheckpointError

SECONDS = 1  # of the child's own processor time, whatever else the machine does; usual: 0.01
PATIENCE = 60  # of waiting for it
MEMORY = 2**30  # bytes more than this process has
MOST = 100_000  # characters of a prompt; Qwen's are about 1,500
REMEDY = "copy chat_template.jinja and the tokenizer's files of the model that it was made from"


def chat(tokenizer: PreTrainedTokenizerBase, text: str, picture: bool = True) -> str:
    """The user's turn, with a picture or without, in the model's own template, up to the answer."""
    content = [{"type": "image"}] * picture + [{"type": "text", "text": text}]
    return tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False,
                                         add_generation_prompt=True)


def check_template(path: Path, tokenizer: PreTrainedTokenizerBase, text: str, image_id: int
                   ) -> None:
    """The template ends, soon, in one prompt with one image token.

    Args:
        text: the question that is asked.
        image_id: of config.json.
    Raises:
        CheckpointError: no template, one that fails, runs on or writes too much; a picture that
            becomes no image token or several, or another token than config.json's.
    """
    if not tokenizer.chat_template:
        raise CheckpointError(f"{path}: the tokenizer has no chat template; copy the source's "
                              "chat_template.jinja or tokenizer_config.json")
    prompt, problem = _first_render(tokenizer, text)
    if problem:
        raise CheckpointError(f"{path}: the chat template {problem}; {REMEDY}")
    pad = tokenizer.convert_ids_to_tokens(image_id) if image_id < len(tokenizer) else None
    if pad is None:
        raise CheckpointError(f"{path}: the tokenizer has no token {image_id}, config.json's "
                              f"image_token_id; {REMEDY}")
    n = tokenizer(prompt, add_special_tokens=False)["input_ids"].count(image_id)
    if n != 1 or prompt.count(pad) != 1:
        raise CheckpointError(f"{path}: a prompt with one picture has {n} image tokens ({pad}, "
                              f"{image_id} in config.json), not 1, by chat template and tokenizer; "
                              f"{REMEDY}")


def _first_render(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[str, str]:
    """The prompt and "", or "" and what is wrong with the template."""
    # Forked: a fresh interpreter would need seconds to import transformers. The child never
    # touches torch.
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    child = fork.Process(target=_render, args=(send, tokenizer, text), daemon=True)
    child.start()
    send.close()
    try:
        if receive.poll(PATIENCE):
            return receive.recv()
    except EOFError:  # the child ended without a word
        child.join(PATIENCE)
        if child.exitcode != -signal.SIGXCPU:
            return "", f"ended the process that tried it (exit code {child.exitcode})"
    finally:
        child.kill()
        child.join()
        receive.close()
    return "", f"does not end within {SECONDS} s"


def _render(send: Connection, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    """In the child: bounded, then rendered."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)
    _limit(resource.RLIMIT_CPU, SECONDS)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        prompt = chat(tokenizer, text)
    except Exception as error:  # any: it is a stranger's program
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        send.send(("", f"fails ({reason})"))
        return
    if len(prompt) > MOST:
        send.send(("", f"makes a prompt of {len(prompt):,} characters, more than {MOST:,}"))
    else:
        send.send((prompt, ""))


def _limit(what: int, most: int) -> None:
    """Lower a limit; never above what the process was given."""
    hard = resource.getrlimit(what)[1]
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (soft, hard))
