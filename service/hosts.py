"""Which hosts the service answers for: a web page whose name resolves to this machine must not read its answers.

Browsers let a page read what its own origin answers, and DNS can point that origin here (DNS rebinding).  Such a
request names the page's host.
"""

import ipaddress
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import WRONG_HOST, Refusal, problem_response
from service.settings import Settings, is_loopback

_NAME: Final = re.compile(r"[a-z0-9._-]{1,253}")
_PROBES: Final = ("/livez", "/readyz")
"""Load balancers call these by whatever name they have; the answers say nothing of patients."""
_PROXY_HEADERS: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def host_of(headers: Headers) -> str:
    """The host that a request names, without port, in lower case; empty if it names none."""
    host = headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").removesuffix(".")


def from_this_machine(headers: Headers) -> bool:
    """Whether a request to a loopback address comes from a program here, for this machine by its own name.

    A web page elsewhere whose name resolves to this machine sends that name; a proxy adds its own headers.
    """
    return is_loopback(host_of(headers)) and not any(name in headers for name in _PROXY_HEADERS)


def route_path(scope: Scope) -> str:
    """The path of a request below the prefix that the service is served under."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path


class HostMiddleware:
    """ASGI middleware that refuses requests for other hosts than this service's (421).

    Loopback names and addresses are always allowed; other addresses where the service listens on one, because no
    web page can make a browser send those for itself; other names by the setting.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._patterns = (*settings.allowed_hosts, settings.host.lower())
        self._local = settings.local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] == "http" and route_path(scope) not in _PROBES:
            host = host_of(Headers(scope=scope))
            if not self._allowed(host):
                refused = Refusal(WRONG_HOST, _wrong_host(host))
                await problem_response(refused, scope["state"]["trace"].request_id)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _allowed(self, host: str) -> bool:
        if is_loopback(host) or (not self._local and _is_address(host)):
            return True
        return any(
            pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))
            for pattern in (name.strip("[]") for name in self._patterns)
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _wrong_host(host: str) -> str:
    name = host if _NAME.fullmatch(host) else "this host"
    return f"this service does not answer for {name!r}; start it with --allowed-hosts NAME to allow a name"
