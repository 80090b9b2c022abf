"""Values of files with every text in them as a database keeps it."""

from __future__ import annotations

from typing import Any

from glm_backend.readable import storable


def storable_values(value: Any) -> tuple[Any, int]:
    """A value of JSON with every text in it storable, and how many texts were changed."""
    if isinstance(value, str):
        kept = storable(value)
        return kept, kept is not value
    if isinstance(value, list):
        pairs = [storable_values(element) for element in value]
        return [kept for kept, _ in pairs], sum(changed for _, changed in pairs)
    if isinstance(value, dict):
        items = {storable(name): storable_values(inner) for name, inner in value.items()}
        return {n: kept for n, (kept, _) in items.items()}, sum(c for _, c in items.values())
    return value, 0
