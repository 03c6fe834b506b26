"""How long a text is for a language model."""

import re
from collections.abc import Iterable

from search.protocol import Message

# What tokenizers keep together: a short word with the character before it, three digits, runs of symbols or of blanks.
_TOKEN = re.compile(r"[^\n\w]?_?[A-Za-z]{1,6}|\d{1,3}| ?[^\s\w]+\n*|\s+|[^\W\dA-Za-z]")


def count_tokens(text: str) -> int:
    """Return about how many tokens a text has, a few percent too many: each model has its own tokenizer."""
    return len(_TOKEN.findall(text))


def tokens_of(messages: Iterable[Message]) -> int:
    """Return about how many tokens a conversation has."""
    return sum(count_tokens(message["content"]) for message in messages)
