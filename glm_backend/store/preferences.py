"""What a user decided once: settings by key, and named presets of generation parameters."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select

from glm_backend.errors import InvalidParameter, Phrase, UnknownPreset
from glm_backend.store.conversations import Room
from glm_backend.store.schema import presets, user_settings
from glm_backend.store.upserts import upsert
from glm_backend.store.values import Preset

_NAME_CHARACTERS = 80


class Preferences(Room):
    """Settings and presets of one user; what they mean is not known here."""

    def user_settings(self, user_id: str) -> dict[str, object]:
        """All settings that the user has made."""
        query = select(user_settings.c.key, user_settings.c.value)
        mine = query.where(user_settings.c.user_id == user_id)
        with self._database.reading() as connection:
            return {row.key: row.value for row in connection.execute(mine)}

    def set_user_settings(self, user_id: str, values: Mapping[str, object]) -> None:
        """Sets some of them, all or none; None takes a setting back."""
        table = user_settings.c
        with self._database.writing() as connection:
            for key, value in values.items():
                if value is None:
                    mine = (table.user_id == user_id, table.key == key)
                    connection.execute(delete(user_settings).where(*mine))
                else:
                    row = {"user_id": user_id, "key": key, "value": value}
                    upsert(connection, user_settings, row)

    def presets(self, user_id: str) -> list[Preset]:
        """The user's presets by name."""
        query = select(presets.c.name, presets.c.parameters, presets.c.created_at)
        mine = query.where(presets.c.user_id == user_id).order_by(presets.c.name)
        with self._database.reading() as connection:
            return [Preset(*row) for row in connection.execute(mine)]

    def save_preset(self, user_id: str, name: str, values: Mapping[str, object]) -> Preset:
        """Makes a preset, or changes the one of that name. Raises InvalidParameter for a name
        that is empty or long."""
        name = " ".join(name.split())
        if not 1 <= len(name) <= _NAME_CHARACTERS:
            allowed = Phrase("a name of 1 to {limit} characters", limit=_NAME_CHARACTERS)
            raise InvalidParameter(name=Phrase("preset"), value=repr(name[:40]), allowed=allowed)
        preset = Preset(name=name, values=dict(values), created_at=self.now())
        row = {"user_id": user_id, "name": name, "parameters": preset.values}
        with self._database.writing() as connection:
            upsert(connection, presets, {**row, "created_at": preset.created_at})
        return preset

    def delete_preset(self, user_id: str, name: str) -> None:
        """Raises UnknownPreset."""
        mine = (presets.c.user_id == user_id, presets.c.name == name)
        with self._database.writing() as connection:
            if not connection.execute(delete(presets).where(*mine)).rowcount:
                raise UnknownPreset(name=name)
