"""A conversation as another program had it, and what becomes of it here.

Other programs know roles, empty nodes and links that we do not, and files get damaged. Here
question and answer take turns, so what one side said in a row becomes one message; nodes that say
nothing vanish; a system message becomes the system prompt of the answers below it; a message whose
parent is missing begins a branch, and a circle is opened at its first message. No text is lost.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from glm_backend.errors import ConversationUnreadable, Phrase
from glm_backend.store.conversations import TAG_CHARACTERS, TITLE_CHARACTERS, title_from
from glm_backend.store.imported import NAME_CHARACTERS
from glm_backend.store.values import ImportedConversation, ImportedMessage

Side = Literal["user", "assistant", "system"]

_SYSTEM_PROMPT_CHARACTERS = 100_000  # the conversation's own settings take no longer one
#: Branches repeat the texts that they share, and answers the system prompt. Where that makes so
#: much more text out of a little, no program wrote the file.
_MOST_GROWTH = 64
_FREE_GROWTH = 1_000_000


@dataclass(slots=True)
class DraftMessage:
    """One node. side: None says nothing; what follows it follows its parent.

    about: more fields of an ImportedMessage, for an answer. One that has an error says something.
    """

    id: str
    parent_id: str | None
    side: Side | None
    text: str
    created_at: datetime | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """source: the form it came in. id: what its program called it. current_id: the node shown
    last. notes: what was remarkable in reading it."""

    source: str
    id: str
    title: str
    messages: Sequence[DraftMessage]
    current_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    system_prompt: str = ""
    tags: Sequence[str] = ()
    pinned: bool = False
    archived: bool = False
    notes: list[Phrase] = field(default_factory=list)

    def planted(self, user_id: str, now: datetime) -> ImportedConversation:
        """The conversation for the store. now: stands in where no time is known.

        Ids are made of the user, the form and the ids there, so that the same file gives the same
        ones. Raises ConversationUnreadable when it says nothing.
        """
        self._clip_names()
        known = [message.created_at for message in self.messages if message.created_at]
        began = self.created_at or min(known, default=self.updated_at or now)
        tree = _Tree(self, uuid.uuid5(uuid.UUID(user_id), f"{self.source}/{self.id}"), began)
        if not tree.messages:
            raise ConversationUnreadable(reason=Phrase("it holds no messages"))
        changed = max(began, self.updated_at or max(m["created_at"] for m in tree.messages))
        prompt = tree.shown_system_prompt
        return ImportedConversation(
            id=tree.id.hex,
            title=_clipped(self.title, TITLE_CHARACTERS) or title_from(_first_text(tree)),
            created_at=began,
            updated_at=changed,
            messages=tree.messages,
            settings={"system_prompt": prompt} if prompt else {},
            head_id=tree.head_id,
            pinned=self.pinned,
            archived_at=changed if self.archived else None,
            source=self.source,
            tags=[tag for tag in (_clipped(t, TAG_CHARACTERS) for t in self.tags) if tag],
        )

    def _clip_names(self) -> None:
        named = [message.about for message in self.messages if "model" in message.about]
        long = [about for about in named if len(about["model"]) > NAME_CHARACTERS]
        for about in long:
            about["model"] = _clipped(about["model"], NAME_CHARACTERS)
        if long:
            self.notes.append(
                Phrase("{count} names of models were too long and cut", count=len(long))
            )


@dataclass(slots=True, eq=False)
class _Node:
    """A message of the draft in its place.

    speaker: the nearest node from here up that says something. Of one that does, above: the next
    one up; first: where its side began to speak; spoken_in: the message that its text is in.
    """

    message: DraftMessage
    parent: _Node | None
    at: datetime
    system_prompt: str = ""
    speaker: _Node | None = None
    above: _Node | None = None
    first: _Node | None = None
    answered: bool = False
    continued: bool = False
    spoken_in: str | None = None

    def goes_on_from(self, above: _Node | None) -> bool:
        """Whether this and the node above it are said by the same side."""
        return above is not None and above.message.side == self.message.side


class _Tree:
    """The messages that a draft becomes, a parent before its children."""

    def __init__(self, draft: Draft, its_id: uuid.UUID, began: datetime) -> None:
        self.id = its_id
        self.messages: list[ImportedMessage] = []
        written = sum(1 + len(message.text) for message in draft.messages)
        self._room = _FREE_GROWTH + _MOST_GROWTH * (written + len(draft.system_prompt))
        nodes = {node.message.id: node for node in _in_order(draft, began)}
        for node in nodes.values():
            self._place(node, draft.system_prompt)
        for node in nodes.values():
            if node.speaker is node and (node.answered or not node.continued):
                self._speak(node)
        self.head_id, self.shown_system_prompt = self._shown(nodes, draft.current_id)

    def _place(self, node: _Node, system_prompt: str) -> None:
        """Joins the node to those above it, which are placed already."""
        message, parent = node.message, node.parent
        above = parent.speaker if parent else None
        node.system_prompt = parent.system_prompt if parent else system_prompt
        node.speaker = above
        if message.side is None or not (message.text or message.about.get("error")):
            return
        if message.side == "system":
            node.system_prompt = "\n\n".join(filter(None, (node.system_prompt, message.text)))
            self._take_room(len(node.system_prompt))
            return
        node.speaker, node.above, node.first = node, above, node
        if above is not None and node.goes_on_from(above):
            node.first, above.continued = above.first, True
        elif above is not None:
            above.answered = True

    def _speak(self, node: _Node) -> None:
        """Makes the message that ends with this node of all that its side said in a row."""
        run: list[_Node] = []
        last: _Node | None = node
        while last is not None and last.first is node.first:
            self._take_room(1 + len(last.message.text))
            run.append(last)
            last = last.above
        message_id = uuid.uuid5(self.id, node.message.id).hex
        about: dict[str, Any] = {}
        for said in reversed(run):
            said.spoken_in = said.spoken_in or message_id
            about |= said.message.about
        if node.message.side == "assistant" and node.system_prompt:
            self._take_room(len(node.system_prompt))
            about["system_prompt"] = node.system_prompt
        made: dict[str, Any] = {
            "status": "complete",
            **about,
            "id": message_id,
            "parent_id": last.spoken_in if last else None,
            "role": node.message.side,
            "content": "\n\n".join(
                said.message.text for said in reversed(run) if said.message.text
            ),
            "created_at": run[-1].at,
        }
        self.messages.append(made)  # type: ignore[arg-type]  # the store checks what it is given

    def _shown(self, nodes: dict[str, _Node], current_id: str | None) -> tuple[str | None, str]:
        """The leaf below the node that was shown last, and the system prompt there."""
        newest = {message["parent_id"]: message["id"] for message in self.messages}
        node = nodes.get(current_id or "")
        shown = node.speaker.spoken_in if node and node.speaker else None
        while shown in newest and shown is not None:
            shown = newest[shown]
        prompts = {n.spoken_in: n.system_prompt for n in nodes.values() if n.speaker is n}
        shown = shown or (self.messages[-1]["id"] if self.messages else None)
        prompt = prompts.get(shown, "")
        return shown, prompt if len(prompt) <= _SYSTEM_PROMPT_CHARACTERS else ""

    def _take_room(self, characters: int) -> None:
        self._room -= characters
        if self._room < 0:
            reason = Phrase("its branches repeat their texts without end")
            raise ConversationUnreadable(reason=reason)


def _in_order(draft: Draft, began: datetime) -> Iterator[_Node]:
    """Every message once, a parent before its children, else by time and place in the file."""
    messages = _with_their_own_ids(draft)
    children: dict[str | None, list[str]] = {}
    missing = 0
    for message in messages.values():
        if message.parent_id is not None and message.parent_id not in messages:
            missing += 1
            message.parent_id = None
        children.setdefault(message.parent_id, []).append(message.id)
    if missing:
        draft.notes.append(Phrase("{count} messages whose parent is missing", count=missing))
    places = {its_id: place for place, its_id in enumerate(messages)}
    nodes: dict[str, _Node] = {}
    ready: list[tuple[datetime, int, DraftMessage]] = []

    def follow(parent_id: str | None, at: datetime) -> None:
        for child in (messages[its_id] for its_id in children.pop(parent_id, ())):
            if child.id not in nodes:
                heapq.heappush(ready, (child.created_at or at, places[child.id], child))

    follow(None, began)
    circles = 0
    beginnings: list[DraftMessage | None] = [None, *messages.values()]
    for beginning in beginnings:  # None: what hangs on a true beginning comes first
        if beginning is not None and beginning.id not in nodes:
            circles += 1
            opened = messages[_in_circle(messages, beginning.id)]
            opened.parent_id = None
            heapq.heappush(ready, (opened.created_at or began, places[opened.id], opened))
        while ready:
            at, _, said = heapq.heappop(ready)
            parent = nodes[said.parent_id] if said.parent_id is not None else None
            nodes[said.id] = _Node(said, parent, at)
            yield nodes[said.id]
            follow(said.id, at)
    if circles:
        draft.notes.append(Phrase("{count} circles of messages, opened", count=circles))


def _in_circle(messages: dict[str, DraftMessage], its_id: str) -> str:
    """A message of the circle that the links upward from this one end in."""
    seen = set[str]()
    while its_id not in seen:
        seen.add(its_id)
        its_id = str(messages[its_id].parent_id)
    return its_id


def _with_their_own_ids(draft: Draft) -> dict[str, DraftMessage]:
    """By id. A message with the id of another one gets one of its own."""
    messages: dict[str, DraftMessage] = {}
    for place, message in enumerate(draft.messages):
        if message.id in messages:
            message.id = f"{message.id}#{place}"
        messages[message.id] = message
    return messages


def _first_text(tree: _Tree) -> str:
    questions = (message["content"] for message in tree.messages if message["role"] == "user")
    return next(questions, tree.messages[0]["content"])


def _clipped(text: str, characters: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"
