"""What deploy/ names is there: settings, options of Streamlit, and a proxy that keeps its word."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from streamlit import config

from glm_backend.api.openai import openai_routes
from glm_backend.api.security import require_loopback
from glm_backend.services import Services
from glm_backend.settings import field_names
from tests.browser.dashboard import free_port
from tests.fakes import ScriptedModel, fake_services
from tests.forms.servers import served

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
SERVICE = (DEPLOY / "glm-chat.service").read_text(encoding="utf-8")
PROXY = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")


def test_the_service_names_settings_and_options_that_there_are() -> None:
    named = re.findall(r"^Environment=GLM_(\w+)=", SERVICE, re.MULTILINE)
    assert named
    assert {name.lower() for name in named} <= set(field_names())
    options = re.findall(r"--([\w.]+)", SERVICE)
    assert len(options) == 2
    for option in options:
        config.get_option(option)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = fake_services(tmp_path / "data", ScriptedModel())
    yield opened
    opened.close()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_what_is_for_this_machine_only_is_refused_behind_the_proxy(
    services: Services, tmp_path: Path
) -> None:
    app = Starlette(routes=[openai_routes(lambda: services, guard=require_loopback)])
    port = free_port()
    with served(app) as address:
        site = re.sub(r"^ *(ssl_|auth_).*$", "", PROXY, flags=re.MULTILINE)
        site = site.replace("443 ssl", f"127.0.0.1:{port}")
        site = site.replace("http://127.0.0.1:8501", address)
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {tmp_path}/body; "
            f"proxy_temp_path {tmp_path}/proxy; fastcgi_temp_path {tmp_path}/f; "
            f"uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n{site}\n}}"
        )
        proxy = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf"])
        try:
            for _ in range(100):
                try:
                    handed_on = httpx2.get(f"http://127.0.0.1:{port}/v1/models")
                    break
                except httpx2.ConnectError:
                    time.sleep(0.05)
            assert httpx2.get(f"{address}/v1/models").status_code == 200
            assert handed_on.status_code == 403
        finally:
            proxy.terminate()
            proxy.wait()
