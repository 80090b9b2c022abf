"""Conversations from other programs, as these write them."""

from __future__ import annotations

from typing import Any

import pytest

from glm_backend.store import Store
from tests.transfer.imported import exported, imported, tree


def _chatgpt_node(
    its_id: str, parent: str | None, role: str, *parts: object, **message: object
) -> dict[str, Any]:
    content = {"content_type": "text", "parts": list(parts)}
    said = {"id": its_id, "author": {"role": role, "name": None, "metadata": {}},
            "create_time": None, "content": content, "status": "finished_successfully",
            "metadata": {}}  # fmt: skip
    return {"id": its_id, "parent": parent, "children": [], "message": {**said, **message}}


def _chatgpt(*nodes: dict[str, Any], **fields: object) -> dict[str, Any]:
    root = {"id": "root", "parent": None, "children": [], "message": None}
    return {
        "title": "Rainbows",
        "create_time": 1700000000.123456,
        "update_time": 1700000100.5,
        "mapping": {node["id"]: node for node in [root, *nodes]},
        "current_node": nodes[-1]["id"],
        "conversation_id": "6b0f0d9c-0000-4000-8000-000000000001",
        **fields,
    }


def test_chatgpt_with_its_branches_and_the_shown_one(store: Store, user_id: str) -> None:
    system = _chatgpt_node("s", "root", "system", "Be brief.")
    question = _chatgpt_node("q", "s", "user", "How do rainbows form?", create_time=1700000001.0)
    abandoned = _chatgpt_node("a1", "q", "assistant", "By magic.", create_time=1700000002)
    answer = _chatgpt_node(
        "a2", "q", "assistant", "By refraction.", create_time=1700000003.25,
        metadata={"model_slug": "gpt-4o", "finish_details": {"type": "stop"}},
    )  # fmt: skip
    more = _chatgpt_node("q2", "a2", "user", "And then?", create_time=1700000004.0)
    last = _chatgpt_node("a3", "q2", "assistant", "That is all.", create_time=1700000005.0)
    shown = _chatgpt(system, more, last, question, answer, abandoned, current_node="a3")
    report = imported(store, user_id, [shown])
    assert dict(report.counts) == {"imported": 1}
    (entry,) = report.entries
    assert (entry.position, entry.title, entry.form, entry.messages) == (
        1, "Rainbows", "chatgpt", 5,
    )  # fmt: skip
    (conversation,) = exported(store, user_id)
    assert tree(conversation) == [
        "0 > u: How do rainbows form?",
        "1 > a: By magic.",
        "1 > a: By refraction.",
        "3 > u: And then?",
        "4 > a: That is all. *",
    ]
    assert conversation["title"] == "Rainbows"
    assert conversation["source"] == "chatgpt"
    assert conversation["created_at"] == "2023-11-14T22:13:20.123456Z"
    assert conversation["updated_at"] == "2023-11-14T22:15:00.500000Z"
    assert conversation["settings"] == {"system_prompt": "Be brief."}
    _, other, kept, *_ = conversation["messages"]
    assert (other["branch"], kept["branch"], kept["turn"]) == (1, 2, 1)
    assert kept["model"] == "gpt-4o"
    assert kept["finish_reason"] == "stop"
    assert kept["system_prompt"] == "Be brief."
    assert kept["created_at"] == "2023-11-14T22:13:23.250000Z"


def test_what_chatgpt_did_before_it_answered_is_part_of_the_answer(
    store: Store, user_id: str
) -> None:
    code = {"content_type": "code", "language": "python", "text": "print(1)"}
    output = {"content_type": "execution_output", "text": "1"}
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "x", "content": "Hm.\nYes."}]}
    context = {"content_type": "user_editable_context", "user_instructions": "Answer in Latin."}
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    imported(
        store,
        user_id,
        [
            _chatgpt(
                _chatgpt_node("c", "root", "user", content=context),
                _chatgpt_node("q", "c", "user", image, "What is this?"),
                _chatgpt_node("t", "q", "assistant", content=thoughts),
                _chatgpt_node("code", "t", "assistant", content=code, recipient="python"),
                _chatgpt_node("run", "code", "tool", content=output),
                _chatgpt_node("a", "run", "assistant", "One."),
            )
        ],
    )
    (conversation,) = exported(store, user_id)
    question, answer = conversation["messages"]
    assert question["content"] == "[image_asset_pointer]\n\nWhat is this?"
    assert answer["content"] == (
        "> Hm.\n> Yes.\n\n```python\nprint(1)\n```\n\n> ```\n> 1\n> ```\n\nOne."
    )
    assert answer["system_prompt"] == "Answer in Latin."


