"""Settings from a file and the environment: read once, and refused when they are wrong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import make_url

from glm_backend.errors import SettingsError
from glm_backend.settings import Settings


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No glm.toml of the machine that runs the tests takes part."""
    monkeypatch.chdir(tmp_path)


def test_defaults_need_nothing() -> None:
    assert Settings.load({}) == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "glm.toml").write_text('model = "a"\nmax_concurrent = 3\n', encoding="utf-8")
    settings = Settings.load({"GLM_MODEL": "b", "UNRELATED": "x"})
    assert (settings.model, settings.max_concurrent) == ("b", 3)


def test_another_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('quantization = "int8"\n', encoding="utf-8")
    assert Settings.load({"GLM_CONFIG": str(tmp_path / "other.toml")}).quantization == "int8"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"GLM_MODLE": "x"}, "GLM_MODEL"),
        ({"GLM_QUANTIZATION": "int2"}, "none, int8, int4"),
        ({"GLM_MAX_CONCURRENT": "0"}, "from 1 to 256"),
        ({"GLM_MAX_CONCURRENT": "many"}, "from 1 to 256"),
        ({"GLM_MAX_CONTEXT": "-5"}, "from 0"),
        ({"GLM_TRASH_DAYS": "soon"}, "from 0"),
        ({"GLM_DEVICE": "cuda:x"}, "cuda:N"),
        ({"GLM_UPSTREAM_URL": "http://host:abc/v1"}, "http://host:8000/v1"),
        ({"GLM_UPSTREAM_URL": "http://[::1"}, "http://host:8000/v1"),
        ({"GLM_UPSTREAM_URL": "localhost:8000"}, "http://host:8000/v1"),
        ({"GLM_UPSTREAM_API_KEY": "schlüssel"}, "something secret.*ASCII"),
        ({"GLM_DATA_DIR": "  "}, "folder"),
        ({"GLM_CONFIG": "missing.toml"}, "no such file"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name_and_the_remedy(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.load(environ)
    assert next(iter(environ)) in str(caught.value)


@pytest.mark.parametrize("text", ["model = ", "model = 3", "modell = 'x'", "max_context = true"])
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "glm.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"glm\.toml"):
        Settings.load({})


def test_a_secret_is_neither_shown_nor_quoted() -> None:
    url = "postgresql://glm:sk-secret@db/glm"
    settings = Settings.load({"GLM_UPSTREAM_API_KEY": "sk-secret", "GLM_DATABASE_URL": url})
    assert "sk-secret" not in repr(settings)
    for name, text in (("API_KEY", "sk-secret\n"), ("URL", "http://me:sk-secret@host:abc")):
        with pytest.raises(SettingsError) as caught:
            Settings.load({f"GLM_UPSTREAM_{name}": text})
        assert "sk-secret" not in str(caught.value)


def test_the_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    settings = Settings.load({"GLM_DATA_DIR": str(tmp_path / "new" / "data")})
    settings.make_data_dir()
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="GLM_DATA_DIR"):
        Settings.load({"GLM_DATA_DIR": str(tmp_path / "file")}).make_data_dir()


def test_a_data_folder_of_any_name_gives_a_database_in_it(tmp_path: Path) -> None:
    settings = Settings.load({"GLM_DATA_DIR": str(tmp_path / "a ?%41#b")})
    url = make_url(settings.resolved_database_url)
    assert url.database == str(tmp_path / "a ?%41#b" / "glm.sqlite3")


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "glm.toml"
    file.write_text("")
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(SettingsError, match="Permission denied"):
        Settings.load({"GLM_CONFIG": str(file)})


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(SettingsError, match="path of a folder"):
        Settings.load({"GLM_DATA_DIR": "~nobody-of-this-name/data"})
