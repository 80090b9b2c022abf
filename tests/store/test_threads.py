"""Many threads at one store: nobody is turned away and nothing is lost."""

from concurrent.futures import ThreadPoolExecutor

from glm_backend.store import AnswerUpdate, Store
from tests.store.talk import ANSWER, finished


def test_writers_and_readers_work_beside_each_other(store: Store, user_id: str) -> None:
    ids = [store.create_conversation(user_id).id for _ in range(8)]

    def write(conversation_id: str) -> None:
        parent_id = None
        for n in range(10):
            _, answer = store.begin_turn(user_id, conversation_id, parent_id, f"q{n}", ANSWER, "me")
            store.write_answers([AnswerUpdate(answer.id, "half")])
            store.write_answers([finished(answer, f"a{n}")])
            parent_id = answer.id

    def read(conversation_id: str) -> None:
        for _ in range(30):
            path = store.path(user_id, conversation_id)
            assert len(path) % 2 == 0
            store.list_conversations(user_id, limit=10)

    with ThreadPoolExecutor(16) as pool:
        work = [pool.submit(do, i) for i in ids for do in (write, read)]
        for task in work:
            task.result()
    expected = [text for n in range(10) for text in (f"q{n}", f"a{n}")]
    for conversation_id in ids:
        assert [m.content for m in store.path(user_id, conversation_id)] == expected


def test_two_tabs_that_ask_at_once_make_two_branches(store: Store, user_id: str) -> None:
    conversation_id = store.create_conversation(user_id).id
    with ThreadPoolExecutor(16) as pool:
        turns = list(
            pool.map(
                lambda n: store.begin_turn(user_id, conversation_id, None, f"{n}", ANSWER, "me"),
                range(16),
            )
        )
    assert sorted(question.branch for question, _ in turns) == list(range(1, 17))
    seqs = [message.seq for turn in turns for message in turn]
    assert sorted(seqs) == list(range(1, 33))