def test_an_attachment_that_cannot_be_taken_is_reported(store: Store, user_id: str) -> None:
    image = {"content_type": "image_asset_pointer"}
    report = imported(store, user_id, [_chatgpt(_chatgpt_node("q", "root", "user", image, "See"))])
    assert [str(note) for note in report.entries[0].notes] == [
        "an attachment ('image_asset_pointer') was left behind"
    ]


def _open_webui_chat() -> dict[str, Any]:
    messages = {
        "1": {"id": "1", "parentId": None, "childrenIds": ["2", "3"], "role": "user",
            "content": "天空为什么是蓝色的？", "timestamp": 1700000000},
        "2": {"id": "2", "parentId": "1", "childrenIds": [], "role": "assistant",
            "content": "散射。", "model": "glm4:9b", "done": True, "timestamp": 1700000001,
            "annotation": {"rating": 1, "comment": "好"},
            "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
        "3": {"id": "3", "parentId": "1", "childrenIds": [], "role": "assistant", "content": "",
            "model": "glm4:9b", "done": True, "timestamp": 1700000002,
            "error": {"content": "out of memory"}},
        "4": {"id": "4", "parentId": "2", "childrenIds": [], "role": "user", "content": "Short?",
            "timestamp": 1700000003},
        "5": {"id": "5", "parentId": "4", "childrenIds": [], "role": "assistant", "content": "Sca",
            "done": False, "timestamp": 1700000004},
    }  # fmt: skip
    return {
        "title": "Sky",
        "models": ["glm4:9b"],
        "params": {"system": "Physics only."},
        "history": {"currentId": "5", "messages": messages},
    }


def test_open_webui_with_tags_pin_and_what_was_thought_of_an_answer(
    store: Store, user_id: str
) -> None:
    chat = _open_webui_chat()
    outer = {"id": "c1", "title": "Sky", "chat": chat, "meta": {"tags": ["science", "天空"]},
             "pinned": True, "archived": True, "created_at": 1700000000,
             "updated_at": 1700000009}  # fmt: skip
    imported(store, user_id, [outer])
    (conversation,) = exported(store, user_id)
    assert tree(conversation) == [
        "0 > u: 天空为什么是蓝色的？",
        "1 > a: 散射。",
        "1 > a: ",
        "2 > u: Short?",
        "4 > a: Sca *",
    ]
    assert conversation["tags"] == ["science", "天空"]
    assert (conversation["pinned"], conversation["source"]) == (True, "open-webui")
    assert conversation["archived_at"] == conversation["updated_at"]
    assert conversation["settings"] == {"system_prompt": "Physics only."}
    _, rated, failed, _, last = conversation["messages"]
    assert (failed["status"], failed["error"]) == ("failed", "out of memory")
    assert (rated["rating"], rated["comment"], rated["model"]) == (1, "好", "glm4:9b")
    assert (rated["prompt_tokens"], rated["completion_tokens"]) == (12, 3)
    assert last["status"] == "interrupted"


def test_open_webui_as_it_exported_once(store: Store, user_id: str) -> None:
    """A bare chat; and, older still, a list of messages in place of the tree."""
    linear = {"id": "old", "title": "Old", "messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
    ]}  # fmt: skip
    imported(store, user_id, [_open_webui_chat()])
    imported(store, user_id, [{"chat": linear}])
    sky, old = sorted(exported(store, user_id), key=lambda c: str(c["title"]), reverse=True)
    assert len(tree(sky)) == 5
    assert tree(old) == ["0 > u: q", "1 > a: a *"]


