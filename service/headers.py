"""What every answer says to browsers: nothing from elsewhere, in no frame, nothing kept."""

from typing import Final

from starlette.datastructures import MutableHeaders

_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_DOCS: Final = _PAGE.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'").replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
)
"""Swagger UI starts from a script inside its page, which nothing of a caller's ever enters."""
_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def protect(headers: MutableHeaders, path: str) -> None:
    """Add them to the answer of a call of `path`, which may be kept only where its route says so."""
    for name, value in _ALWAYS.items():
        headers[name] = value
    headers["Content-Security-Policy"] = _DOCS if path == "/docs" else _PAGE
    headers.setdefault("Cache-Control", "no-store")
