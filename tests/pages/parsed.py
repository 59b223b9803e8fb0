"""A page as Python's own parser reads it, and what in it would leave the file."""

import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

VOID = ("meta", "link", "img", "br", "input")


class Parsed(HTMLParser):
    """A page.

    Attributes:
        tags: each with its attributes, unescaped.
        text: what a reader sees, without scripts and styles.
        scripts, styles: the texts of these elements.
        unclosed: tags that are still open at the end.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.unclosed: list[str] = []
        self.text, self.scripts, self.styles = "", list[str](), list[str]()
        self.feed(page)
        self.close()

    def attributes(self, name: str) -> list[str]:
        return [value for _, given in self.tags if (value := given.get(name)) is not None]

    def leaving(self, folder: Path) -> list[str]:
        """Return what would run or load something that is not of the page; links may lead below."""
        found = [f"<{tag}>" for tag, _ in self.tags if tag in FOREIGN]
        for tag, given in self.tags:
            found += [f"{tag} {name}" for name in given if name.startswith("on")]
            for name in ("src", "href", "action", "srcset", "poster", "xlink:href"):
                if (value := given.get(name)) is None:
                    continue
                is_link = tag == "a" and name == "href"
                below = is_link and ":" not in value and (folder / unquote(value)).exists()
                if not (below or value.startswith(("#", "data:image/png;", "data:,"))):
                    found.append(f"{tag} {name}={value}")
        styles = [*self.styles, *self.attributes("style")]
        found += [text for text in styles if "url(" in text or "@import" in text]
        hashes = [hashlib.sha256(text.encode()).digest() for text in self.scripts]
        allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
        policy = (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed};"
        )
        if len(hashes) != 1 or not any(p.startswith(policy) for p in self.attributes("content")):
            found.append("a script that the content security policy does not expect")
        return found

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unclosed:
            while self.unclosed.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.unclosed[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.unclosed[-1:] == ["style"]:
            self.styles.append(data)
        else:
            self.text += data


FOREIGN = ("iframe", "object", "embed", "form", "base", "frame", "audio", "video", "source")
