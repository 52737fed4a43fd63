"""What a run needs, said beforehand: against real models, real tensors and torch's own counters."""

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from kin import KIN, tiny_kin
from PIL import Image
from tiny import tiny_vlm
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig

from nanoaes import roofline
from nanoaes.anatomy import BUILT_IN, anatomy
from nanoaes.attention import PackedRows, SharedKV
from nanoaes.budget import (
    MARGIN,
    TARGETS,
    fits,
    free_memory,
    micro_batch_tokens,
    refuse,
    remedies,
    smallest,
)
from nanoaes.errors import UserError
from nanoaes.inputs import Prompts
from nanoaes.lora import LoRA, attach
from nanoaes.memory import (
    Job,
    bias,
    estimate,
    kept_by_layer,
    kv_cache,
    last_norm,
    merger,
    persistent,
)
from nanoaes.rollout import rollout
from nanoaes.vlm import VLM

BIG = {name.split("-")[2]: anatomy(Qwen2_5_VLConfig(**values)) for name, values in BUILT_IN.items()}
PRESET = dict(tokens=16_384, prompt=500, picture=334, answer=1024, k=8, images=8, dtype="bfloat16",
              checkpointing=True, reference="sharded", cuda=True)


def full(size: str, processes: int, **other) -> Job:
    return Job(BIG[size], **{**PRESET, "processes": processes, "alone": processes == 1, **other})


def lora(size: str, **other) -> Job:
    return Job(BIG[size], **{**PRESET, "rank": 64, "vision": False,
                             "adapters": BIG[size].adapters(64, TARGETS, False), **other})


def tiny_job(vlm: VLM, prompts: Prompts, **other) -> Job:
    n, p = prompts.ids.shape
    picture = int((prompts.ids[0] == vlm.image_id).sum())
    return Job(anatomy(vlm.hf.config), **{"tokens": 10**6, "prompt": p, "picture": picture,
                                          "answer": 12, "k": 3, "images": n, **other})


def square_prompts(vlm: VLM, n: int) -> Prompts:
    """n prompts without padding, whose pictures have several windows."""
    return vlm.prompts([Image.new("RGB", (256, 256), (9 * i, 80, 40)) for i in range(n)])


def counted(vlm: VLM) -> Counter:
    parts = Counter()
    for name, p in vlm.hf.named_parameters():
        part = "vision" if ".visual." in name else "embedding" if "embed_tokens" in name else (
            "head" if "lm_head" in name else "layers")
        parts[part] += p.numel()
    return parts


@pytest.mark.parametrize("kind", KIN)
def test_parameters_by_part_are_the_models(kind: str) -> None:
    vlm = tiny_kin(kind)
    m, parts = anatomy(vlm.hf.config), counted(vlm)
    assert (m.vision, m.embedding, m.layers, m.head) == (
        parts["vision"], parts["embedding"], parts["layers"], 0)
    assert m.total == sum(p.numel() for p in vlm.parameters())
    assert m.trained(False) == m.total - parts["vision"]
    blocks = {p for block in vlm.blocks for p in block.parameters()}
    assert m.outside == sum(p.numel() for p in vlm.parameters() if p not in blocks)
    assert m.largest == max(sum(p.numel() for p in block.parameters()) for block in vlm.blocks)


def test_an_untied_head_is_counted_apart() -> None:
    config = copy.deepcopy(tiny_kin("qwen2_5").hf.config)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    m = anatomy(config)
    assert m.head == m.embedding == config.text_config.vocab_size * 64


@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), ("self_attn.v_proj", "up_proj")])
def test_adapters_are_counted_as_they_are_made(targets: tuple[str, ...], vision: bool) -> None:
    vlm = tiny_kin("qwen2_5")
    attach(vlm.hf, LoRA(3, 6.0, targets, vision))
    made = sum(p.numel() for p in vlm.parameters() if p.requires_grad)
    assert anatomy(vlm.hf.config).adapters(3, targets, vision) == made > 0


def test_the_built_in_models_are_qwens() -> None:
    assert [round(m.total / 1e9, 2) for m in (BIG["3B"], BIG["7B"])] == [3.75, 8.29]
    assert BIG["3B"].head == 0 and BIG["7B"].head == BIG["7B"].embedding == 152_064 * 3584


