"""Text to the tokens of a language model.

``bytes`` needs no file: a token is a byte, behind three special ones. Everything else is the
tokenizer that a model was trained with: a Hugging Face folder or hub id, or a vocabulary in the
form of llama2.c.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tsmjax.errors import InputError


class TextTokenizer(Protocol):
    """What prompts are made with.

    Attributes:
      size: number of tokens.
      bos: token that begins a text; None for none.
      eos: token that ends a text.
    """

    size: int
    bos: int | None
    eos: int

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`, without those that begin and end it."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, without special ones."""
        ...


@functools.cache
def text_tokenizer(name: str) -> TextTokenizer:
    """Open a tokenizer.

    Args:
      name: "bytes", a ``.bin`` file of llama2.c, or a Hugging Face folder or hub id.

    Raises:
      InputError: when there is no such tokenizer, or the library that reads it is missing.
    """
    if name == "bytes":
        return Bytes()
    if name.endswith(".bin"):
        return Pieces(Path(name))
    return HuggingFace(name)


class Bytes:
    """A token for each byte of UTF-8, as in ByT5 (Xue et al., 2022, section 3.1)."""

    size, bos, eos = 256 + 3, 1, 2

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`."""
        return [byte + 3 for byte in text.encode()]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`; bytes that are no UTF-8 are replaced."""
        return bytes(x - 3 for x in tokens if 3 <= x < self.size).decode(errors="replace")


class Pieces:
    """Byte-pair merges by score, from a vocabulary in the binary form of llama2.c."""

    bos, eos = 1, 2

    def __init__(self, path: Path):
        """Read the vocabulary.

        Raises:
          InputError: when there is none, or it is damaged.
        """
        try:
            raw = path.read_bytes()
            at, self._pieces, self._scores = 4, [], []
            while at < len(raw):
                score, length = struct.unpack_from("<fi", raw, at)
                piece = raw[at + 8 : at + 8 + length]
                if len(piece) != length or length < 0:
                    raise struct.error("a piece is cut off")
                self._pieces.append(piece)
                self._scores.append(score)
                at += 8 + length
        except (OSError, struct.error) as error:
            raise InputError(f"{path} is no vocabulary of llama2.c ({error}).") from error
        self.size = len(self._pieces)
        self._ids = {piece: token for token, piece in enumerate(self._pieces)}

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`, which is encoded word by word: no piece spans two words."""
        return [token for word in text.split(" ") for token in self._word(word)] if text else []

    @functools.lru_cache(maxsize=1 << 16)  # noqa: B019 (tokenizers live as long as the process)
    def _word(self, word: str) -> tuple[int, ...]:
        """Merge the characters of a word and the space before it, highest score first."""
        tokens: list[int] = []
        for character in f" {word}":
            piece = character.encode()
            found = self._ids.get(piece)
            tokens += [found] if found is not None else [byte + 3 for byte in piece]
        while True:
            pairs = [
                (self._scores[merged], -place, merged)
                for place, (a, b) in enumerate(itertools.pairwise(tokens))
                if (merged := self._ids.get(self._pieces[a] + self._pieces[b])) is not None
            ]
            if not pairs:
                return tuple(tokens)
            _, place, merged = max(pairs)
            tokens[-place : 2 - place] = [merged]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`."""
        raw = b"".join(
            bytes([x - 3]) if 3 <= x < 259 else self._pieces[x]
            for x in tokens
            if 3 <= x < self.size
        )
        return raw.decode(errors="replace").removeprefix(" ")


class HuggingFace:
    """The tokenizer of a Hugging Face folder or hub id; needs transformers, but no torch."""

    def __init__(self, name: str):
        """Load it.

        Raises:
          InputError: when there is none, or transformers is not installed.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise InputError(
                f"The tokenizer {name!r} needs transformers: pip install 'tsmjax[text]'."
            ) from error
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise InputError(
                f"task.tokenizer is {name!r}, but must be 'bytes', a .bin file of llama2.c, or a "
                f"Hugging Face folder or hub id with a tokenizer ({reason})."
            ) from error
        self.size = len(self._tokenizer)
        self.bos, self.eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`; names of special tokens in it are those tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)
