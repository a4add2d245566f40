"""How Ollama's clients name models."""


def strip_latest(name: str) -> str:
    """Return the name of a model without the tag that Ollama's clients add to one that has none.

    >>> strip_latest("llama3:latest"), strip_latest("llama3:8b"), strip_latest("llama3")
    ('llama3', 'llama3:8b', 'llama3')
    """
    return name.removesuffix(":latest")
