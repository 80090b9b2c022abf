"""Shards stream: the most memory that loading takes is the finished model and one shard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import chatglm_tiny as tiny

SHARDS = 6
LAYERS = 6
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

#: In a process of its own, whose high-water mark is nobody else's.
PROGRAM = r"""
import json, re, sys
from pathlib import Path
from glm_backend.language_model import load_model

def kilobytes(name):
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

load_model(sys.argv[1], quantization=sys.argv[3]).close()  # everything is imported then
before = kilobytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark
model = load_model(sys.argv[2], quantization=sys.argv[3])
peak = (kilobytes("VmHWM") - before) * 1024
print(json.dumps({"peak": peak, "held": model._model.memory_bytes}))
"""


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_loading_takes_the_finished_model_and_one_shard(
    tmp_path: Path, suffix: str, quantization: str
) -> None:
    wide = {"hidden_size": 1024, "ffn_hidden_size": 3072, "num_layers": LAYERS, "kv_channels": 256}
    small = tiny.save(tmp_path / "chatglm2-small", tiny.config(), tiny.weights(tiny.config()))
    config = tiny.config(**wide)
    folder = tmp_path / "chatglm2-large"
    tiny.save(folder, config, tiny.weights(config), suffix=suffix, shards=SHARDS)
    stored = sum(file.stat().st_size for file in folder.glob(f"*{suffix}"))
    assert stored > 100e6
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(small), str(folder), quantization],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    measured = json.loads(run.stdout.splitlines()[-1])
    one_shard_in_float32 = 2 * stored / SHARDS
    assert measured["peak"] < measured["held"] + one_shard_in_float32 + 40e6
