"""Makes text from backends and clients safe to print: it must not control the terminal."""

import re

_STYLE = re.compile(r"\x1b\[[\d;:]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

IN_JSON = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""For `str.translate`: the control characters that JSON may hold as they are."""


def visible(text: str) -> str:
    r"""Return a text without colours, with control characters escaped, except tab and line feed.

    >>> print(visible("\x1b[31mred\x1b[0m, then \x1b]0;a title\x07 and \x9b2J"))
    red, then \x1b]0;a title\x07 and \x9b2J
    """
    if text.isprintable():
        return text
    plain = _STYLE.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", plain)