def _librechat(*messages: dict[str, Any], **fields: object) -> dict[str, Any]:
    return {
        "conversationId": "4a86c40e-e627-4454-b158-889680e23ad3",
        "endpoint": "openAI",
        "title": "venv",
        "exportAt": "13:18:04 GMT-0400 (Eastern Daylight Time)",
        "branches": True,
        "recursive": False,
        "options": {"model": "gpt-4-turbo", "promptPrefix": "You are an engineer."},
        "messages": list(messages),
        **fields,
    }


def _said(its_id: str, parent: str, text: str, *, asked: bool, **more: object) -> dict[str, Any]:
    return {"messageId": its_id, "parentMessageId": parent, "text": text,
            "isCreatedByUser": asked, "sender": "x", **more}  # fmt: skip


_NOBODY = "00000000-0000-0000-0000-000000000000"


def test_librechat_flat_with_branches(store: Store, user_id: str) -> None:
    imported(
        store,
        user_id,
        _librechat(
            _said("q", _NOBODY, "tell", asked=True, createdAt="2024-05-28T18:08:55.014Z"),
            _said("a", "q", "Once", asked=False, unfinished=True, model="gpt-4o",
                createdAt="2024-05-28T18:08:56Z"),
            _said("b", "q", "Of old", asked=False, finish_reason="stop", tokenCount=7,
                createdAt="2024-05-28T18:08:57Z",
                feedback={"rating": "thumbsDown", "text": "dull"}),
            _said("r", _NOBODY, "tell more", asked=True, createdAt="2024-05-28T18:09:55Z"),
            _said("e", "r", "quota", asked=False, error=True, createdAt="2024-05-28T18:09:56Z"),
        ),
    )  # fmt: skip
    (conversation,) = exported(store, user_id)
    assert tree(conversation) == [
        "0 > u: tell",
        "1 > a: Once",
        "1 > a: Of old",
        "0 > u: tell more",
        "4 > a:  *",
    ]
    _, once, old, _, failed = conversation["messages"]
    assert (once["status"], once["model"]) == ("stopped", "gpt-4o")
    assert (old["model"], old["finish_reason"], old["completion_tokens"]) == (
        "gpt-4-turbo", "stop", 7,
    )  # fmt: skip
    assert (old["rating"], old["comment"]) == (-1, "dull")
    assert (failed["status"], failed["error"]) == ("failed", "quota")
    assert old["system_prompt"] == "You are an engineer."
    assert conversation["created_at"] == "2024-05-28T18:08:55.014000Z"


@pytest.mark.parametrize("name", ["messages", "messagesTree"])
def test_librechat_nested(store: Store, user_id: str, name: str) -> None:
    answers = [
        _said("a", "q", "One", asked=False),
        _said("b", "q", "Two", asked=False, children=[_said("r", "b", "thanks", asked=True)]),
    ]
    nested = _said("q", _NOBODY, "count", asked=True, children=answers)
    whole = _librechat(recursive=True)
    del whole["messages"]
    imported(store, user_id, whole | {name: [nested]})
    (conversation,) = exported(store, user_id)
    assert tree(conversation) == ["0 > u: count", "1 > a: One", "1 > a: Two", "3 > u: thanks *"]


def test_librechat_in_parts(store: Store, user_id: str) -> None:
    parts = [
        {"type": "think", "think": "Easy."},
        {"type": "text", "text": "Four."},
        {"type": "tool_call", "tool_call": {"name": "add", "args": "{}"}},
        {"type": "image_file", "image_file": {}},
    ]
    said = _said("a", "q", "", asked=False, content=parts)
    imported(store, user_id, _librechat(_said("q", _NOBODY, "2+2?", asked=True), said))
    answer = exported(store, user_id)[0]["messages"][1]["content"]
    assert answer.startswith("> Easy.\n\nFour.\n\n```json\n")
    assert '"name": "add"' in answer
    assert answer.endswith("[image_file]")


