"""Small models with random weights, made on the spot: every architecture question, no download."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "你好，世界。今天天气很好，我们去公园吧。",
    "def main():\n    print('hello')\n",
] * 20
SPECIALS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCAB = 400


def byte_level_tokenizer() -> Tokenizer:
    """BPE over bytes, as GPT-2 and its heirs cut text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback_tokenizer() -> Tokenizer:
    """SentencePiece's way: a leading ▁, and bytes for characters that are not in the vocabulary."""
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁h",
        "he",
        "▁he",
        "l",
        "你",
    ]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)},
            [],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def save_tokenizer(folder: Path, *, template: str | None = TEMPLATE) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>", pad_token="<|end|>"
    )
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def llama(**changes: object) -> LlamaConfig:
    values: dict[str, object] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    return LlamaConfig(**(values | changes))  # type: ignore[arg-type]


def make(
    folder: Path,
    config: PretrainedConfig | None = None,
    *,
    seed: int = 0,
    template: str | None = TEMPLATE,
    max_shard_size: str = "5GB",
) -> PreTrainedModel:
    """Saves a random model with tokenizer as a folder, and returns it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config or llama())
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    save_tokenizer(folder, template=template)
    return model.eval()
