"""Text from clients, as a database takes it."""


def storable(text: str, most: int) -> str:
    r"""Return a text that every database takes: without NUL, without halves of characters, and not too long.

    >>> storable("a\x00b\ud800c", 4)
    'a\ufffdb?'
    """
    return text[:most].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