def test_a_question_that_is_only_a_picture_keeps_its_place(store: Store, user_id: str) -> None:
    def node(n: str, parent: str | None, role: str, text: str, **more: object) -> dict[str, Any]:
        return {"id": n, "parentId": parent, "role": role, "content": text, **more}

    nodes = [node("1", None, "user", "Hi"), node("2", "1", "assistant", "Hello."),
             node("3", "2", "user", "", files=[{"type": "image", "url": "data:…"}]),
             node("4", "3", "assistant", "A cat.")]  # fmt: skip
    chat = {"history": {"currentId": "4", "messages": {n["id"]: n for n in nodes}}}
    picture = {"file_id": "f", "filename": "cat.png", "type": "image/png"}
    found = {"type": "web_search"}
    shared = _librechat(
        _said("1", _NOBODY, "Hi", asked=True),
        _said("2", "1", "Hello.", asked=False),
        _said("3", "2", "", asked=True, files=[picture]),
        _said("4", "3", "A cat.", asked=False, attachments=[found]),
    )
    (first,) = imported(store, user_id, [chat]).entries
    (second,) = imported(store, user_id, shared).entries
    texts = [tree(conversation) for conversation in exported(store, user_id)]
    begins = ["0 > u: Hi", "1 > a: Hello."]
    assert sorted(texts) == [
        [*begins, "2 > u: [cat.png]", "3 > a: A cat.\n\n[web_search] *"],
        [*begins, "2 > u: [image]", "3 > a: A cat. *"],
    ]
    assert [str(note) for note in (*first.notes, *second.notes)] == [
        f"an attachment ({kind!r}) was left behind" for kind in ("image", "cat.png", "web_search")
    ]


def test_sharegpt(store: Store, user_id: str) -> None:
    turns = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "你好"},
        {"from": "gpt", "value": "你好！"},
        {"from": "human", "value": "再见"},
    ]
    report = imported(store, user_id, [{"id": "x_0", "conversations": turns}])
    assert report.entries[0].form == "sharegpt"
    (conversation,) = exported(store, user_id)
    assert tree(conversation) == ["0 > u: 你好", "1 > a: 你好！", "2 > u: 再见 *"]
    assert conversation["title"] == "你好"
    assert conversation["messages"][1]["system_prompt"] == "Be kind."


def test_openai_messages_by_the_line(store: Store, user_id: str) -> None:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {}}]
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]}
    lines = [
        b'{"messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":"q"},'
        b'{"role":"assistant","content":"a"}]}',
    ]
    imported(store, user_id, b"\n".join(lines))
    looking = [{"role": "user", "content": parts}, called, {"role": "tool", "content": "A cat."},
               {"role": "assistant", "content": "A cat it is."}]  # fmt: skip
    report = imported(store, user_id, {"messages": looking, "title": "Cat"})
    assert report.entries[0].form == "openai"
    first, second = sorted(exported(store, user_id), key=lambda c: len(str(c["messages"])))
    assert tree(first) == ["0 > u: q", "1 > a: a *"]
    assert first["settings"] == {"system_prompt": "Be brief."}
    assert second["title"] == "Cat"
    question, answer = second["messages"]
    assert question["content"] == "What is it?\n\n[image_url]"
    assert '"look"' in answer["content"]
    assert answer["content"].endswith("> A cat.\n\nA cat it is.")


def test_openai_messages_with_thoughts_and_refusals(store: Store, user_id: str) -> None:
    part = {"type": "refusal", "refusal": "No more."}
    turns = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "reasoning_content": "I add.\nTwice.", "content": "4"},
        {"role": "user", "content": "3+3?"},
        {"role": "assistant", "reasoning": "Again.", "content": "6"},
        {"role": "user", "content": "bad?"},
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "user", "content": "worse?"},
        {"role": "assistant", "content": [part]},
    ]
    imported(store, user_id, {"messages": turns})
    (conversation,) = exported(store, user_id)
    assert [message["content"] for message in conversation["messages"][1::2]] == [
        "> I add.\n> Twice.\n\n4",
        "> Again.\n\n6",
        "I cannot.",
        "No more.",
    ]


