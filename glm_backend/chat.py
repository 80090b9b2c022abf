"""Conversations that are answered: text in, a growing answer out.

The question and an empty answer are committed before the first token is made; the answer is
written down while it grows and goes on whether or not a browser watches. This joins the store, a
model and the recorder; it draws nothing.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace

from glm_backend.chat_parameters import ChatParameters
from glm_backend.completion import Completer, Completion, Text
from glm_backend.context import FittedPrompt, fit
from glm_backend.engine.request import Failed, Finished
from glm_backend.eraser import Eraser
from glm_backend.errors import (
    AnswerComplete,
    AnswerRunning,
    EmptyMessage,
    GLMError,
    InternalError,
    MessageTooLong,
    UnknownMessage,
)
from glm_backend.live_answer import LiveAnswer
from glm_backend.models.model import Message as PromptMessage
from glm_backend.readable import readable
from glm_backend.recorder import Recorder
from glm_backend.store.messages import require_continuable
from glm_backend.store.ratings import UNCHANGED, Rating, Unchanged
from glm_backend.store.store import Store
from glm_backend.store.values import AnswerParameters, Message

logger = logging.getLogger(__name__)

MAX_MESSAGE_CHARACTERS = 4_000_000
#: How long Stop waits for the partial answer to be saved, so that the page already shows it.
STOP_WAIT_S = 1.0
#: Seeds that are drawn are kept with the answer; 31 bits survive every spreadsheet.
_DRAWN_SEEDS = 2**31


class ChatService:
    """Sends, regenerates, edits and stops; one answer at a time in each conversation.

    `model` gives the model that answers now, or raises ModelNotReady. `store` is open to pages
    for reading lists and transcripts. trash_days: after so many days what is in the trash is
    erased; 0 keeps it.
    """

    def __init__(
        self, store: Store, model: Callable[[], Completer], *, trash_days: int = 0
    ) -> None:
        self.store = store
        self._model = model
        self._live: dict[str, LiveAnswer] = {}
        self._reserved: set[str] = set()
        self._versions: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._recorder = Recorder(store, self._forget)
        self._recorder.start()
        self._eraser = Eraser(store, trash_days)

    # --- asking

    def send(
        self,
        user_id: str,
        conversation_id: str,
        text: str,
        overrides: Mapping[str, object] | None = None,
    ) -> LiveAnswer:
        """Asks below the message that is shown last.

        Raises EmptyMessage, MessageTooLong, ContextOverflow, InvalidParameter, AnswerRunning,
        ModelNotReady, UnknownConversation or a StoreError; nothing is stored then. Once it has
        returned, the question is safe and whatever goes wrong is part of the answer.
        """
        head = self.store.conversation(user_id, conversation_id).head_id
        return self._ask(user_id, conversation_id, head, text, overrides)

    def edit(
        self,
        user_id: str,
        conversation_id: str,
        question_id: str,
        text: str,
        overrides: Mapping[str, object] | None = None,
    ) -> LiveAnswer:
        """Asks again in other words: a new branch beside `question_id`. Raises like `send`."""
        question = self._message(user_id, conversation_id, question_id)
        return self._ask(user_id, conversation_id, question.parent_id, text, overrides)

    def regenerate(
        self,
        user_id: str,
        conversation_id: str,
        answer_id: str,
        overrides: Mapping[str, object] | None = None,
    ) -> LiveAnswer:
        """Answers the same question once more; the older versions stay. Raises like `send`."""
        answer = self._message(user_id, conversation_id, answer_id)
        question_id = answer.parent_id if answer.role == "assistant" else answer.id
        if question_id is None:
            raise UnknownMessage(message_id=answer_id)
        return self._answer(user_id, conversation_id, question_id, overrides)

    def continue_answer(
        self,
        user_id: str,
        conversation_id: str,
        answer_id: str,
        overrides: Mapping[str, object] | None = None,
    ) -> LiveAnswer:
        """Carries on an answer that was stopped, cut off or reached its maximum length.

        A version beside it that begins with its text; the older one stays as it ended. Raises
        like `send`, and AnswerComplete for an answer that ended by itself.
        """
        self._settle(conversation_id)
        answer = self._message(user_id, conversation_id, answer_id)
        require_continuable(answer)
        if answer.parent_id is None:
            raise AnswerComplete()
        continues = answer_id if answer.beginning else None
        return self._answer(
            user_id, conversation_id, answer.parent_id, overrides, continues=continues
        )

    def rate(
        self,
        user_id: str,
        conversation_id: str,
        answer_id: str,
        rating: Rating | Unchanged | None = UNCHANGED,
        comment: str | Unchanged = UNCHANGED,
    ) -> None:
        """Says that an answer is good (1) or bad (-1), or why; None and "" take it back.

        Raises InvalidParameter, UnknownConversation, UnknownMessage or a StoreError.
        """
        if isinstance(comment, str):
            comment = readable(comment.strip())
        self.store.rate(user_id, conversation_id, answer_id, rating, comment)
        self.touch(conversation_id)

    def parameters(
        self,
        user_id: str,
        conversation_id: str | None = None,
        overrides: Mapping[str, object] | None = None,
    ) -> ChatParameters:
        """The user's settings, then the conversation's own, then `overrides`.

        Raises InvalidParameter, UnknownConversation.
        """
        values = self.store.user_settings(user_id)
        if conversation_id is not None:
            values |= self.store.conversation(user_id, conversation_id).settings
        return ChatParameters.from_values({**values, **(overrides or {})})

    # --- watching

    def live(self, conversation_id: str) -> LiveAnswer | None:
        """The answer being written in this conversation, or ended and not saved yet."""
        return self._live.get(conversation_id)

    def version(self, conversation_id: str) -> int:
        """Grows whenever an answer begins or ends, or `touch` was called: redraw when it does."""
        return self._versions[conversation_id]

    def touch(self, conversation_id: str) -> None:
        """Lets other pages that show this conversation know that it changed."""
        with self._lock:
            self._versions[conversation_id] += 1

    def running(self) -> int:
        """How many answers are being written."""
        return sum(answer.running for answer in list(self._live.values()))

    def stop(self, conversation_id: str) -> bool:
        """Ends the answer under way; waits a moment for its text to be saved."""
        answer = self._live.get(conversation_id)
        if answer is None:
            return False
        answer.cancel()
        return answer.wait_saved(STOP_WAIT_S)

    def close(self) -> None:
        """Ends every answer as stopped, saves them all, and ends the recorder."""
        for answer in list(self._live.values()):
            answer.cancel()
        for answer in list(self._live.values()):
            answer.wait_saved(STOP_WAIT_S)
        self._recorder.close()
        self._eraser.close()

    # --- how one message flows

    def _ask(
        self,
        user_id: str,
        conversation_id: str,
        parent_id: str | None,
        text: str,
        overrides: Mapping[str, object] | None,
    ) -> LiveAnswer:
        text = _checked(text)
        with self._place(conversation_id):
            earlier: list[Message] = []
            if parent_id is not None:
                earlier = self.store.path(user_id, conversation_id, parent_id)
            model, chat, fitted = self._prepare(
                user_id, conversation_id, earlier, overrides, question=text
            )
            _, begun = self.store.begin_turn(
                user_id,
                conversation_id,
                parent_id,
                text,
                _recorded(model, chat, fitted),
                self._recorder.owner,
            )
            return self._start(user_id, begun, model, chat, fitted)

    def _answer(
        self,
        user_id: str,
        conversation_id: str,
        question_id: str,
        overrides: Mapping[str, object] | None,
        *,
        continues: str | None = None,
    ) -> LiveAnswer:
        with self._place(conversation_id):
            *before, last = self.store.path(user_id, conversation_id, continues or question_id)
            path = (
                [*before, replace(last, content=last.beginning)] if continues else [*before, last]
            )
            model, chat, fitted = self._prepare(user_id, conversation_id, path, overrides)
            begun = self.store.begin_answer(
                user_id,
                conversation_id,
                question_id,
                _recorded(model, chat, fitted),
                self._recorder.owner,
                continues=continues,
            )
            return self._start(user_id, begun, model, chat, fitted)

    def _prepare(
        self,
        user_id: str,
        conversation_id: str,
        path: Sequence[Message],
        overrides: Mapping[str, object] | None,
        question: str | None = None,
    ) -> tuple[Completer, ChatParameters, FittedPrompt]:
        """Everything that can be refused, before anything is written."""
        chat = self.parameters(user_id, conversation_id, overrides)
        model = self._model()
        history = _answered_turns(path, to_be_answered=question is None)
        if question is not None:
            history.append({"role": "user", "content": question})
        limits = chat.limits(model.family, model.context_length)
        fitted = fit(
            model,
            chat.system_prompt,
            history,
            replace(chat.sampling, max_new_tokens=limits.answer),
            context=limits.together,
            reserved=limits.reserved,
        )
        seed = chat.sampling.seed
        drawn = secrets.randbelow(_DRAWN_SEEDS) if seed is None else seed
        sampling = replace(chat.sampling, seed=drawn, max_new_tokens=fitted.max_new_tokens)
        return model, replace(chat, sampling=sampling), fitted

    def _start(
        self,
        user_id: str,
        begun: Message,
        model: Completer,
        chat: ChatParameters,
        fitted: FittedPrompt,
    ) -> LiveAnswer:
        """From here on the question is safe: what goes wrong becomes the end of the answer."""
        answer = LiveAnswer(
            begun.id,
            begun.conversation_id,
            max_new_tokens=chat.sampling.max_new_tokens,
            begun_with=begun.content,
        )
        self._live[begun.conversation_id] = answer
        self.touch(begun.conversation_id)
        self._recorder.watch(answer)
        try:
            completion = model.complete(fitted.messages, chat.sampling, client=user_id)
        except Exception as error:
            self._end(answer, _as_glm_error(error))
            return answer
        answer.made_by(completion)
        name = f"answer-{begun.id[:8]}"
        threading.Thread(
            target=self._follow, args=(answer, completion), name=name, daemon=True
        ).start()
        return answer

    def _follow(self, answer: LiveAnswer, completion: Completion) -> None:
        """Carries the events of one completion over to its answer, in a thread of its own."""
        try:
            for event in completion.events():
                if isinstance(event, Text):
                    answer.append(event.text, event.tokens)
                elif isinstance(event, Finished):
                    answer.finish(event.reason, event.usage)
                elif isinstance(event, Failed):
                    answer.fail(event.error, event.usage)
        except Exception as error:
            answer.fail(_as_glm_error(error))
        self._ended(answer)

    def _end(self, answer: LiveAnswer, error: GLMError) -> None:
        answer.fail(error)
        self._ended(answer)

    def _ended(self, answer: LiveAnswer) -> None:
        self.touch(answer.conversation_id)
        self._recorder.flush_soon()

    def _forget(self, answer: LiveAnswer) -> None:
        with self._lock:
            if self._live.get(answer.conversation_id) is answer:
                del self._live[answer.conversation_id]
            self._versions[answer.conversation_id] += 1

    @contextmanager
    def _place(self, conversation_id: str) -> Iterator[None]:
        """One answer at a time: holds the conversation while an answer is being started."""
        self._settle(conversation_id)
        with self._lock:
            live = self._live.get(conversation_id)
            if conversation_id in self._reserved or (live is not None and live.running):
                raise AnswerRunning()
            if live is not None and not live.saved:  # the next one would be told half of it
                raise live.save_error or AnswerRunning()
            self._reserved.add(conversation_id)
        try:
            yield
        finally:
            with self._lock:
                self._reserved.discard(conversation_id)

    def _settle(self, conversation_id: str) -> None:
        """Waits a moment for an answer that has just ended to be saved."""
        live = self._live.get(conversation_id)
        if live is not None and not live.running and live.save_error is None:
            live.wait_saved(STOP_WAIT_S)

    def _message(self, user_id: str, conversation_id: str, message_id: str) -> Message:
        return self.store.path(user_id, conversation_id, message_id)[-1]


def _checked(text: str) -> str:
    if not text.strip():
        raise EmptyMessage()
    if len(text) > MAX_MESSAGE_CHARACTERS:
        raise MessageTooLong(characters=len(text), limit=MAX_MESSAGE_CHARACTERS)
    return readable(text)


def _answered_turns(path: Sequence[Message], *, to_be_answered: bool) -> list[PromptMessage]:
    """What a model is shown of a path: questions with their answers, and the question at the end
    that is to be answered, or the beginning of the answer that it carries on.

    A question whose answer failed or was stopped before the first word is left out together
    with it: most models' prompts know only question and answer in turn.
    """
    shown: list[PromptMessage] = []
    for message, following in zip(path, [*path[1:], None], strict=False):
        if following is None:
            answered = to_be_answered
        else:
            answered = following.role == "assistant" and bool(following.content)
        if message.role == "user" and answered:
            shown.append({"role": "user", "content": message.content})
        elif message.role == "assistant" and message.content:
            shown.append({"role": "assistant", "content": message.content})
    return shown


def _recorded(model: Completer, chat: ChatParameters, fitted: FittedPrompt) -> AnswerParameters:
    kept = {field.name for field in fields(AnswerParameters)}
    sampling = {name: value for name, value in asdict(chat.sampling).items() if name in kept}
    return AnswerParameters(
        model=model.name,
        quantization=model.quantization,
        system_prompt=chat.system_prompt,
        left_out=fitted.left_out,
        **sampling,
    )


def _as_glm_error(error: Exception) -> GLMError:
    if isinstance(error, GLMError):
        return error
    logger.error("an answer failed", exc_info=error)
    return InternalError(message=type(error).__name__)
