"""Kernels of our own, for x86 processors with AVX2; quickest where they multiply bytes (VNNI).

They are written in LLVM's language by Python (code.py), compiled for this processor when they are
first needed (compiled.py; llvmlite brings LLVM along, no compiler has to be installed), and run by
the threads that torch's own kernels have. What they are for: no library that was tried reads
weights of four bits at the memory's speed on these processors, nor keeps their arithmetic busy with
prompts, and a small model's token is hundreds of operations whose calls take longer than they.

One row's result never depends on the rows beside it: every kernel adds up each row by itself, in
one order. Knows nothing of models.
"""