@pytest.mark.parametrize(
    "value",
    [
        [["你好", "你好！"], ["再见", "再见！"]],
        {"history": [["你好", "你好！"], ["再见", "再见！"]]},
        {"response": "再见！", "history": [["你好", "你好！"], ["再见", "再见！"]], "status": 200},
        [
            {"role": "user", "content": "你好"},
            {"role": "assistant", "metadata": "", "content": "你好！"},
            {"role": "user", "content": "再见"},
            {"role": "assistant", "metadata": "", "content": "再见！"},
        ],
    ],
    ids=["pairs", "in an object", "of api.py", "of ChatGLM3"],
)
def test_histories_of_chatglm(store: Store, user_id: str, value: object) -> None:
    report = imported(store, user_id, value)
    assert [entry.form for entry in report.entries] == ["history"]
    (conversation,) = exported(store, user_id)
    assert tree(conversation) == [
        "0 > u: 你好",
        "1 > a: 你好！",
        "2 > u: 再见",
        "3 > a: 再见！ *",
    ]


def test_the_name_of_a_model_is_cut_where_no_model_has_such_a_one(
    store: Store, user_id: str
) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    report = imported(store, user_id, {"messages": turns, "model": "m" * 9000})
    assert exported(store, user_id)[0]["messages"][1]["model"] == "m" * 199 + "…"
    notes = [str(note) for note in report.entries[0].notes]
    assert notes == ["1 names of models were too long and cut"]


def test_a_history_without_its_last_answer(store: Store, user_id: str) -> None:
    imported(store, user_id, [["q", "a"], ["q2", None]])
    assert tree(exported(store, user_id)[0]) == ["0 > u: q", "1 > a: a", "2 > u: q2 *"]


def test_several_histories_in_one_file(store: Store, user_id: str) -> None:
    report = imported(store, user_id, [[["q", "a"]], [["q", "b"]]])
    assert report.counts["imported"] == 2
    report = imported(store, user_id, b'[["q","a"]]\n[["q","c"]]\n')
    assert (report.counts["known"], report.counts["imported"]) == (1, 1)


def test_a_named_form_refuses_the_others(store: Store, user_id: str) -> None:
    report = imported(store, user_id, [_open_webui_chat()], "chatgpt")
    assert report.counts["refused"] == 1
    assert report.failed
    assert "it has not the form chatgpt" in str(report.entries[0].error)
    assert imported(store, user_id, [_open_webui_chat()], "open-webui").counts["imported"] == 1


def test_forms_may_be_mixed_in_one_file(store: Store, user_id: str) -> None:
    mixed = [_open_webui_chat(), _chatgpt(_chatgpt_node("q", "root", "user", "x")), {"a": 1}]
    report = imported(store, user_id, mixed)
    assert [(e.position, e.form, e.outcome) for e in report.entries] == [
        (1, "open-webui", "imported"),
        (2, "chatgpt", "imported"),
        (3, "", "refused"),
    ]


@pytest.mark.parametrize(
    "value",
    [
        [_chatgpt(_chatgpt_node("q", "root", "user", "x"))],
        [_open_webui_chat()],
        _librechat(_said("q", _NOBODY, "x", asked=True)),
        [{"conversations": [{"from": "human", "value": "x"}]}],
        {"messages": [{"role": "user", "content": "x"}]},
        [["q", "a"]],
    ],
    ids=["chatgpt", "open-webui", "librechat", "sharegpt", "openai", "history"],
)
def test_a_file_imported_twice_adds_nothing_and_each_user_has_their_own(
    store: Store, user_id: str, value: object
) -> None:
    assert imported(store, user_id, value).counts["imported"] == 1
    again = imported(store, user_id, value)
    assert dict(again.counts) == {"known": 1}
    assert again.messages == 0
    other = store.ensure_user("other")
    assert imported(store, other, value).counts["imported"] == 1
    mine, theirs = exported(store, user_id)[0], exported(store, other)[0]
    assert mine["id"] != theirs["id"]
    assert not {m["message_id"] for m in mine["messages"]} & {
        m["message_id"] for m in theirs["messages"]
    }
