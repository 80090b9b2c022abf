"""Which layer of a model lies on which of several GPUs, where one alone is too small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glm_backend.models.checkpoint import Checkpoint
from glm_backend.models.memory import Needs, available_bytes

if TYPE_CHECKING:
    import torch

#: Models whose pass goes from device to device (engine/lean_decoder.py).
FAMILIES = frozenset({"llama", "qwen2", "mistral", "glm", "glm4"})


def room_for(checkpoint: Checkpoint | None, device: str) -> dict[torch.device, int]:
    """Free bytes of each GPU that the device "auto" may take for a model; none where it has no say.

    checkpoint: None for a model whose files are not here yet.
    """
    import torch

    if device != "auto" or (checkpoint and checkpoint.config["model_type"] not in FAMILIES):
        return {}
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return {gpu: available_bytes(gpu) for gpu in gpus}


def spread(needs: Needs, room: Mapping[torch.device, int]) -> tuple[torch.device, ...]:
    """The device of each layer, in order, so that each device is filled to about the same share.

    room: free bytes of each device. On the first lies also what is in no layer. Empty where the
    first alone has room for all.
    """
    devices = list(room)
    if not devices or needs.total <= room[devices[0]]:
        return ()
    share = needs.total / sum(room.values())
    found, place, used = [], 0, float(needs.rest)
    for size in needs.layers:
        # A layer goes to where more than half of it still fits into the share.
        while place + 1 < len(devices) and used + size / 2 > share * room[devices[place]]:
            place, used = place + 1, 0.0
        found.append(devices[place])
        used += size
    return tuple(found)
