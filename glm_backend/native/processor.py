"""What this processor has, of what the kernels can use.

They are written with vectors of 64 bytes. Where registers are half as long, LLVM takes two for one,
and half as many numbers are kept in them; otherwise only products of bytes differ (code.py).
"""

from __future__ import annotations

import functools
from enum import Enum

import llvmlite.binding as llvm

_NEEDED = ("avx2", "fma", "f16c")
_WIDE = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")
#: What LLVM shall not use: tiles ask the system for leave first.
_NEVER = ("amx-tile", "amx-int8", "amx-bf16", "prefer-256-bit")


class Processor(Enum):
    """Kinds that differ for the kernels; the value is what people are told."""

    WIDE = "AVX-512 VNNI"
    DOTS = "AVX-VNNI"
    PLAIN = "AVX2"


@functools.cache
def kinds() -> tuple[Processor, ...]:
    """As what this processor can work, the quickest first."""
    features = llvm.get_host_cpu_features()
    if not all(features.get(name) for name in _NEEDED):
        return ()
    wide = all(features.get(name) for name in _WIDE)
    there = {Processor.WIDE: wide, Processor.DOTS: bool(features.get("avxvnni"))}
    return (*(kind for kind, has in there.items() if has), Processor.PLAIN)


def processor() -> Processor | None:
    """What kernels are written for; None where there are none for this one."""
    return next(iter(kinds()), None)


def is_wide() -> bool:
    """Whether there are 32 registers of 64 bytes; otherwise 16 of 32."""
    return processor() is Processor.WIDE


def features() -> str:
    """What LLVM may use of it, and what not, as LLVM reads it."""
    never = list(_NEVER)
    if not is_wide():
        never.append("avx512f")  # with all that builds on it
    if processor() is Processor.PLAIN:
        never.append("avxvnni")
    return ",".join([llvm.get_host_cpu_features().flatten(), *(f"-{name}" for name in never)])
