"""Text to label ids and back.

Apart from `text.py` because `keras_nlp` takes a second or more to import.
"""

from typing import Any

import keras
import keras_nlp
import numpy as np
import tensorflow as tf

from keras_ds2.text import DEFAULT_ALPHABET, validate_alphabet


@keras.saving.register_keras_serializable(package="keras_ds2")
class CharacterTokenizer(keras_nlp.tokenizers.Tokenizer):
    """Maps each character of a text to an id, and ids back to text.

    Unlike `keras_nlp.tokenizers.UnicodeCodepointTokenizer`, ids number the
    characters of a small alphabet and leave room for the CTC blank: id 0 is
    the blank, ids 1 to `len(alphabet)` are the characters in order, and the
    last two ids are reserved, for padding and for unknown characters. A
    reserved id or the blank is never a label of a usable transcript.

    The text is taken as it is (see `normalize_transcript`), and repeated ids
    stay repeated: collapsing them is the decoder's part. Tensors go in and
    out in eager mode and in `tf.data` alike, but for `detokenize`, which
    gives Python strings in eager mode.

    Args:
        alphabet: String of unique characters. Defaults to
            `DEFAULT_ALPHABET`: space, apostrophe, a to z.
        dtype: The dtype of the ids, `"int32"` or `"int64"`. Defaults to
            `"int32"`.
        **kwargs: Of `keras.layers.Layer`, such as `name`.

    Call arguments:
        inputs: A string or a string tensor, as for `tokenize`.

    Raises:
        ValueError: If `alphabet` is empty, not a string, or repeats a
            character; if `dtype` is another one.

    Example:

    >>> from keras_ds2.tokenizer import CharacterTokenizer
    >>> tokenizer = CharacterTokenizer()
    >>> tokenizer.vocabulary_size()
    31
    >>> ids = tokenizer.tokenize(["a cab", "it's"])
    >>> ids.to_list()
    [[3, 1, 5, 3, 4], [11, 22, 2, 21]]
    >>> tokenizer.detokenize(ids)
    ['a cab', "it's"]
    """

    def __init__(
        self,
        alphabet: str = DEFAULT_ALPHABET,
        dtype: Any = "int32",
        **kwargs: Any,
    ) -> None:
        validate_alphabet(alphabet)
        super().__init__(dtype=dtype, **kwargs)
        if self.compute_dtype not in ("int32", "int64"):
            raise ValueError(
                '`dtype` must be "int32" or "int64". Received: '
                f"dtype={self.compute_dtype!r}"
            )
        self.alphabet = alphabet
        # Code point -> id. One entry more than the highest code point, for
        # all that lie above it.
        codepoints = [ord(character) for character in alphabet]
        self._ids = np.full(max(codepoints) + 2, self.unknown_id, "int32")
        self._ids[codepoints] = np.arange(1, len(alphabet) + 1)

    @property
    def blank_id(self) -> int:
        """The id of the CTC blank: 0."""
        return 0

    @property
    def padding_id(self) -> int:
        """The reserved id that fills the ends of short rows."""
        return len(self.alphabet) + 1

    @property
    def unknown_id(self) -> int:
        """The reserved id of every character outside the alphabet."""
        return len(self.alphabet) + 2

    def vocabulary_size(self) -> int:
        """Returns the number of ids, blank and reserved ones included."""
        return len(self.alphabet) + 3

    def get_vocabulary(self) -> list[str]:
        """Returns the token of each id, in order of the ids."""
        return ["<blank>", *self.alphabet, "<padding>", "<unknown>"]

    def id_to_token(self, id: int) -> str:
        """Returns the token of an id.

        Args:
            id: Integer from 0 to `vocabulary_size() - 1`.

        Returns:
            A character, `"<blank>"`, `"<padding>"` or `"<unknown>"`.

        Raises:
            ValueError: If there is no such id.
        """
        if not 0 <= id < self.vocabulary_size():
            raise ValueError(
                f"`id` must be from 0 to {self.vocabulary_size() - 1}. "
                f"Received: id={id}"
            )
        return self.get_vocabulary()[id]

    def token_to_id(self, token: str) -> int:
        """Returns the id of a token.

        Args:
            token: A token of `get_vocabulary()`.

        Returns:
            The id.

        Raises:
            ValueError: If there is no such token.
        """
        vocabulary = self.get_vocabulary()
        if token not in vocabulary:
            raise ValueError(
                f"`token` must be one of {vocabulary}. Received: "
                f"token={token!r}"
            )
        return vocabulary.index(token)

    def tokenize(self, inputs: Any) -> Any:
        """Turns text into ids.

        Args:
            inputs: A string, a list of strings, or a string tensor (UTF-8).

        Returns:
            A tensor of shape `(length,)` for one string; a `tf.RaggedTensor`
            of shape `(batch, None)` for a batch. A character outside the
            alphabet becomes `unknown_id`.
        """
        inputs = tf.convert_to_tensor(inputs, tf.string)
        codepoints = tf.strings.unicode_decode(inputs, "UTF-8")
        return tf.ragged.map_flat_values(self._codepoints_to_ids, codepoints)

    def detokenize(self, inputs: Any) -> Any:
        """Turns ids into text.

        Args:
            inputs: Ids of shape `(length,)` or `(batch, length)`: nested
                lists, an array, a dense or a ragged tensor. Negative ids,
                blanks and reserved ids give nothing.

        Returns:
            A string or a list of strings, or a string tensor inside a
            `tf.function` or `tf.data`. Runs of spaces are one space, none
            at the ends.

        Raises:
            tf.errors.InvalidArgumentError: If an id is not below
                `vocabulary_size()`.
        """
        if isinstance(inputs, (list, tuple)):
            inputs = tf.ragged.constant(inputs, dtype=tf.int32)
        elif not isinstance(inputs, tf.RaggedTensor):
            inputs = tf.convert_to_tensor(inputs)
        characters = tf.ragged.map_flat_values(self._ids_to_text, inputs)
        texts = tf.strings.reduce_join(characters, axis=-1)
        texts = tf.strings.strip(tf.strings.regex_replace(texts, r"\s+", " "))
        if not tf.executing_eagerly():
            return texts
        return np.char.decode(np.asarray(texts, dtype="S"), "utf-8").tolist()

    def call(self, inputs: Any) -> Any:
        # The base class turns ragged results into lists in eager mode; here
        # calling the layer and calling `tokenize` are the same.
        return self.tokenize(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alphabet": self.alphabet}

    def _codepoints_to_ids(self, codepoints: tf.Tensor) -> tf.Tensor:
        codepoints = tf.minimum(codepoints, len(self._ids) - 1)
        return tf.cast(tf.gather(self._ids, codepoints), self.compute_dtype)

    def _ids_to_text(self, ids: tf.Tensor) -> tf.Tensor:
        texts = tf.constant(["", *self.alphabet, "", ""])
        return tf.gather(texts, tf.maximum(ids, 0))
