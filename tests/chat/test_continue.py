"""An answer that was stopped or cut off is carried on from where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_backend.completion import Text
from glm_backend.engine.request import SamplingParams
from glm_backend.errors import AnswerComplete, UnknownMessage
from glm_backend.language_model import LanguageModel, ids_behind, load_model
from glm_backend.models.chatglm_language import open_tokenizer
from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel, Message, TextTokenizer
from glm_backend.models.tokenizer import FastTokenizer
from glm_backend.testing import FakeModel
from tests.chat.test_chat import Room
from tests.models import chatglm_tiny, test_ice_tokenizer, tiny

WORDS = [f"w{n} " for n in range(40)]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path, FakeModel(words=WORDS))
    yield room
    room.close()


def test_what_follows_stands_behind_what_was_there_and_both_versions_are_kept(room: Room) -> None:
    cut = room.ask("count", max_new_tokens=15)
    assert room.last().finish_reason == "length"
    again = room.chat.continue_answer(room.user, room.conversation, cut.message_id)
    assert again.wait_saved(10)
    assert "".join(again.tail()) == "".join(WORDS)
    assert room.texts() == [("user", "count"), ("assistant", "".join(WORDS))]
    assert (room.last().status, room.last().continues) == ("complete", cut.message_id)
    assert room.last().completion_tokens == 25
    before = room.store.path(room.user, room.conversation, cut.message_id)[-1]
    assert (before.content, before.continues) == ("".join(WORDS[:15]), None)
    asked = room.model.asked[-1][0]
    assert [m["content"] for m in asked] == ["count", "".join(WORDS[:15])]


def test_a_stopped_answer_is_carried_on_with_half_a_character_made_whole(room: Room) -> None:
    room.model.words = ["Smile ", "\N{REPLACEMENT CHARACTER}", *WORDS]
    room.model.pause_s = 0.02
    stopped = room.send("smile")
    for _ in zip(range(2), stopped.tail(), strict=False):
        pass
    room.chat.stop(room.conversation)
    kept = room.last()
    assert kept.status == "stopped"
    again = room.chat.continue_answer(room.user, room.conversation, stopped.message_id)
    assert again.text.startswith(kept.content.rstrip("\N{REPLACEMENT CHARACTER}"))
    room.chat.stop(room.conversation)
    assert room.store.path(room.user, room.conversation, stopped.message_id)[-1] == kept


def test_an_answer_stopped_before_its_first_word_is_given_anew(room: Room) -> None:
    room.model.delay_s = 30
    stopped = room.send("count")
    room.chat.stop(room.conversation)
    room.model.delay_s = 0
    again = room.chat.continue_answer(room.user, room.conversation, stopped.message_id)
    assert again.wait_saved(10)
    assert room.texts() == [("user", "count"), ("assistant", "".join(WORDS))]
    assert room.last().continues is None


def test_only_what_did_not_end_by_itself_is_carried_on(room: Room) -> None:
    whole = room.ask("count")
    question = room.store.path(room.user, room.conversation)[0]
    for message_id in (whole.message_id, question.id):
        with pytest.raises(AnswerComplete):
            room.chat.continue_answer(room.user, room.conversation, message_id)
    with pytest.raises(UnknownMessage):
        room.chat.continue_answer(room.user, room.conversation, "nothing")
    assert len(room.store.versions(room.user, room.conversation)) == 2


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextTokenizer]:
    path = tmp_path_factory.mktemp("chatglm") / "tokenizer.model"
    path.write_bytes(chatglm_tiny.tokenizer_model())
    return {
        "chatglm2": open_tokenizer(path, "chatglm2"),
        "chatglm3": open_tokenizer(path, "chatglm3"),
        "bytes": FastTokenizer(tiny.byte_level_tokenizer()),
        "leading space": FastTokenizer(tiny.byte_fallback_tokenizer()),
    }


@pytest.mark.parametrize("name", ["chatglm2", "chatglm3", "bytes", "leading space"])
@settings(deadline=None)
@given(text=st.text("The quick fox\n 你好，世界。", min_size=1))
def test_text_behind_other_text_gets_no_space_in_front(
    tokenizers: dict[str, TextTokenizer], name: str, text: str
) -> None:
    tokenizer = tokenizers[name]
    stream = tokenizer.detokenizer()
    shown = [stream.push(token_id) for token_id in tokenizer.encode("he said: ")]
    shown += [stream.push(token_id) for token_id in ids_behind(tokenizer, text)]
    assert "".join([*shown, stream.finish()]) == f"he said: {text}"


GLM4_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def published(folder: Path, name: str) -> Path:
    """A small ChatGLM2 or ChatGLM3 with a tokenizer."""
    config = chatglm_tiny.config(_name_or_path=f"THUDM/{name}-6b")
    chatglm_tiny.save(folder, config, chatglm_tiny.weights(config))
    return folder


@pytest.mark.parametrize("kind", ["chatglm2", "chatglm3", "like GLM-4", "another template"])
def test_a_begun_answer_stands_where_a_whole_one_does(tmp_path: Path, kind: str) -> None:
    if kind.startswith("chatglm"):
        published(tmp_path, kind)
    else:
        tiny.make(tmp_path, template=GLM4_TEMPLATE if "GLM" in kind else tiny.TEMPLATE)
    model = load_model(str(tmp_path))
    asked: Message = {"role": "user", "content": "Hi"}
    begun: Message = {"role": "assistant", "content": "the quick 你好"}
    prompt, ids = model._prompt_and_beginning([asked, begun])
    whole = model.prompt_ids([asked, begun, asked])
    model.close()
    assert [*prompt, *ids] == whole[: len(prompt) + len(ids)]
    assert prompt == whole[: len(prompt)] and len(ids) > 3


def test_a_begun_answer_of_the_first_chatglm_is_a_text_by_itself(tmp_path: Path) -> None:
    model = load_model(str(test_ice_tokenizer.folder(tmp_path / "chatglm-6b")))
    assert model.tokenizer is not None
    asked: Message = {"role": "user", "content": "Hi"}
    _, ids = model._prompt_and_beginning([asked, {"role": "assistant", "content": "你好"}])
    model.close()
    assert ids == model.tokenizer.encode("你好")  # as the answers that it was trained on


@pytest.mark.starter
def test_the_starter_model_goes_on_as_if_it_had_never_stopped(
    starter: LoadedModel, model_dir: Path
) -> None:
    model = LanguageModel(load(starter.id, model_dir=model_dir))
    params = SamplingParams(temperature=0, max_new_tokens=24)
    asked = [{"role": "user", "content": "Name the days of the week."}]

    def said(*messages: dict[str, str]) -> str:
        events = model.complete([*asked, *messages], params).events()  # type: ignore[list-item]
        return "".join(event.text for event in events if isinstance(event, Text))

    whole = said()
    begun = whole[: len(whole) // 2]
    assert (begun + said({"role": "assistant", "content": begun})).startswith(whole)
    model.close()
