"""The web page as it is open in a browser, and what its user does."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, FloatRect, Locator, Page, Request, expect

_DROP = """([files, target]) => {
    const transfer = new DataTransfer();
    for (const [name, type, text] of files) {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type }));
    }
    for (const kind of ["dragenter", "dragover", "drop"]) {
        const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
        document.querySelector(target).dispatchEvent(event);
    }
}"""
_COLORED = """(canvas) => {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    let colored = 0;
    for (let place = 3; place < data.length; place += 4) colored += data[place] > 0;
    return [width, height, colored];
}"""


@dataclass(eq=False)
class OpenPage:
    """requests, posted: the addresses of all, and of those with a photograph.

    faults: errors of its scripts, and what the policy kept it from.
    """

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._listen)

    def _note(self, request: Request) -> None:
        self.requests.append(request.url)
        if request.method == "POST":
            self.posted.append(request.url)

    def _listen(self, message: ConsoleMessage) -> None:
        # An answer that is no success is not the page's fault.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def check(self) -> None:
        allowed = (f"{self.url}/", "blob:", "data:")
        assert [address for address in self.requests if not address.startswith(allowed)] == []
        assert self.faults == []

    def posts(self) -> int:
        """How many requests have sent a photograph."""
        return len(self.posted)

    def go(self) -> "OpenPage":
        self.page.goto(self.url)
        return self

    def ready(self) -> "OpenPage":
        self.go()
        expect(self["#service"]).to_have_text("Ready")
        return self

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def choose(self, *photos: Path) -> None:
        self.page.set_input_files("#files", [str(photo) for photo in photos])

    def drop(self, files: Sequence[tuple[str, str, bytes]]) -> None:
        """Files as (name, type, bytes), let go over the page."""
        items = [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files]
        self.page.evaluate(_DROP, [items, "#work"])

    def drop_paths(self, *paths: Path) -> None:
        """Files and folders let go over the page as a file manager does it."""
        mouse = self.page.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 400, "data": data})

    def wait_for_map(self) -> None:
        expect(self["#level"]).to_be_enabled()

    def show_as_at_first(self) -> None:
        """The open photograph as it is shown when it has just been opened, with no finding chosen."""
        self.page.mouse.move(0, 0)
        for button, pressed in (
            ("#measure", "false"), ("#side", "false"), ("#map-shown", "true"), ("#outlines-shown", "true"),
        ):  # fmt: skip
            if self[button].get_attribute("aria-pressed") != pressed:
                self[button].click()
        for button in ("#look-reset:enabled", '.finding[aria-expanded="true"]'):
            if self[button].count():
                self[button].click()
        self.slide("#opacity", 25)
        self["#level-all"].click()
        self["#zoom-fit"].click()

    def map(self) -> tuple[int, int, int]:
        """Width, height and the number of colored pixels of the map that is shown."""
        width, height, colored = self["canvas.map"].evaluate(_COLORED)
        return width, height, colored

    def module(self, name: str, body: str, argument: Any = None) -> Any:
        """The value of `body`, in which `module` is the page's module `name` and `argument` the one passed in."""
        script = f"async (argument) => {{ const module = await import('/web/app/{name}'); return {body}; }}"
        return self.page.evaluate(script, argument)

    def slide(self, selector: str, value: float) -> None:
        """Moves a slider, and says so as it does under a pointer."""
        script = """(slider, value) => {
            slider.value = value;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
        }"""
        self[selector].evaluate(script, value)

    def box(self, selector: str) -> FloatRect:
        """Where the first such element lies on the screen."""
        rectangle = self[selector].first.bounding_box()
        assert rectangle is not None
        return rectangle
