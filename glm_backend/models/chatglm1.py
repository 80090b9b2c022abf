"""The first ChatGLM-6B: the one member of the family that transformers has no module for.

GLM's block with post-layer scaling (DeepNorm), GELU, two rotary positions a token (its place, and
its place within the answer), a tied head and a prompt that is read in both directions. Parameters
carry the published names. Attention, caches and masks are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

MODEL_TYPE = "chatglm1"
_ROPE_BASE = 10_000.0
#: DeepNorm's factor (Wang et al. 2022) for 28 layers; the authors' program never passes another
#: number, so a model with fewer layers has the same one (measured).
_ALPHA = (2 * 28) ** 0.5
#: (layer, query, key, value), each [tokens, heads, head_dim], which is what it gives too
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class ChatGLM1Config(PretrainedConfig):  # type: ignore[no-untyped-call]
    """intermediate_size: width of the MLP; the token ids are those that shape a prompt."""

    model_type = MODEL_TYPE

    hidden_size: int = 4096
    intermediate_size: int = 16_384
    num_hidden_layers: int = 28
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    max_position_embeddings: int = 2048
    vocab_size: int = 130_528
    layer_norm_eps: float = 1e-5
    mask_token_id: int = 130_000
    gmask_token_id: int = 130_001
    bos_token_id: int | None = 130_004
    eos_token_id: int | list[int] | None = 130_005
    tie_word_embeddings: bool = True


class _Attention(nn.Module):
    def __init__(self, config: ChatGLM1Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, rotate: Callable[[Tensor], Tensor], attend: Attend) -> Tensor:
        tokens, hidden = x.shape
        fused = self.query_key_value(x).view(tokens, self.heads, -1)  # each head: its q, k and v
        query, key, value = fused.chunk(3, -1)
        attended = attend(self.layer, rotate(query), rotate(key), value)
        return self.dense(attended.reshape(tokens, hidden))  # type: ignore[no-any-return]


class _MLP(nn.Module):
    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.gelu(self.dense_h_to_4h(x), approximate="tanh")
        return self.dense_4h_to_h(wide)  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, config: ChatGLM1Config, layer: int) -> None:
        super().__init__()
        self.alpha = _ALPHA
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = _Attention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = _MLP(config)

    def forward(self, x: Tensor, rotate: Callable[[Tensor], Tensor], attend: Attend) -> Tensor:
        x = self.input_layernorm(x)
        x = x * self.alpha + self.attention(x, rotate, attend)
        x = self.post_attention_layernorm(x)
        return x * self.alpha + self.mlp(x)  # type: ignore[no-any-return]


class _Transformer(nn.Module):
    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_Block(config, i) for i in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class ChatGLM1(PreTrainedModel):
    """Token ids with two positions each -> logits. Not for generate(): the engine runs it."""

    config_class = ChatGLM1Config
    config: ChatGLM1Config
    base_model_prefix = "transformer"
    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__(config)
        self.transformer = _Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.word_embeddings

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head  # type: ignore[no-any-return]

    def layout(self, token_ids: Sequence[int]) -> tuple[int, int] | None:
        """(position that the answer is written at, tokens before it); None where it never begins.

        An answer fills the place of [gMASK], or of the first [MASK], and begins after <sop>.
        """
        begin = self.config.bos_token_id
        masks = (self.config.gmask_token_id, self.config.mask_token_id)
        mask = next((m for m in masks if m in token_ids), None)
        if mask is None or begin not in token_ids:
            return None
        return token_ids.index(mask), token_ids.index(begin)

    @property
    def parts(self) -> int:
        """Layers, after each of which `logits` rests."""
        return len(self.transformer.layers)

    def logits(
        self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor
    ) -> Generator[None, None, Tensor]:
        """ids [tokens], positions [2, tokens] -> [len(keep), vocab], after a rest at each layer.

        A position is a token's place, and beside it its place within the answer.
        """
        rotate = self._rotation(positions)
        x = self.transformer.word_embeddings(ids)  # [tokens, hidden]
        for block in self.transformer.layers:
            x = block(x, rotate, attend)
            yield
        x = self.transformer.final_layernorm(x[keep])
        return self.lm_head(x)  # type: ignore[no-any-return]

    def _rotation(self, positions: Tensor) -> Callable[[Tensor], Tensor]:
        """Rotary embedding: half of each head by the first position, half by the second."""
        width = self.config.hidden_size // self.config.num_attention_heads // 2
        steps = torch.arange(0, width, 2, device=positions.device) / width
        # The authors keep the frequencies in fp16; 0.1 is 0.09998 there, and it shows in logits.
        frequencies = (_ROPE_BASE**-steps).half().float()
        angles = positions[..., None].float() * frequencies  # [2, tokens, width / 2]
        angles = torch.cat([angles, angles], -1)[:, :, None]  # one for all heads
        cos, sin = (table.to(self.dtype) for table in (angles.cos(), angles.sin()))

        def rotate(x: Tensor) -> Tensor:  # [tokens, heads, head_dim]
            halves = [_rotated(h, cos[i], sin[i]) for i, h in enumerate(x.chunk(2, -1))]
            return torch.cat(halves, -1)

        return rotate


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
