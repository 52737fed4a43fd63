"""TRL's GRPOTrainer on a given model and pictures, its steps timed in turns with another's.

transformers' own processor for Qwen2.5-VL needs torchvision (for videos), so a processor for
pictures alone is given here; the sampling, the loss and everything else are TRL's. Its reference
model is on (beta > 0), checkpointing is off, one optimizer step per batch of N·K rows.
"""

import statistics
import time
from collections.abc import Callable

from datasets import Dataset
from transformers import ProcessorMixin, TrainerCallback
from transformers.feature_extraction_utils import BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl import GRPOConfig, GRPOTrainer

from nanoaes.vlm import VLM


class PictureProcessor(ProcessorMixin):
    """Text and pictures -> ids and patches; each picture's placeholder is repeated."""

    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "Qwen2VLImageProcessorPil"
    tokenizer_class = "PreTrainedTokenizerFast"

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token = "<|image_pad|>"
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images=None, text=None, padding=False, return_tensors=None, **options):
        flat = [i for x in images for i in (x if isinstance(x, list) else [x])]
        found = self.image_processor(images=flat, return_tensors="pt")
        counts = iter((found["image_grid_thw"].prod(-1) // 4).tolist())
        text = [t.replace(self.image_token, self.image_token * next(counts)) for t in text]
        words = self.tokenizer(text, padding=padding, add_special_tokens=False,
                               return_tensors=return_tensors)
        image_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        if return_tensors:
            kinds = (words["input_ids"] == image_id).long()
        else:
            kinds = [[int(i == image_id) for i in row] for row in words["input_ids"]]
        words = {k: v for k, v in words.items() if k != "token_type_ids"}
        return BatchFeature({**words, **found, "mm_token_type_ids": kinds})


class Turns(TrainerCallback):
    """After each of TRL's steps: note its time, then let the other one step."""

    def __init__(self, other: Callable[[], float]):
        self.other, self.times, self.last = other, {"trl": [], "ours": []}, None

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        if self.last is not None:  # the first step warms up
            self.times["trl"].append(now - self.last)
        took = self.other()
        if self.last is not None:
            self.times["ours"].append(took)
        self.last = time.perf_counter()


def run_trl(vlm: VLM, folder: str, images: list, question: str, k: int, room: int, steps: int,
            other: Callable[[], float]) -> dict[str, float]:
    """Median seconds of a step: "trl", and "ours" as `other` reports it."""
    vlm.save(folder)
    tokenizer = vlm.tokenizer
    tokenizer.padding_side = "left"
    processor = PictureProcessor(Qwen2VLImageProcessorPil(), tokenizer, tokenizer.chat_template)
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    data = Dataset.from_list([{"prompt": turn, "image": i} for i in images] * (steps + 1))
    config = GRPOConfig(
        output_dir=folder + "/out", per_device_train_batch_size=len(images) * k,
        num_generations=k, max_completion_length=room, max_steps=steps + 1, beta=0.01,
        temperature=1.0, top_p=1.0, top_k=0, gradient_checkpointing=False, bf16=False,
        learning_rate=1e-6, report_to=[], save_strategy="no", disable_tqdm=True,
        logging_strategy="no", model_init_kwargs={"dtype": "float32"},
        generation_kwargs={"suppress_tokens": vlm.forbidden.nonzero().flatten().tolist()})
    turns = Turns(other)
    trainer = GRPOTrainer(
        model=folder, reward_funcs=lambda completions, **_: [float(len(str(c)) % 7)
                                                             for c in completions],
        args=config, train_dataset=data, processing_class=processor, callbacks=[turns])
    trainer.train()
    return {name: statistics.median(t) for name, t in turns.times.items()}
