"""`python -m service.openapi > service/openapi.json`: the contract, as it is checked in."""

import json
from pathlib import Path

from service.app import create_app
from service.settings import Settings


def document() -> str:
    """The OpenAPI document as JSON."""
    app = create_app(Settings(root=Path("indexes"), device="cpu"))
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False)


if __name__ == "__main__":
    print(document())
