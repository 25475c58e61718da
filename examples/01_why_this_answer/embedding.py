"""The embedding model: TF-IDF, then truncated SVD beside a random projection, fitted to the corpus on the spot."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an and any are as at be been but by can could did do does each else for from get had has have he how i if
        in into is it its me may my no not of on one or our shall should so some such than that the their them then
        there these they this those to too use used using was way we were what when where which while who whom why
        will with would you your python function class method module""",
    )
)
SUFFIXES = {
    "ization": "iz",
    "ations": "at",
    "ation": "at",
    "ies": "y",
    "sses": "ss",
    "ing": "",
    "ers": "",
    "er": "",
    "ed": "",
}
SUFFIXES |= {"es": "", "s": "", "e": ""}  # the longest first: the first that fits is cut


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A light English stemmer: plural, -ed, -ing, -er, British -ise; "serialises" and "serialized" become one."""
    word = re.sub(r"is(e|es|ed|er|ing|ation)$", r"iz\1", word) if len(word) > 6 else word
    for suffix, kept in SUFFIXES.items():
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not (suffix == "s" and word.endswith("ss")):
            word = word[: len(word) - len(suffix)] + kept
            break
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "lsz" else word


def words(text: str) -> list[str]:
    """Stemmed words without stop words; a dotted or camel-case identifier gives its parts."""
    found = []
    for identifier in IDENTIFIER.findall(text):
        for name in re.split(r"[._]+", identifier):
            parts = PART.findall(name)
            whole = [name] if len(parts) > 1 else []
            lowered = [part.lower() for part in parts + whole]
            found += [stem(word) for word in lowered if len(word) > 1 and word not in STOP_WORDS]
    return found


class StdlibEmbeddings(Embeddings):
    """A text's TF-IDF weights, seen in two ways: by topic and by word.

    The topic half is the corpus's strongest singular vectors (latent semantic analysis): it knows which words keep
    company, and loses the rare ones. The word half is a random projection: it keeps rare words and knows no company.
    Cosine weighs them 1 to 4. State: `vocabulary[V]`, `idf[V]`, `topics[T, V]`, `signs[S, V]` of +1 and -1. A text
    without a known word is the zero vector.
    """

    def __init__(self, vocabulary: list[str], idf: np.ndarray, topics: np.ndarray, signs: np.ndarray) -> None:
        self.vocabulary, self.idf, self.topics, self.signs = vocabulary, idf, topics, signs
        self._position = {word: position for position, word in enumerate(vocabulary)}

    @classmethod
    def fit(cls, texts: Iterable[str], *, topics: int = 64, sketch: int = 192) -> StdlibEmbeddings:
        """Fit to `texts`. Equal texts give an equal model."""
        counted = [Counter(words(text)) for text in texts]
        vocabulary = sorted({word for counts in counted for word in counts})
        signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.int8), size=(sketch, len(vocabulary)))
        model = cls(vocabulary, np.ones(len(vocabulary)), np.zeros((topics, len(vocabulary))), signs)
        model.idf = TfidfTransformer().fit(model._counts(counted)).idf_
        svd = TruncatedSVD(n_components=topics, n_iter=4, random_state=0).fit(model._weights(counted))
        model.topics = svd.components_.astype(np.float32)
        return model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        weights = self._weights([Counter(words(text)) for text in texts])
        by_topic = weights @ self.topics.T
        lengths = np.linalg.norm(by_topic, axis=1, keepdims=True)
        by_topic = 0.5 * by_topic / np.where(lengths > 0, lengths, 1)
        by_word = weights @ self.signs.T.astype(np.float32) / np.sqrt(len(self.signs))
        # Five decimals keep the ranking and halve the saved store.
        return np.round(np.hstack([by_topic, by_word]), 5).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def word_weights(self) -> dict[str, float]:
        """Each known word's inverse document frequency: what meeting it is worth."""
        return dict(zip(self.vocabulary, self.idf.tolist(), strict=True))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocabulary.json").write_text(json.dumps(self.vocabulary))
        np.savez(folder / "weights.npz", idf=self.idf, topics=self.topics, signs=self.signs)

    @classmethod
    def load(cls, folder: Path) -> StdlibEmbeddings:
        with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
            vocabulary = json.loads((folder / "vocabulary.json").read_text())
            return cls(vocabulary, arrays["idf"], arrays["topics"], arrays["signs"])

    def _counts(self, counted: list[Counter[str]]) -> csr_matrix:
        found = [
            (row, self._position[word], count)
            for row, counts in enumerate(counted)
            for word, count in counts.items()
            if word in self._position
        ]
        rows, columns, values = zip(*found, strict=True) if found else ((), (), ())
        return csr_matrix((values, (rows, columns)), shape=(len(counted), len(self.vocabulary)), dtype=np.float64)

    def _weights(self, counted: list[Counter[str]]) -> csr_matrix:
        matrix = self._counts(counted)
        matrix.data = (1 + np.log(matrix.data)) * self.idf[matrix.indices]
        return normalize(matrix)
