"""What a page hands out, and how large it says that will be."""

from __future__ import annotations

from datetime import date

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from glm_backend.api.downloads import GOOD_FOR_S, Downloads, Offer
from glm_backend.errors import DownloadExpired
from glm_backend.services import Services
from glm_backend.store import ConversationFilter
from glm_backend.transfer import EXPORT_FORMS, Selection, export
from ui.export import Exported, expected_bytes
from ui.sizes import file_size


class Clock:
    """A clock that is set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def ids(services: Services) -> list[str]:
    made = [services.store.create_conversation(services.user_id).id for _ in range(12)]
    for i, each in enumerate(made):
        services.chat.send(services.user_id, each, f"question {i:02}").wait_saved(10)
    return made


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "markdown", "sharegpt", "openai"])
def test_the_size_that_is_said_is_about_that_of_the_file(
    services: Services, ids: list[str], form: str
) -> None:
    whole = sum(map(len, export(services.store, services.user_id, form)))
    expected, sampled = expected_bytes(
        services, form, Exported(services.user_id, Selection(), len(ids), ids[:4])
    )
    assert sampled
    assert whole * 0.7 < expected < whole * 1.5


def test_a_choice_in_the_trash_has_a_size_too(services: Services, ids: list[str]) -> None:
    services.store.delete(services.user_id, ids[:3])
    trash = Selection(filter=ConversationFilter(trash=True))
    what = Exported(services.user_id, trash, 3, ids[:3])
    assert expected_bytes(services, "csv", what)[0] > 300


def test_sizes_are_said_as_people_say_them() -> None:
    assert [file_size(n) for n in (1, 12_001, 3_400_000, 5 * 10**9)] == [
        "1 KB",
        "13 KB",
        "3.4 MB",
        "5.0 GB",
    ]


def _client(downloads: Downloads, services: Services) -> TestClient:
    app = Starlette(routes=[downloads.route(lambda: services)])
    return TestClient(app, base_url="http://chat.example", client=("203.0.113.7", 1234))


@pytest.mark.parametrize("form", EXPORT_FORMS)
def test_a_ticket_gives_the_file_wherever_the_browser_is(
    services: Services, ids: list[str], form: str
) -> None:
    downloads = Downloads()
    chosen = Selection((ids[2],), shown_only=True)
    answer = _client(downloads, services).get(
        downloads.address(Offer(services.user_id, form, chosen, bom=form == "csv"))
    )
    assert answer.status_code == 200
    assert EXPORT_FORMS[form].file_name(chosen) in answer.headers["content-disposition"]
    assert answer.content.startswith(b"\xef\xbb\xbf") == (form == "csv")
    if form == "markdown":
        assert "question 02" in answer.text
        assert "question 03" not in answer.text


def test_a_ticket_stays_the_same_while_the_page_stands_and_ends_after_an_hour(
    services: Services,
) -> None:
    clock = Clock()
    downloads = Downloads(clock)
    offer = Offer(services.user_id, "csv", Selection())
    address = downloads.address(offer)
    clock.now_s = GOOD_FOR_S - 1
    assert downloads.address(offer) == address
    assert downloads.address(Offer(services.user_id, "json", Selection())) != address
    clock.now_s = 2 * GOOD_FOR_S
    with pytest.raises(DownloadExpired):
        downloads.offer(address.rpartition("/")[2])
    assert _client(downloads, services).get(address).status_code == 404


def test_nothing_is_given_without_a_ticket(services: Services) -> None:
    answer = _client(Downloads(), services).get("/download/guessed")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "DownloadExpired"


def test_a_file_is_named_after_what_is_in_it() -> None:
    names = {
        name: form.file_name(Selection(("0123456789abcdef",)))
        for name, form in EXPORT_FORMS.items()
    }
    assert len(set(names.values())) == len(EXPORT_FORMS)
    assert names["json"] == "conversation-0123456789ab.json"
    assert names["sharegpt"] == "conversation-0123456789ab-sharegpt.json"
    assert EXPORT_FORMS["csv"].file_name(Selection()) == f"conversations-{date.today()}.csv"
