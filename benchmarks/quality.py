"""What few bits cost: perplexity of the starter model, and how many tokens stay the same.

Our own INT8 and INT4 beside the authors' way (one scale a row, no zero), which
`AutoModel.quantize(8 | 4)` makes. Theirs leaves the output layer as it is, ours does not, so
theirs is measured with that layer in 8 bits, too. The text is this project's own documentation: the
starter model has never seen it, and the figures move when it is rewritten. With a quarter of it the
differences between INT8 of several kinds are smaller than what they move by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.asking import MODEL_DIR, STARTER
from benchmarks.report import Row
from glm_backend.engine.runner import runner_for
from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel
from glm_backend.models.row_quantization import Bits, published_weight, quantized_by_rows
from glm_backend.threads import apart

DOCUMENTS = Path(__file__).parents[1] / "docs"
_TOKENS, _WINDOW = 16_384, 1024
_HEAD_TOO = ", output layer too"


def rows() -> list[Row]:
    """One line a precision."""
    return apart(_rows)


def _rows() -> list[Row]:
    plain = _scores(load(STARTER, model_dir=MODEL_DIR))
    found = {"none": _figures(plain, plain)}
    for name, make in _KINDS.items():
        found[name] = _figures(_scores(make()), plain)
    lines = []
    for name, (perplexity, same) in found.items():
        theirs, with_head = (found.get(f"{name} by rows{more}") for more in ("", _HEAD_TOO))
        figures = f"perplexity {perplexity:.2f}, {same:.1%} of the likeliest tokens as in float32"
        if theirs is None or with_head is None:
            lines.append(Row(f"quality, {name}", figures, "", "", None))
            continue
        lines.append(
            Row(
                f"quality, {name}",
                figures,
                f"by rows {theirs[0]:.2f}, {theirs[1]:.1%}; "
                f"the output layer, too: {with_head[0]:.2f}, {with_head[1]:.1%}",
                "perplexity no worse than by rows, nothing worse than with the output layer",
                perplexity <= min(theirs[0], with_head[0]) and same >= with_head[1],
            )
        )
    return lines


def _by_rows(bits: Bits, *, head: bool = False) -> LoadedModel:
    """The authors' way: the linear layers of each block, and the output layer in 8 bits or not."""
    model = load(STARTER, model_dir=MODEL_DIR)
    for name, layer in list(model.module.named_modules()):
        if isinstance(layer, nn.Linear) and ".layers." in name:
            with torch.no_grad():
                layer.weight.copy_(_rounded(layer.weight, bits))
    if head:  # a copy: it is tied to the embedding, which stays
        layer = model.module.lm_head
        layer.weight = nn.Parameter(_rounded(layer.weight, 8), requires_grad=False)
    return model


def _rounded(weight: Tensor, bits: Bits) -> Tensor:
    q, scale = quantized_by_rows(weight.detach(), bits)
    return published_weight(q, scale, bits).dense(slice(0, len(weight)))


_KINDS: dict[str, Callable[[], LoadedModel]] = {
    "int8": lambda: load(STARTER, quantization="int8", model_dir=MODEL_DIR),
    "int4": lambda: load(STARTER, quantization="int4", model_dir=MODEL_DIR),
    "int8 by rows": lambda: _by_rows(8),
    "int4 by rows": lambda: _by_rows(4),
    f"int8 by rows{_HEAD_TOO}": lambda: _by_rows(8, head=True),
    f"int4 by rows{_HEAD_TOO}": lambda: _by_rows(4, head=True),
}


def _scores(model: LoadedModel) -> tuple[float, Tensor]:
    """The mean surprise a token, in nats, and the likeliest token at each place."""
    assert model.tokenizer is not None
    text = "\n".join(file.read_text("utf-8") for file in sorted(DOCUMENTS.glob("*.md")))
    ids = model.tokenizer.encode(text)[:_TOKENS]
    runner = runner_for(model.module)  # type: ignore[arg-type]
    surprise, likeliest = 0.0, []
    for start in range(0, len(ids), _WINDOW):
        window = ids[start : start + _WINDOW]
        logits = runner.score(window)
        chances = logits[:-1].log_softmax(-1)
        said = torch.tensor(window[1:])
        surprise -= float(chances.gather(1, said[:, None]).sum())
        likeliest.append(logits[:-1].argmax(-1))
    places = torch.cat(likeliest)
    return surprise / len(places), places


def _figures(scores: tuple[float, Tensor], plain: tuple[float, Tensor]) -> tuple[float, float]:
    return math.exp(scores[0]), float((scores[1] == plain[1]).float().mean())
