"""A person at a WordPress site, over HTTP: logs in, posts, uploads, installs a plugin, asks for a new password.

It talks to the address that the proxy listens on and names the site in the Host header, so no name has to resolve.
"""

from __future__ import annotations

import html
import io
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter


class NotDone(AssertionError):
    """WordPress answered, but not with what a person would call done."""


class _NamedAdapter(HTTPAdapter):
    """TLS for the name in the Host header, whatever address is connected to."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self.name, assert_hostname=self.name, **kwargs)


class WordPress:
    """A browser's session at one site.

    `base_url` is where to connect, e.g. https://127.0.0.1:8443; `host` the Host header, e.g. blog.acme.test:8443;
    `verify` the file with the authority to trust, or False.
    """

    def __init__(self, base_url: str, host: str, *, verify: bool | str = True, timeout: float = 30) -> None:
        self.base_url, self.host, self.timeout = base_url.rstrip("/"), host, timeout
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = verify
        self.session.mount("https://", _NamedAdapter(host.partition(":")[0]))

    def page(self, path: str = "/", *, follow: bool = True) -> requests.Response:
        """GET a page of the site."""
        return self._request("GET", path, follow=follow)

    def login(self, user: str, password: str) -> None:
        """Through the form, up to the dashboard. Raises NotDone when WordPress refuses."""
        self.page("/wp-login.php")  # sets the cookie that the form asks for
        form = {"log": user, "pwd": password, "wp-submit": "Log In", "testcookie": "1", "redirect_to": "/wp-admin/"}
        answer = self._request("POST", "/wp-login.php", data=form)
        if 'id="wpadminbar"' not in answer.text:
            error = re.search(r'id="login_error">(.*?)</div>', answer.text, re.DOTALL)
            said = re.sub(r"<[^>]*>", "", error[1]).strip() if error else answer.url
            raise NotDone(f"login of {user}: {answer.status_code} {said}")

    def create_post(self, title: str, content: str, *, at: datetime | None = None) -> dict[str, Any]:
        """Publish a post, now or by the timer at `at` (over a minute ahead); returns its `id`, `link`, `status` and so on."""
        post = {"title": title, "content": content, "status": "publish" if at is None else "future"}
        if at is not None:
            post["date_gmt"] = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return self._rest("/wp/v2/posts", json=post)

    def post(self, number: int) -> dict[str, Any]:
        """What the REST interface says of a post."""
        return self._rest(f"/wp/v2/posts/{number}", method="GET", params={"context": "edit"})

    def upload(self, name: str, content: bytes, mime: str) -> str:
        """Put a file into the media library; its address."""
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": mime}
        return str(self._rest("/wp/v2/media", data=content, headers=headers)["source_url"])

    def install_plugin(self, archive: bytes) -> None:
        """Upload a plugin as a zip in the dashboard, and activate it."""
        form = self.page("/wp-admin/plugin-install.php?tab=upload").text
        nonce = _found(r'name="_wpnonce" value="([^"]+)"', form, "the form for uploading plugins")
        answer = self._request(
            "POST",
            "/wp-admin/update.php?action=upload-plugin",
            data={"_wpnonce": nonce, "install-plugin-submit": "Install Now"},
            files={"pluginzip": ("plugin.zip", archive, "application/zip")},
        )
        link = _found(r'href="(plugins\.php\?action=activate[^"]+)"', answer.text, "the link that activates the plugin")
        active = self.page(f"/wp-admin/{html.unescape(link)}")
        if active.status_code != 200 or "error" in urlsplit(active.url).query:
            raise NotDone(f"activating the plugin: {active.status_code} {active.url}")

    def ask_for_password(self, user: str) -> None:
        """Have WordPress send the letter for a forgotten password."""
        form = {"user_login": user, "redirect_to": "", "wp-submit": "Get New Password"}
        answer = self._request("POST", "/wp-login.php?action=lostpassword", data=form, follow=False)
        if "checkemail=confirm" not in answer.headers.get("Location", ""):
            raise NotDone(f"no letter was sent: {answer.status_code}")

    def _rest(
        self, route: str, *, method: str = "POST", headers: Mapping[str, str] = {}, **more: Any
    ) -> dict[str, Any]:
        nonce = self.page("/wp-admin/admin-ajax.php?action=rest-nonce").text.strip()
        answer = self._request(method, f"/wp-json{route}", headers={"X-WP-Nonce": nonce, **headers}, **more)
        if not answer.ok:
            raise NotDone(f"{method} {route}: {answer.status_code} {answer.text[:300]}")
        result: dict[str, Any] = answer.json()
        return result

    def _request(
        self, method: str, path: str, *, headers: Mapping[str, str] = {}, follow: bool = True, **more: Any
    ) -> requests.Response:
        """A request, and those that its redirects within the site ask for."""
        for _ in range(6):
            answer = self.session.request(
                method,
                self.base_url + path,
                headers={"Host": self.host, **headers},
                timeout=self.timeout,
                allow_redirects=False,
                **more,
            )
            target = answer.headers.get("Location")
            if not (follow and answer.is_redirect and target):
                return answer
            where = urlsplit(target)
            if where.netloc not in ("", self.host):
                raise NotDone(f"{path} leads to another site: {target}")
            path = where.path + (f"?{where.query}" if where.query else "")
            method, more, headers = "GET", {}, {}
        raise NotDone(f"too many redirects, the last to {path}")


def _found(pattern: str, text: str, what: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise NotDone(f"{what} is not on the page")
    return match[1]


def plugin_archive(slug: str, code: str) -> bytes:
    """A plugin as the zip that `install_plugin` takes; `code` is PHP without its opening tag."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{slug}/{slug}.php", f"<?php\n/*\nPlugin Name: {slug}\nVersion: 1.0\n*/\n{code}\n")
    return file.getvalue()