@pytest.mark.parametrize("kind", KIN)
def test_flops_are_torchs(kind: str) -> None:
    vlm, k, t = tiny_kin(kind), 3, 12
    prompts = square_prompts(vlm, 1)
    p, job = prompts.ids.shape[1], tiny_job(vlm, prompts)
    ids = torch.randint(5, 400, (1, k, t))
    with torch.no_grad(), FlopCounterMode(display=False) as counter, \
            sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused attention
        vlm(prompts, ids, torch.ones_like(ids, dtype=torch.bool))
    seen = Counter({str(op): n for op, n in counter.get_flop_counts()["Global"].items()})
    one = roofline.forward_flops(job.model, prompt=p, picture=job.picture, answer=t, k=k)
    text = job.model.text
    # The counter takes what a mask hides for work: the upper halves of the two triangles.
    hidden = 4 * text.query * text.layers * (p * p / 2 + k * t * t / 2)
    rotary = 3 * 2 * (text.query // text.heads // 2) * (p + k * t)  # positions · frequencies
    assert one.vision + one.text + hidden + rotary == pytest.approx(seen.total(), rel=1e-3)


def test_a_backward_is_two_forwards_but_for_what_is_frozen() -> None:
    lengths = dict(pictures=1, prompt=500, picture=334, answer=250, k=8)
    one = roofline.forward_flops(BIG["7B"], prompt=500, picture=334, answer=250, k=8)
    least = dict(lengths, reference=False)
    assert roofline.model_flops(BIG["7B"], **least) == 4 * (one.text + one.vision)
    assert roofline.model_flops(BIG["7B"], **least, vision=False) == 4 * one.text + 2 * one.vision
    assert roofline.model_flops(BIG["7B"], **least, vision=False, lora=True) == \
        3 * one.text + 2 * one.vision
    assert roofline.model_flops(BIG["7B"], **lengths, updates=2) == 8 * (one.text + one.vision)


def test_what_lasts_is_what_real_objects_weigh() -> None:
    vlm = tiny_vlm()
    prompts = square_prompts(vlm, 2)
    reference = copy.deepcopy(vlm)
    optimizer = torch.optim.AdamW(vlm.parameters())
    sum(p.sum() for p in vlm.parameters()).backward()
    optimizer.step()
    said = persistent(tiny_job(vlm, prompts, reference="sharded"))
    moments = [x for s in optimizer.state.values() for x in s.values() if x.ndim]
    for name, tensors in (("weights", vlm.parameters()), ("optimizer", moments),
                          ("reference", reference.parameters()), ("pictures", [prompts.pixels])):
        assert said[name] == sum(x.nbytes for x in tensors), name


def test_the_cache_is_what_a_rollout_fills(monkeypatch) -> None:
    vlm, made = tiny_vlm(), []
    start = SharedKV.start
    monkeypatch.setattr(SharedKV, "start", lambda kv, *a: (made.append(kv), start(kv, *a))[1])
    prompts = square_prompts(vlm, 3)
    rollout(vlm, prompts, k=3, max_new_tokens=12, temperature=0)
    assert kv_cache(tiny_job(vlm, prompts)) == made[0].nbytes


@pytest.mark.parametrize("kind", KIN)
def test_activations_are_what_autograd_keeps(kind: str) -> None:
    vlm, kept = tiny_kin(kind), {}
    prompts = square_prompts(vlm, 2)
    job = tiny_job(vlm, prompts)
    own = {p.untyped_storage().data_ptr() for p in (*vlm.parameters(), *vlm.buffers())}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    ids = torch.randint(5, 400, (2, 3, 12))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        vlm(prompts, ids, torch.ones_like(ids, dtype=torch.bool))
    real = sum(x.untyped_storage().nbytes() for x in kept.values())
    m = job.model
    said = (kept_by_layer(job, m.text) * m.text.layers + kept_by_layer(job, m.eyes) * m.eyes.layers
            + last_norm(job) + merger(job) + bias(job) + prompts.pixels.nbytes)
    assert said == pytest.approx(real, rel=0.06)


def test_the_mask_is_as_large_as_said() -> None:
    vlm = tiny_vlm()
    prompts = square_prompts(vlm, 2)
    rows = PackedRows(prompts.mask, torch.ones(2, 3, 12, dtype=torch.bool), vlm.groups)
    assert bias(tiny_job(vlm, prompts)) == rows._bias(torch.float32).numel() * 4


@pytest.mark.parametrize(("job", "gigabytes"), [
    (full("7B", 8), 35), (full("7B", 4), 54), (full("7B", 2), 91), (full("3B", 2), 41),
    (full("3B", 1), 75), (full("3B", 1, reference="cpu"), 68),
    (lora("7B", reference=""), 16.6 + 2.6), (lora("3B", reference=""), 7.5 + 1.9)])
def test_what_lasts_is_the_two_modes_table(job: Job, gigabytes: float) -> None:
    """16 P/W + 2 P + 2 P/W in full, 2 P + 16 · adapters with LoRA; worked out by hand."""
    parts = persistent(job)
    found = sum(parts.values()) + parts["optimizer"] // 2 - parts["pictures"]
    assert found / 1e9 == pytest.approx(gigabytes, abs=0.6)


@pytest.mark.parametrize("name", ["tokens", "images", "k", "answer", "prompt"])
def test_more_work_needs_more_memory(name: str) -> None:
    job = full("7B", 8, tokens=10**6 if name != "tokens" else 9216)  # all pictures, or one
    peaks = [estimate(replace(job, **{name: getattr(job, name) * i}))["peak"] for i in (1, 2, 3)]
    assert peaks[0] < peaks[1] < peaks[2]


def test_what_saves_memory_saves_some() -> None:
    job = full("7B", 4)
    peak = estimate(job)["peak"]
    for change in (dict(processes=8), dict(reference="cpu"), dict(reference=""),
                   dict(vision=False), dict(rank=16, adapters=BIG["7B"].adapters(
                       16, TARGETS, False), vision=False)):
        assert estimate(replace(job, **change))["peak"] < peak, change
    assert estimate(replace(job, checkpointing=False))["peak"] > peak


def test_an_evaluation_fills_the_cache_whatever_a_step_has() -> None:
    one = full("7B", 8, tokens=65_536, images=1, tested=10**6)
    # 2^17 tokens of 57 KB are 7.5 GB, for any budget that is not smaller
    cache = estimate(one)["in evaluation"] - 2 * BIG["7B"].total
    assert cache > 85 * 1524 * 57_344 and estimate(replace(one, tokens=8192))["in evaluation"] > 7e9
    few = estimate(replace(one, tested=20, held=5))
    assert 20 * 1524 * 57_344 < few["in evaluation"] - 2 * BIG["7B"].total < 20e9


@pytest.mark.parametrize("script", ["sft", "eval"])
def test_other_scripts_have_other_phases(script: str) -> None:
    parts = estimate(full("7B", 8, script=script, reference="", k=1))
    assert ("in rollout" in parts) == (script == "eval")
    assert ("gradients" in parts) == ("in update" in parts) == (script == "sft")
    assert parts["peak"] < estimate(full("7B", 8, k=1))["peak"]


@pytest.mark.parametrize("job", [full("7B", 8), full("7B", 4), full("3B", 2, images=32),
                                 lora("7B", images=64), lora("3B", images=64, k=4)])
def test_the_chosen_budget_fits_and_the_next_does_not(job: Job) -> None:
    peak = estimate(replace(job, tokens=smallest(job)))["peak"]
    free = int((peak + 4e9) / (1 - MARGIN))
    tokens = micro_batch_tokens(job, free)
    assert tokens % 1024 == 0 and job.row <= tokens <= 65_536
    assert fits(replace(job, tokens=tokens), free)
    more = replace(job, tokens=tokens + 1024)
    assert tokens >= min(65_536, job.row * job.images) or not fits(more, free)


def test_the_budget_holds_a_row_even_where_it_does_not_fit() -> None:
    assert micro_batch_tokens(full("7B", 8), 10**9) == -(-full("7B", 8).row // 1024) * 1024


@pytest.mark.parametrize(("job", "free", "named"), [
    (full("7B", 8, tokens=65_536, checkpointing=False), 85e9, "--gradient_checkpointing true"),
    (full("7B", 8, tokens=65_536), 70e9, "--tokens_per_micro_batch 32768"),
    (full("7B", 2), 85e9, "4 processes"), (full("3B", 1), 85e9, "--reference cpu"),
    (full("7B", 1), 48e9, "--lora_rank 16")])
def test_each_remedy_that_is_named_fits(job: Job, free: float, named: str) -> None:
    with pytest.raises(UserError) as refusal:
        refuse(job, int(free), "cuda:0")
    assert "\n" not in str(refusal.value) and named in str(refusal.value)
    known = remedies(job, int(free))
    assert known and all(fits(other, int(free)) for _, other in known)
    for _, other in known:
        refuse(other, int(free), "cuda:0")  # is silent


def test_more_processes_take_shares_of_the_same_pictures() -> None:
    (name, other), = [(n, o) for n, o in remedies(full("7B", 2, images=32), 85 * 10**9)
                      if n.endswith("processes")]
    assert name == "4 processes" and other.images == 16  # not 8 processes, though they fit too


def test_where_nothing_helps_it_says_so() -> None:
    with pytest.raises(UserError, match="smaller model or a larger GPU"):
        refuse(full("7B", 1), 10**9, "cuda:0")


def test_free_memory_is_the_tighter_of_machine_and_group(tmp_path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    cpu = torch.device("cpu")
    assert free_memory(cpu, tmp_path) == 2**62  # neither is known
    write("proc/meminfo", "MemTotal: 900 kB\nMemAvailable:     500 kB\n")
    assert free_memory(cpu, tmp_path) == 500 * 1024
    write("sys/fs/cgroup/memory.max", "max\n")
    write("sys/fs/cgroup/memory.current", "1000\n")
    assert free_memory(cpu, tmp_path) == 500 * 1024
    write("sys/fs/cgroup/memory.max", "301000\n")
    assert free_memory(cpu, tmp_path) == 300_000
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "6000")
    assert free_memory(cpu, tmp_path) == 0
    assert free_memory(cpu) > 0


def test_cards_by_the_names_that_torch_gives() -> None:
    for said, name in (("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-40GB", "A100-40"),
                       ("NVIDIA A100-SXM4-80GB", "A100-80"), ("NVIDIA L40S", "L40S"),
                       ("NVIDIA GeForce RTX 4090", "RTX4090"), ("NVIDIA H200", "H200")):
        assert roofline.card_of(said) is roofline.CARDS[name]
    assert roofline.card_of("Tesla T4") is None


@pytest.mark.parametrize("card", roofline.CARDS)
@pytest.mark.parametrize("gpus", [1, 8, 64])
def test_no_run_is_faster_than_its_arithmetic(card: str, gpus: int) -> None:
    for job in (full("7B", gpus), lora("7B"), full("3B", min(gpus, 8))):
        found = roofline.speed(job, roofline.CARDS[card], gpus, 250)
        assert 0 < found["mfu"] < 1 and found["answer tokens"] < found["tokens"]
        assert found["seconds"] > 0


def test_one_row_decodes_at_the_rate_at_which_weights_are_read() -> None:
    job, card = full("7B", 1, images=1, k=1), roofline.CARDS["H100"]
    weights = 2 * (BIG["7B"].layers + BIG["7B"].head)
    assert roofline.decode(job, card, 100) == pytest.approx(100 * weights / card.bandwidth,
                                                            rel=0.01)


def test_a_slow_link_makes_the_update_wait_for_weights() -> None:
    card = roofline.CARDS["H100"]
    fast, slow = (roofline.seconds(full("7B", 8), c, 8, 250)
                  for c in (card, replace(card, link=1e9)))
    # Of two micro-batches each is gathered twice in bf16, its gradients are dealt out in fp32.
    assert slow["update"] == pytest.approx(2 * 8 * BIG["7B"].total * 7 / 8 / 1e9)
    assert fast["update"] < slow["update"] and fast["rollout"] == slow["rollout"]
