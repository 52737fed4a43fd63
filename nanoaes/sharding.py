"""One model on several processes: whole on each, or in parts that are gathered when they are used.

    everywhere   the model that answers: one process reads it, all hold it
    sharded      FSDP2: fp32 masters (or a frozen reference), a part on each process
    refresh      what was trained, back into the model that answers; addresses stay

No token is ever sampled through sharded weights: a rollout would gather them for every token.
Left out: tensor and pipeline parallelism (no layer of a 7B model is too large for one GPU),
sequence parallelism (a row has some thousand tokens).
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from nanoaes.errors import UserError
from nanoaes.parallel import first, size, start, whole
from nanoaes.vlm import VLM


def mesh(place: torch.device, shard: int) -> DeviceMesh:
    """Who shares one copy of the weights with whom.

    Args:
        shard: processes that share a copy, neighbours; 0: all. Fewer than all: the copies are
            replicas, whose gradients are summed (on several nodes: shard = the GPUs of a node).
    Raises:
        UserError: copies that do not come out even.
    """
    if not dist.is_initialized():  # one process; FSDP wants a group all the same
        if place.type == "cuda":
            torch.cuda.set_device(place)
        start(place, store=dist.HashStore(), rank=0, world_size=1)
    n = dist.get_world_size()
    if n % (shard or n):
        raise UserError(f"--shard {shard}: {n} processes do not divide into groups of {shard}; "
                        f"start a multiple of {shard} or choose another --shard")
    if (shard or n) == n:
        return init_device_mesh(place.type, (n,), mesh_dim_names=("shard",))
    return init_device_mesh(place.type, (n // shard, shard), mesh_dim_names=("replica", "shard"))


def everywhere(vlm: VLM | None, blank: VLM, place: torch.device, dtype: torch.dtype) -> VLM:
    """The first process's model, whole on each; only one is ever read from the disk.

    Args:
        vlm: the model, on the CPU; None on the others.
        blank: the same on `meta`.
    """
    model = vlm.to(place) if first() else blank
    if not first():
        _fill(model, lambda name, p: torch.empty_like(
            p, dtype=p.dtype if ".lora_" in name else dtype, device=place))
        for module in model.modules():
            for name, x in module._buffers.items():
                if x is not None:
                    module._buffers[name] = torch.empty_like(x, device=place)
    if size() > 1:
        for x in (*model.parameters(), *model.buffers()):
            # A bool travels as bytes.
            dist.broadcast(x.detach().view(torch.uint8) if x.dtype == torch.bool else x.detach(), 0)
    return model


def sharded(source: VLM, *, blank: VLM, dtype: torch.dtype, compute: torch.dtype,
            over: DeviceMesh, frozen: Callable[[str], bool], idle: bool = False,
            on_cpu: bool = False) -> VLM:
    """A twin of a whole model whose weights lie in parts on the processes.

    Each part is filled and cut before the next is: there is never a second whole model.

    Args:
        blank: a model of that kind on `meta`; it becomes the twin.
        dtype: of the parts; compute: of what is gathered. Gradients are summed in fp32 or better.
        frozen: name -> has it no gradient?
        idle: between its forwards nothing stays gathered; a model that learns keeps its root, which
            the backward pass needs first.
        on_cpu: keep the parts in CPU memory, and bring them layer by layer.
    """
    known = dict(source.named_parameters(remove_duplicate=False))

    def twin(name: str, p: nn.Parameter) -> Tensor:
        return known[name].detach().to(dtype, copy=True)

    precise = torch.float64 if dtype == torch.float64 else torch.float32
    policy = MixedPrecisionPolicy(compute, precise, cast_forward_inputs=False)
    offload = CPUOffloadPolicy(pin_memory=source.device.type == "cuda") if on_cpu else None
    names = {module: name for name, module in blank.named_modules()}
    for module in blank.modules():
        module._buffers.update({key: source.get_buffer(f"{names[module]}.{key}".lstrip("."))
                                for key in module._buffers})
    for unit in (*blank.blocks, blank):
        _fill(unit, twin, names[unit], frozen)
        fully_shard(unit, mesh=over, mp_policy=policy,
                    offload_policy=offload or OffloadPolicy(),
                    reshard_after_forward=unit is not blank or idle)
    for module in blank.modules():
        if isinstance(module, FSDPModule):  # sums, not means: losses divide by the world's counts
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return blank


def _fill(module: nn.Module, make: Callable[[str, nn.Parameter], Tensor], prefix: str = "",
          frozen: Callable[[str], bool] = lambda name: True) -> None:
    """Each parameter on `meta` becomes what `make` makes of it; shared ones stay shared."""
    # Of this unit only: a list of all would keep the whole weights alive that FSDP cuts up.
    made: dict[nn.Parameter, nn.Parameter] = {}
    for path, part in module.named_modules(prefix=prefix):
        for key, p in part._parameters.items():
            if p is not None and p.is_meta:
                if p not in made:
                    name = f"{path}.{key}"
                    made[p] = nn.Parameter(make(name, p), requires_grad=not frozen(name))
                part._parameters[key] = made[p]


def refresh(speaker: VLM, trained: dict[str, Tensor]) -> None:
    """A whole model's weights, in place, from the sharded ones that were trained."""
    weights = dict(speaker.named_parameters())
    with torch.no_grad():
        for name, p in trained.items():  # rounded before they travel
            weights[name].copy_(whole(p.detach().to(weights[name].dtype)))
