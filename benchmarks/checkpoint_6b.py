"""Files of ChatGLM2-6B's true shape with random weights: its own form, and GGUF for llama.cpp.

No released weights are needed to say how fast a shape is. Every layer is the same one: what is
measured does not depend on the numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.models import chatglm_tiny

FOLDER = Path(__file__).parents[1] / ".cache" / "chatglm2-6b-shape"
LAYERS, HIDDEN, INNER, HEADS, GROUPS, HEAD_DIM, VOCAB = 28, 4096, 13696, 32, 2, 128, 65024
_LAYER = "transformer.encoder.layers.0"
_BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0
_BLOCK_BYTES = {"Q8_0": 34, "Q4_0": 18}


def checkpoint() -> Path:
    """A folder as ChatGLM2-6B is published, 12.5 GB in 29 shards; made when it is not there yet."""
    if (FOLDER / "config.json").exists():
        return FOLDER
    FOLDER.mkdir(parents=True, exist_ok=True)
    sizes = {
        "hidden_size": HIDDEN, "ffn_hidden_size": INNER, "num_layers": LAYERS, "kv_channels": 128,
        "num_attention_heads": HEADS, "multi_query_group_num": GROUPS, "padded_vocab_size": VOCAB,
    }  # fmt: skip
    values = chatglm_tiny.config(**sizes)
    one = chatglm_tiny.weights(values | {"num_layers": 1})
    files = {}
    for number in range(LAYERS):
        part = {
            name.replace(_LAYER, _LAYER[:-1] + str(number)): weight
            for name, weight in one.items()
            if name.startswith(_LAYER)
        }
        files |= _saved(part, f"model-{number:05}.safetensors")
    rest = {name: weight for name, weight in one.items() if not name.startswith(_LAYER)}
    files |= _saved(rest, f"model-{LAYERS:05}.safetensors")
    (FOLDER / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (FOLDER / "config.json").write_text(json.dumps(values))  # last: then everything is there
    return FOLDER


def _saved(part: dict[str, torch.Tensor], file: str) -> dict[str, str]:
    save_file(part, FOLDER / file)
    return dict.fromkeys(part, file)


def gguf_file(kind: str) -> Path:
    """The same shape for llama.cpp, in Q8_0 or Q4_0; made when it is not there yet."""
    path = FOLDER.with_name(f"6b-shape-{kind}.gguf")
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")
    kv_rows = GROUPS * HEAD_DIM
    shapes = {
        "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv_rows, HIDDEN), "attn_v": (kv_rows, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER), "token_embd": (VOCAB, HIDDEN), "output": (VOCAB, HIDDEN),
    }  # fmt: skip
    dtype = gguf.GGMLQuantizationType[kind]
    made = {name: _blocks(shape, kind) for name, shape in shapes.items()}
    norm = np.ones(HIDDEN, dtype=np.float32)
    for name in ("token_embd", "output"):
        writer.add_tensor(f"{name}.weight", made.pop(name), raw_dtype=dtype)
    writer.add_tensor("output_norm.weight", norm)
    for layer in range(LAYERS):
        for name, blocks in made.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", blocks, raw_dtype=dtype)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)
    return path


def _blocks(shape: tuple[int, int], kind: str) -> NDArray[np.uint8]:
    """Random weights as llama.cpp stores them: a half-precision scale, then the levels."""
    rows, columns = shape
    size = _BLOCK_BYTES[kind]
    random = np.random.default_rng(rows)
    blocks = random.integers(0, 256, (rows, columns // _BLOCK, size), dtype=np.uint8)
    blocks[:, :, :2] = np.frombuffer(np.float16(2e-4).tobytes(), dtype=np.uint8)
    return blocks.reshape(rows, -1)
