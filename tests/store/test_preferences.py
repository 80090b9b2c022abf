"""Settings and presets of a user."""

import pytest

from glm_backend.errors import InvalidParameter, UnknownPreset
from glm_backend.store import Store


def test_settings_are_set_changed_and_taken_back(store: Store, user_id: str) -> None:
    assert store.user_settings(user_id) == {}
    store.set_user_settings(user_id, {"temperature": 0.5, "language": "zh", "stop": ["。"]})
    store.set_user_settings(user_id, {"temperature": 0, "language": None, "never set": None})
    assert store.user_settings(user_id) == {"temperature": 0, "stop": ["。"]}
    assert store.user_settings(store.ensure_user("other")) == {}


def test_settings_are_set_together_or_not_at_all(store: Store, user_id: str) -> None:
    with pytest.raises(InvalidParameter):
        store.set_user_settings(user_id, {"temperature": 0.5, "system_prompt": "\ud800"})
    assert store.user_settings(user_id) == {}


def test_presets_are_saved_changed_listed_and_deleted(store: Store, user_id: str) -> None:
    store.save_preset(user_id, "  precise ", {"temperature": 0})
    store.save_preset(user_id, "创意", {"temperature": 1.2})
    saved = store.save_preset(user_id, "precise", {"temperature": 0.1})
    assert store.presets(user_id)[0] == saved
    assert [p.name for p in store.presets(user_id)] == ["precise", "创意"]
    assert store.presets(store.ensure_user("other")) == []
    store.delete_preset(user_id, "precise")
    assert [p.name for p in store.presets(user_id)] == ["创意"]
    with pytest.raises(UnknownPreset, match="precise"):
        store.delete_preset(user_id, "precise")


def test_a_preset_needs_a_name_of_reasonable_length(store: Store, user_id: str) -> None:
    for name in ("", "  ", "x" * 81):
        with pytest.raises(InvalidParameter, match="preset"):
            store.save_preset(user_id, name, {})
