"""From what a user names to the bytes of files: a path, a pattern, or standard input."""

from __future__ import annotations

import glob
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from nessampler.errors import InputError

__all__ = ["STDIN", "Source", "open_sources"]

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """One file's name and content."""

    name: str
    content: bytes

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix.lower()

    def text(self) -> str:
        """The content as text.

        Raises:
            InputError: not UTF-8, or with zero bytes.
        """
        try:
            text = self.content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.name} is neither text in UTF-8 nor a format known here (byte {error.start})"
            ) from error
        if "\0" in text:
            raise InputError(f"{self.name} is neither text nor a format known here: it holds zero bytes")
        return text


def open_sources(name: str) -> list[Source]:
    """The files that `name` stands for, in natural order: `run2` before `run10`.

    Raises:
        InputError: no such file, a folder, a pattern that matches nothing, a file that is empty or cannot be read.
    """
    if name == STDIN:
        return [_filled(Source("standard input", sys.stdin.buffer.read()))]
    if Path(name).is_file():
        return [_read(name)]
    if not glob.has_magic(name):
        what = "is a folder" if Path(name).is_dir() else "does not exist"
        raise InputError(f'works come from a file, a pattern in quotes such as "runs/*.xvg", or -: {name} {what}')
    found = sorted((path for path in glob.glob(name, recursive=True) if Path(path).is_file()), key=_natural)
    if not found:
        raise InputError(f"a pattern matches one file or more: {name} matches none")
    return [_read(path) for path in found]


def _read(path: str) -> Source:
    try:
        return _filled(Source(path, Path(path).read_bytes()))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error


def _filled(source: Source) -> Source:
    if not source.content.strip():
        raise InputError(f"{source.name} is empty: two works or more are needed")
    return source


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]
