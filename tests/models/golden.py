"""The authors' own numbers, where they lie beside the project (`../shared/fixtures`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the authors' numbers are not beside this project"
)


def read(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Run:
    """One recorded prompt. columns: the logits that were kept; logits: [tokens, columns]."""

    name: str
    prompt: list[int]
    greedy: list[int]
    columns: np.ndarray
    logits: np.ndarray


def runs(folder: str, *, ptuning: bool = False) -> list[Run]:
    """Every recorded prompt of a folder; logits over the prompt and the answer before its end."""
    recorded, prefix = read(f"{folder}/golden.json"), ""
    if ptuning:
        recorded, prefix = recorded["ptuning"], "ptuning."
    arrays = np.load(FIXTURES / folder / "golden.npz")
    return [
        Run(
            prompt["name"],
            prompt["input_ids"],
            prompt["greedy_ids"],
            arrays[f"{prefix}{prompt['name']}.cols"],
            np.concatenate(
                [
                    arrays[f"{prefix}{prompt['name']}.prefill_logits_cols"][0],
                    arrays[f"{prefix}{prompt['name']}.greedy_logits_cols"][0][1:],
                ]
            ),
        )
        for prompt in recorded["prompts"]
    ]


def padded_batch(folder: str) -> list[Run]:
    """The recorded batch, each row without its padding."""
    recorded = read(f"{folder}/golden.json")["leftpad_batch"]
    arrays = np.load(FIXTURES / folder / "golden.npz")
    out = []
    for row, mask in enumerate(recorded["attention_mask"]):
        kept = np.array(mask, dtype=bool)
        prefill = arrays["leftpad_batch.prefill_logits_cols"][row][kept]
        greedy = arrays["leftpad_batch.greedy_logits_cols"][row][1:]
        out.append(
            Run(
                f"row {row}",
                np.array(recorded["input_ids"][row])[kept].tolist(),
                recorded["greedy_ids"][row],
                arrays["leftpad_batch.cols"],
                np.concatenate([prefill, greedy]),
            )
        )
    return out
