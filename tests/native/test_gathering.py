"""Rows of a table by their numbers, in the types that embeddings have."""

from __future__ import annotations

import pytest
import torch

from glm_backend.native.compiled import Program, Step
from glm_backend.native.gathering import DTYPES, gathered


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [16, 64, 4096])
def test_rows_are_those_of_the_table(dtype: torch.dtype, columns: int) -> None:
    table = torch.randn(50, columns, generator=torch.Generator().manual_seed(0)).to(dtype)
    table[7, 3], table[7, 4], table[7, 5] = torch.nan, torch.inf, 1e-7
    numbers = torch.tensor([7, 0, 49, 7, 12])
    y = torch.empty(5, columns)
    Program([(gathered(dtype), (1, 2, 3, columns))]).run(Step(5, [table, numbers, y]))
    torch.testing.assert_close(y, table[numbers].float(), rtol=0, atol=0, equal_nan=True)
