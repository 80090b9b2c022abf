"""Many threads at one store: nobody is turned away and nothing is lost."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from glm_backend.store import AnswerUpdate, ImportedConversation, ImportedMessage, Store
from glm_backend.store.conversations import new_id
from glm_backend.store.turns import Turns
from tests.store.crowd import gather, lost
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


def test_a_crowd_is_served_without_an_error_and_nothing_is_lost(store: Store, user_id: str) -> None:
    crowd = gather(store, user_id, seconds=2)
    assert crowd.errors == []
    assert crowd.writes > 50
    assert lost(store, user_id, crowd) == 0
    (used,) = store.usage(user_id)
    assert used.questions == used.answers == sum(map(len, crowd.said.values())) // 2


def test_writers_have_their_turn_in_the_order_in_which_they_came_but_for_a_hurry() -> None:
    queue, served = Turns(1), list[int]()
    assert queue.acquire(0)
    assert not queue.acquire(0.01)
    assert not queue.others_wait

    def write(number: int) -> None:
        assert queue.acquire(10, hurry=number == 4)
        served.append(number)
        queue.release()

    writers = []
    for number in range(5):
        writers.append(threading.Thread(target=write, args=(number,)))
        writers[-1].start()
        while len(queue._waiting) <= number:
            time.sleep(0.001)
    assert queue.others_wait
    queue.release()
    for writer in writers:
        writer.join()
    assert served == [4, 0, 1, 2, 3]
    assert queue.acquire(0)


def test_an_import_lets_others_write_in_between(sqlite_url: str) -> None:
    store = Store.open(sqlite_url)
    user = store.ensure_user("local")
    now = store.now()
    batch = [
        ImportedConversation(new_id(now), f"{n}", now, now, [_question(now) for _ in range(20)])
        for n in range(1000)
    ]
    importer = threading.Thread(target=list, args=(store.import_conversations(user, batch),))
    importer.start()
    made_before = []
    while importer.is_alive():
        store.create_conversation(user, title="mine")
        made_before.append(store.count_conversations(user))
        time.sleep(0.02)
    importer.join()
    assert len({count for count in made_before if count < 1000}) > 3
    assert store.count_conversations(user) == 1000 + len(made_before)
    store.close()


def _question(now: datetime) -> ImportedMessage:
    return ImportedMessage(
        id=new_id(now),
        parent_id=None,
        role="user",
        content="some words",
        status="complete",
        created_at=now,
    )
