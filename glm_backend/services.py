"""Puts the rooms together: one store, one model manager, one chat service for a process.

Every way in (the dashboard, the command line, the tests) opens the same `Services`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from glm_backend.chat import ChatService
from glm_backend.completion import Completer
from glm_backend.errors import ModelNotReady, UpstreamError
from glm_backend.models.manager import ModelManager, ModelRequest
from glm_backend.models.model import Quantization
from glm_backend.remote_model import RemoteModel
from glm_backend.settings import Settings
from glm_backend.store.store import Store

if TYPE_CHECKING:
    from glm_backend.engine.stats import EngineStats
    from glm_backend.language_model import LanguageModel
    from glm_backend.models.model import LoadedModel

#: Who everybody is until there is sign-in.
LOCAL_USER = "local"
#: How long a server that could not be reached is not asked again.
_REST_S = 3.0


class Services:
    """What a process has one of. `user_id` is the one user there is until there is sign-in."""

    def __init__(self, settings: Settings) -> None:
        """Opens the database; raises SettingsError or StoreError. Loads no model yet."""
        settings.make_data_dir()
        self.settings = settings
        self.store = Store.open(settings.resolved_database_url)
        self.models: ModelManager[LanguageModel] = ModelManager(
            self._open_runtime,
            model_dir=settings.resolved_model_dir,
            hub_endpoint=settings.hub_endpoint or None,
        )
        self.chat = ChatService(self.store, self.model, trash_days=settings.trash_days)
        self.user_id = self.store.ensure_user(LOCAL_USER)
        self._remote: RemoteModel | None = None
        self._refused: UpstreamError | None = None
        self._refused_until_s = 0.0
        self._connecting = threading.Lock()

    @property
    def default_request(self) -> ModelRequest:
        """The model that the operator's settings name."""
        return request_for(self.settings, self.settings.model, self.settings.quantization)

    @property
    def is_admin(self) -> bool:
        """True when the user may read what everybody has: without sign-in it is who runs this."""
        return True

    @property
    def is_remote(self) -> bool:
        """True when another server writes the answers (GLM_UPSTREAM_URL)."""
        return bool(self.settings.upstream_url)

    def model(self) -> Completer:
        """The model that answers now; raises ModelNotReady, or UpstreamError for another server."""
        return self._upstream() if self.is_remote else self.models.current()

    def engine_stats(self) -> EngineStats | None:
        """How busy the engine of this process is; None without a model in it."""
        try:
            return self.models.current().stats()
        except ModelNotReady:
            return None

    def load_default_model(self) -> None:
        """Begins to load the operator's model, unless another server answers."""
        if not self.is_remote:
            self.models.load(self.default_request)

    def close(self) -> None:
        """Ends answers as stopped and saves them, lets the model go, closes the database."""
        self.chat.close()
        self.models.close()
        if self._remote is not None:
            self._remote.close()
        self.store.close()

    def _open_runtime(self, model: LoadedModel) -> LanguageModel:
        # Late: torch and transformers take seconds to import, and pages can be shown without them.
        from glm_backend.language_model import LanguageModel

        return LanguageModel(model, max_concurrent=self.settings.max_concurrent)

    def _upstream(self) -> RemoteModel:
        asked_s = time.monotonic()
        with self._connecting:
            if self._remote is None or self._remote.lost:
                # Whoever waited here while another tried takes what that one was told.
                if self._refused is not None and asked_s < self._refused_until_s:
                    raise UpstreamError(**self._refused.details)
                self._remote = self._connected()
            return self._remote

    def _connected(self) -> RemoteModel:
        settings = self.settings
        named = settings.model != Settings().model  # else the first that is offered
        try:
            return RemoteModel.connect(
                settings.upstream_url,
                settings.upstream_api_key,
                model=settings.model if named else "",
                max_context=settings.max_context,
            )
        except UpstreamError as error:
            self._refused, self._refused_until_s = error, time.monotonic() + _REST_S
            raise


def request_for(settings: Settings, model: str, quantization: Quantization) -> ModelRequest:
    """A model loaded as the settings say. Family and ptuning are of the model that they name."""
    named = model == settings.model
    return ModelRequest(
        model=model,
        quantization=quantization,
        device=settings.device,
        dtype=settings.dtype,
        max_context=settings.max_context,
        family=settings.family if named else "",
        ptuning=settings.ptuning if named else "",
    )
