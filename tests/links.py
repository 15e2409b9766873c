"""Find dead links between the Markdown files of a folder, anchors included.

`python tests/links.py FOLDER...` prints each dead link and fails when there is one. Links to other hosts
are left alone: they are not this project's to keep.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]+`")
INLINE_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'(][^)]*)?\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]^]+\]:\s*<?([^\s>]+)>?", re.MULTILINE)
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
HTML_ANCHOR = re.compile(r"<[^>]+\s(?:id|name)=[\"']([^\"']+)[\"']")
WITH_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def main(folders: list[str]) -> int:
    problems, files = [], 0
    for folder in map(Path, folders):
        for file in markdown_files(folder):
            files += 1
            problems += [f"{file}: {target}: {why}" for target, why in dead_links(file)]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"links: {files} Markdown files, {len(problems)} dead links")
    return 1 if problems or not files else 0


def markdown_files(folder: Path) -> Iterator[Path]:
    """The folder's own Markdown: nothing hidden, generated or still to be rendered."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name == ".github" or not entry.name.startswith((".", "{{", "demo")):
                yield from markdown_files(entry)
        elif entry.suffix == ".md":
            yield entry


def dead_links(file: Path) -> Iterator[tuple[str, str]]:
    text = INLINE_CODE.sub("", FENCE.sub("", file.read_text(encoding="utf-8")))
    for target in [*INLINE_LINK.findall(text), *REFERENCE.findall(text)]:
        if WITH_SCHEME.match(target):
            continue
        path, _, anchor = unquote(target).partition("#")
        linked = file.parent / path if path else file
        if not linked.exists():
            yield target, "no such file"
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked.read_text(encoding="utf-8")):
            yield target, "no such heading"


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings, and what HTML names."""
    text = FENCE.sub("", text)
    found = set(HTML_ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        name, repeats = slug, 0
        while name in found:
            repeats += 1
            name = f"{slug}-{repeats}"
        found.add(name)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
