"""Layers on several GPUs: how they are dealt out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glm_backend.engine.llama_like import _ROTATIONS
from glm_backend.models.assembly import Placement
from glm_backend.models.memory import Needs
from glm_backend.models.spread import FAMILIES, room_for, spread

GPUS = [torch.device("cuda", number) for number in range(4)]


def test_the_families_are_those_whose_pass_goes_from_device_to_device() -> None:
    assert set(_ROTATIONS) == FAMILIES


def test_what_fits_on_the_first_stays_there() -> None:
    assert spread(Needs((10,) * 4, 5), {GPUS[0]: 45, GPUS[1]: 100}) == ()
    assert spread(Needs((10,) * 4, 5), {}) == ()


def test_equal_gpus_get_equal_shares_and_the_first_all_that_is_in_no_layer() -> None:
    found = spread(Needs((10,) * 10, 20), dict.fromkeys(GPUS[:3], 50))
    assert [found.count(gpu) for gpu in GPUS[:3]] == [2, 4, 4]
    found = spread(Needs((10,) * 9, 0), {GPUS[0]: 30, GPUS[1]: 60})
    assert [found.count(gpu) for gpu in GPUS[:2]] == [3, 6]


@given(
    layers=st.lists(st.integers(1, 100), min_size=1, max_size=40),
    rest=st.integers(0, 100),
    room=st.lists(st.integers(200, 2000), min_size=1, max_size=4),
)
def test_every_layer_has_a_place_behind_that_of_the_one_before(
    layers: list[int], rest: int, room: list[int]
) -> None:
    needs, free = Needs(tuple(layers), rest), dict(zip(GPUS, room, strict=False))
    found = spread(needs, free)
    if needs.total <= room[0]:
        assert found == ()
        return
    places = [GPUS.index(gpu) for gpu in found]
    assert len(places) == len(layers)
    assert places == sorted(places)
    share = needs.total / sum(room)
    for place, gpu in enumerate(list(free)[1:-1], start=1):
        used = sum(size for size, at in zip(layers, places, strict=True) if at == place)
        assert used <= share * free[gpu] + max(layers) / 2


def test_only_auto_takes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 + device.index, 16))
    assert room_for(None, "auto") == {GPUS[0]: 8, GPUS[1]: 9}
    assert room_for(None, "cuda:1") == {}
    assert room_for(None, "cpu") == {}


def test_weights_go_where_their_layer_is() -> None:
    place = Placement("none", torch.float32, GPUS[0], (GPUS[0], GPUS[1]))
    assert place.device_of("model.layers.1.mlp.down_proj.weight") == GPUS[1]
    assert place.device_of("model.layers.0.mlp.down_proj.weight") == GPUS[0]
    assert place.device_of("lm_head.weight") == GPUS[0]
    one = Placement("none", torch.float32, GPUS[2])
    assert one.device_of("model.layers.1.mlp.down_proj.weight") == GPUS[2]
