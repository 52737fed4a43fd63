"""A local model that is asked, as teacher or judge: the questions of several threads in batches.

    thread 1  ask ┐                                            ┌ answer  thread 1
    thread 2  ask ┼> waiting -> one thread, `most` at once, ───┼ answer  thread 2
    thread 3  ask ┘             by the project's own rollout   └ answer  thread 3

The model belongs to an executor of one thread: on a GPU every thread that computes gets buffers of
its own. Each question hands the executor one call, and each call answers at least one question, as
long as any waits; so none is forgotten, and there is nothing to wake up. A failure goes to those
who asked what failed; the next questions are tried again. When the process ends, what was asked is
answered first, and what is asked then raises.
An answer belongs to its question: the random numbers are those of its seed and place, whatever
stands beside it. (To the token in fp32 on a CPU; in bf16 rounding decides now and then.) Several
models of one process answer in turn.
Left out: questions that join while others are answered, several GPUs.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import torch
from PIL import Image

from nanoaes.chat import Cut, Question, Spent
from nanoaes.errors import NoAnswer, UserError, at
from nanoaes.graphs import Graphs
from nanoaes.hub import find_folder
from nanoaes.images import load_image
from nanoaes.rollout import Answer, rollout
from nanoaes.same import fingerprint
from nanoaes.sampling import uniforms
from nanoaes.vlm import VLM

# Seconds that a batch which is not full waits for more: those who got an answer come back at once
# with their next question. Without it one and seven would be answered in turn, in twice the time.
GATHER = 0.05
# Of all models of the process: while one thread records a CUDA graph, no other may use a GPU.
TURN = Lock()


@dataclass(eq=False)
class Waiting:
    """A question that waits for its answer."""

    text: str
    picture: Image.Image | None  # at the size at which the model sees it
    temperature: float
    place: int
    reply: Future[tuple[int, Answer]] = field(default_factory=Future)  # tokens of its prompt, and


class Local:
    """A `Chat` on a model of this machine."""

    def __init__(self, folder: str | Path, *, device: str = "auto",
                 dtype: torch.dtype = torch.float32, max_pixels: int = 262_144,
                 max_new_tokens: int = 1024, tokens: int = 2048, most: int = 8, seed: int = 0,
                 stop: Callable[[], bool] = lambda: False):
        """
        Args:
            folder: of Hugging Face's form, or a name of its hub.
            device: "auto" takes the first CUDA device where there is one, else the CPU.
            dtype: torch.bfloat16 halves the memory and is faster on a GPU.
            max_pixels: pictures are shrunk to this area, as the student sees them.
            max_new_tokens: a longer answer is cut, and so is none.
            tokens: per forward; changes memory, never an answer.
            most: questions at once.
            seed: of the random numbers, for temperatures above 0.
            stop: true ends all waiting with NoAnswer, once the model is free.
        Raises:
            CheckpointError: as `VLM.load`.
        """
        folder = Path(folder)
        self.vlm = VLM.load(folder, dtype, device, max_pixels=max_pixels,
                            max_new_tokens=max_new_tokens)
        called = folder.resolve().name if folder.is_dir() else folder.as_posix()
        self.name = f"{called}@{fingerprint(find_folder(folder))[:12]}"
        self.tokens, self.most, self.seed, self.stop = tokens, most, seed, stop
        self.graphs = Graphs() if self.vlm.device.type == "cuda" else None
        self.spent = Spent()
        self.marks = [t.content for t in self.vlm.tokenizer.added_tokens_decoder.values()
                      if t.special]
        self.runner = ThreadPoolExecutor(1, "model")
        self.door = Lock()  # of what follows
        self.waiting: list[Waiting] = []

    def ask(self, question: Question) -> str:
        """The answer, without what a thinking model thought before it.

        Raises:
            Cut: it was not complete within max_new_tokens.
            NoAnswer: it ended while the model still thought; or stopped.
            DataError: no such picture. NotFinite: the model's numbers are not. UserError: out of
                the GPU's memory.
        """
        picture = None if question.image is None else self.vlm.fit(load_image(question.image))
        mine = Waiting(self._harmless(question.text), picture, question.temperature,
                       question.place)
        with self.door:
            self.waiting.append(mine)
        self.runner.submit(self._answer_some)
        asked, answer = mine.reply.result()
        self.spent.asked += asked
        self.spent.answered += answer.n_tokens
        self.spent.requests += 1
        if answer.cut:
            raise Cut(f"the answer is longer than {self.vlm.asking.max_new_tokens} tokens")
        return after_thinking(answer.text)

    def _harmless(self, text: str) -> str:
        """The tokenizer's own marks parted: a critique that quotes one must not end the turn."""
        for mark in self.marks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def _answer_some(self) -> None:
        """In the model's thread: one batch of those who wait, if any."""
        if not self.waiting:
            return
        if len(self.waiting) < self.most:
            time.sleep(GATHER)
        with self.door:
            batch = [w for w in self.waiting if w.temperature == self.waiting[0].temperature]
            batch = batch[: self.most]
            self.waiting = [w for w in self.waiting if w not in batch]
        try:
            with TURN:
                replies = self._replies(batch)
        except BaseException as error:  # whatever it is: those who asked wait for it
            for one in batch:
                one.reply.set_exception(error)
        else:
            for one, reply in zip(batch, replies, strict=True):
                one.reply.set_result(reply)

    def _replies(self, batch: Sequence[Waiting]) -> list[tuple[int, Answer]]:
        """Of each question the tokens of its prompt, with those of the picture, and its answer."""
        if self.stop():
            raise NoAnswer("stopped before there was an answer")
        vlm, room = self.vlm, self.vlm.asking.max_new_tokens
        temperature = batch[0].temperature
        uniform = None
        if temperature > 0:
            uniform = uniforms(self.seed, 0, [one.place for one in batch], 1, room)
        prompts = vlm.prompts([one.picture for one in batch], [one.text for one in batch])
        try:
            with at(self.name):
                rolls = rollout(vlm, prompts, k=1, max_new_tokens=room, temperature=temperature,
                                uniform=uniform, tokens=self.tokens, graphs=self.graphs)
        except torch.OutOfMemoryError as error:
            raise UserError(f"{self.name}: {len(batch)} questions at once are more than the GPU "
                            "has memory for; ask fewer at once, or a smaller model") from error
        return list(zip(prompts.mask.sum(1).tolist(), (a for a, in rolls.answers(vlm)),
                        strict=True))


def after_thinking(text: str) -> str:
    """What a reply says behind its last </think>, or all of it where nothing was thought.

    Raises:
        NoAnswer: it begins with a <think> that does not end.
    """
    _, closing, rest = text.rpartition("</think>")
    if not closing and rest.lstrip().startswith("<think>"):
        raise NoAnswer("the model stopped while it thought: no </think>")
    return rest.strip()
