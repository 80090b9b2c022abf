"""What the chat page shows of one conversation, read in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from glm_backend.errors import StoreError
from glm_backend.live_answer import LiveAnswer
from glm_backend.services import Services
from glm_backend.store.values import Conversation, Message

Children = Mapping[str | None, Sequence[str]]


@dataclass(frozen=True, slots=True)
class ChatView:
    """One conversation at one moment.

    messages: the last ones of the shown branch. earlier: how many there are above them. version:
    what `ChatService.version` was before anything was read, so that no change is missed. away: why
    the store could not be read again since.
    """

    conversation: Conversation
    messages: list[Message]
    earlier: int
    children: Children
    live: LiveAnswer | None
    version: int
    away: StoreError | None = None

    @property
    def running(self) -> bool:
        """True while an answer is being written."""
        return self.live is not None and self.live.running

    @property
    def orphaned(self) -> bool:
        """True when the last answer is being written by another process, or by one that died."""
        last = self.messages[-1] if self.messages else None
        return last is not None and last.status == "generating" and self.live is None

    def siblings(self, message: Message) -> Sequence[str]:
        """All versions of a message, oldest first, itself among them."""
        return self.children.get(message.parent_id, ())


def read_chat(services: Services, conversation_id: str, *, last: int) -> ChatView:
    """The last so many messages of a conversation; raises UnknownConversation or a StoreError."""
    store, user_id = services.store, services.user_id
    version = services.chat.version(conversation_id)
    live = services.chat.live(conversation_id)
    conversation = store.conversation(user_id, conversation_id)
    path = store.path(user_id, conversation_id, last=last)
    children = store.versions(user_id, conversation_id)
    return ChatView(
        conversation=conversation,
        messages=[with_live(message, live) for message in path],
        earlier=_above(path[0], children) if path else 0,
        children=children,
        live=live,
        version=version,
    )


def _above(message: Message, children: Children) -> int:
    """How many messages lead to this one."""
    parents = {child: parent for parent, those in children.items() for child in those}
    count, above = 0, message.parent_id
    while above is not None:
        count, above = count + 1, parents.get(above)
    return count


def read_from_memory(services: Services, last: ChatView, away: StoreError) -> ChatView:
    """What was last read, with the answer as it stands in memory, while the store is away."""
    conversation_id = last.conversation.id
    version = services.chat.version(conversation_id)
    live = services.chat.live(conversation_id)
    messages = [with_live(message, live) for message in last.messages]
    return replace(last, messages=messages, live=live, version=version, away=away)


def with_live(message: Message, live: LiveAnswer | None) -> Message:
    """The message as it stands in memory, where that is ahead of the database."""
    if live is None or live.message_id != message.id:
        return message
    _, update = live.snapshot()
    values = asdict(update)
    del values["message_id"]
    return replace(message, **values)


@dataclass(frozen=True, slots=True)
class ContextUse:
    """How much of the model's context the shown conversation takes, in tokens."""

    used: int
    length: int
    reserved: int

    @property
    def fraction(self) -> float:
        return min(1.0, self.used / self.length)

    @property
    def overflows(self) -> bool:
        """True when the oldest messages will have no room beside the next question."""
        return self.used > self.length - self.reserved


def context_use(
    messages: Sequence[Message], context_length: int, reserved: int
) -> ContextUse | None:
    """From the figures of the last answer that has any; None where no answer has.

    context_length, reserved: as `ChatParameters.limits` gives them.
    """
    for message in reversed(messages):
        if message.prompt_tokens is not None:
            used = message.prompt_tokens + (message.completion_tokens or 0)
            break
    else:
        if messages:
            return None
        used = 0
    return ContextUse(used, context_length, min(reserved, context_length // 2))
