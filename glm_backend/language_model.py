"""A loaded model joined with an engine: what answers a chat, and what a Python script holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.completion import TokenCompletion
from glm_backend.engine.local import EngineStats, LocalEngine
from glm_backend.engine.prefix_runner import PrefixRunner
from glm_backend.engine.request import Failed, Generation, SamplingParams, Token
from glm_backend.engine.runner import RaggedRunner, SoloRunner, runner_for
from glm_backend.models.allocator import large_blocks_apart
from glm_backend.models.chatglm1 import ChatGLM1
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.models.chatglm_text import AnswerDetokenizer
from glm_backend.models.loader import Dtype, load
from glm_backend.models.model import LoadedModel, Message, Quantization, TextTokenizer
from glm_backend.models.quantization import weight_bytes
from glm_backend.settings import Settings
from glm_backend.threads import kernel_threads


class LanguageModel:
    """A model ready to answer. Close it to end its thread and give its memory back.

    It takes the LoadedModel over: whose module may not be able to compute by itself any more.

    family, name, context_length (tokens), tokenizer (None where the folder has none): facts of
    the model; `prompt_ids`, `logits` and `generate_ids` work on token ids.
    """

    def __init__(self, model: LoadedModel, *, max_concurrent: int = 8) -> None:
        torch.set_num_threads(kernel_threads())
        self._model = model
        # Which of the runners it is makes no difference from here on.
        self._runner = cast(RaggedRunner, _runner(model))
        self._engine = LocalEngine(
            self._runner,
            name=model.name,
            context_length=model.context_length,
            vocab_size=model.vocab_size,
            stop_ids=model.eos_ids,
            max_concurrent=max_concurrent,
        )

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def family(self) -> str:
        return self._model.family

    @property
    def recognised(self) -> str:
        """Why it is taken for its family."""
        return self._model.recognised

    @property
    def quantization(self) -> str:
        return self._model.quantization

    @property
    def context_length(self) -> int:
        return self._model.context_length

    @property
    def tokenizer(self) -> TextTokenizer | None:
        return self._model.tokenizer

    def stats(self) -> EngineStats:
        """How many answers are being written and how many requests wait."""
        return self._engine.stats()

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as the model's own prompt, up to where the answer begins."""
        return self._model.prompt_ids(messages)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self.prompt_ids(messages))

    def complete(self, messages: Sequence[Message], params: SamplingParams) -> TokenCompletion:
        """Starts an answer; see `Completer`."""
        ids = self.prompt_ids(messages)
        assert self.tokenizer is not None, "what has no tokenizer has no prompts either"
        generation = self.submit(ids, params)
        detokenizer = self.tokenizer.detokenizer()
        if self.family in FAMILIES:
            detokenizer = AnswerDetokenizer(detokenizer)
        return TokenCompletion(generation, detokenizer)

    def submit(
        self, ids: Sequence[int], params: SamplingParams, *, ignore_eos: bool = False
    ) -> Generation:
        """Starts an answer to a prompt of token ids; its events are tokens. See the engine."""
        if isinstance(self._runner, PrefixRunner):
            self._runner.check(ids)
        return self._engine.submit(ids, params, ignore_eos=ignore_eos)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Next-token scores after every token of `ids`: [tokens, vocab], float32."""
        return self._runner.score(ids)

    def generate_ids(
        self,
        ids: Sequence[int],
        max_new_tokens: int = 24,
        temperature: float = 0.0,
        seed: int | None = None,
        ignore_eos: bool = False,
    ) -> list[int]:
        """The ids that follow `ids`, through the engine. Raises what ended it, if it failed."""
        params = SamplingParams(
            temperature=temperature, top_p=1.0, max_new_tokens=max_new_tokens, seed=seed
        )
        answer = []
        for event in self.submit(ids, params, ignore_eos=ignore_eos).events():
            if isinstance(event, Token):
                answer.append(event.token_id)
            elif isinstance(event, Failed):
                raise event.error
        return answer

    def close(self) -> None:
        """Ends every answer under way as cancelled and lets go of the weights."""
        self._engine.close()
        # Somebody may still hold this object for its name; the weights must go now.
        self._model.module = nn.Module()
        del self._runner


def _runner(model: LoadedModel) -> RaggedRunner | SoloRunner | PrefixRunner:
    if isinstance(model.module, ChatGLM1):
        return PrefixRunner(model.module)
    with large_blocks_apart():
        runner = runner_for(cast(PreTrainedModel, model.module), model.prefix)
        if isinstance(runner, RaggedRunner) and (packed := runner.pack()):
            model.memory_bytes = weight_bytes(model.module) + packed
    return runner


def load_model(  # noqa: PLR0917 - the order is public
    folder_or_catalog_id: str,
    quantization: Quantization = "none",
    dtype: Dtype = "auto",
    device: str = "auto",
    ptuning: str | Path | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    family: str | None = None,
) -> LanguageModel:
    """Loads a model for a Python script: a catalogue id, or a folder on this machine.

    ptuning: folder of a trained prefix (p-tuning v2). on_progress: called with the stage and the
    fraction of it that is done, 0 to 1. family: overrides what a ChatGLM folder is taken for.
    Models are kept where the dashboard keeps them (GLM_MODEL_DIR). Raises ModelError and its kinds.
    """
    settings = Settings.load()
    model = load(
        folder_or_catalog_id,
        quantization=quantization,
        dtype=dtype,
        device=device,
        ptuning=ptuning,
        family=family,
        model_dir=settings.resolved_model_dir,
        on_progress=on_progress or (lambda stage, fraction: None),
    )
    return LanguageModel(model, max_concurrent=settings.max_concurrent)
