"""Tokens to text while they come: whole characters only, and never a part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from sparsejax.data.tokenizer import Tokenizer

# What decoding makes of bytes that are no character, or not one yet.
_BROKEN = "�"
# Tokens of the context that are decoded along with the first new ones: a tokenizer may write a space by what precedes.
_CONTEXT = 8
# Most tokens that a character can have before its last one.
_CUT = 3


class TextStream:
    """The text of one row.

    A token may end inside a character, and text may turn out to be the beginning of a stop string: both are held back
    until it is clear what they are. What has been handed out is final.

    Attributes:
      stopped: a stop string was found. The text ends in front of it, and later tokens are not looked at.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int], stop: Sequence[str] = ()) -> None:
        """Start behind ``context``, the tokens of the prompt; ``stop`` are non-empty strings."""
        if not all(stop):
            raise ValueError("stop strings must not be empty")
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids = list(context[-_CONTEXT:])
        # Tokens up to ``_read`` are text already, those from ``_from`` on are decoded again to see what follows.
        self._from, self._read = 0, len(self._ids)
        # A context cut inside a character: that character is new text when it is whole.
        ends = range(self._read, max(self._read - _CUT, 0) - 1, -1)
        self._read = next((end for end in ends if not self._text(end).endswith(_BROKEN)), self._read)
        self._held = ""

    def push(self, token: int) -> str:
        """The text that is final with this token, often empty."""
        if self.stopped:
            return ""
        self._ids.append(token)
        piece = self._decoded()
        if piece.endswith(_BROKEN):
            return ""
        if piece:
            self._from, self._read = self._read, len(self._ids)
        return self._released(piece)

    def close(self) -> str:
        """What was held back, when no token follows; broken characters are U+FFFD."""
        if self.stopped:
            return ""
        rest = self._released(self._decoded())
        self._from = self._read = len(self._ids)
        rest, self._held = rest + self._held, ""
        return rest

    def _text(self, end: int) -> str:
        return self._tokenizer.decode(self._ids[self._from : end])

    def _decoded(self) -> str:
        """Text behind what was read; empty where the tokens make none yet."""
        return self._text(len(self._ids))[len(self._text(self._read)) :]

    def _released(self, piece: str) -> str:
        text = self._held + piece
        places = [place for place in (text.find(string) for string in self._stop) if place >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        hold = max((_overlap(text, string) for string in self._stop), default=0)
        final = len(text) - hold
        self._held = text[final:]
        return text[:final]


def _overlap(text: str, string: str) -> int:
    """Characters at the end of ``text`` that ``string`` begins with; less than all of it."""
    longest = min(len(text), len(string) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(string[:size])), 0)
