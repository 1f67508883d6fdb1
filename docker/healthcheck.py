"""Ends with 0 if the service in this container says ready; the image has no curl."""

import os
import sys
from http.client import HTTPConnection

host = os.environ.get("RESAD_HOST", "127.0.0.1")
# One that stands for every address is reached by the one that is always there.
address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
connection = HTTPConnection(address, int(os.environ.get("RESAD_PORT", "8000")), timeout=4)
try:
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    print(answer.status, answer.read(500).decode(errors="replace"))
except OSError as error:
    sys.exit(f"{address}: {error}")
sys.exit(answer.status != 200)
