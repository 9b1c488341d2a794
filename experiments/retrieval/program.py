"""Answer questions from a handbook: search, read, answer. With the variants that the experiment compares.

`build(...)` is what experiment.yaml calls for each run; its matrix varies the arguments.
"""

import functools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bm25s
import dspy
import numpy as np

FOLDER = Path(__file__).parent
# From a query and a number to so many ids of passages, the best first.
Search = Callable[[str, int], list[str]]


class Answer(dspy.Signature):
    """Answer the question with a sentence from the context."""

    context: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Rewrite(dspy.Signature):
    """Write down the words to search the handbook of a tool library for."""

    question: str = dspy.InputField()
    query: str = dspy.OutputField()


class HandbookQA(dspy.Module):
    """Answers a question from the `k` best passages.

    The prediction also has `passages`, the ids that were retrieved: metrics of retrieval need them.
    """

    def __init__(self, search: Search | None, k: int, query: str) -> None:
        super().__init__()
        self.search = search
        self.k = k
        self.rewrite = dspy.Predict(Rewrite) if query == "rewritten" else None
        self.answer = dspy.Predict(Answer)
        self.answer.demos = [self.demo(row) for row in rows("train.jsonl")]

    def forward(self, question: str) -> dspy.Prediction:
        query = self.rewrite(question=question).query if self.rewrite else question
        found = self.search(query, self.k) if self.search else []
        answer = self.answer(context=context(found), question=question).answer
        return dspy.Prediction(answer=answer, query=query, passages=found)

    def demo(self, row: dict[str, Any]) -> dspy.Example:
        """A solved question with what the search finds for it, the passage with the answer among it."""
        found = self.search(row["question"], self.k) if self.search else []
        if found and row["source"] not in found:
            found[-1] = row["source"]
        return dspy.Example(context=context(found), question=row["question"], answer=row["answers"][0])


def build(retriever: str = "bm25", k: int = 1, query: str = "question") -> HandbookQA:
    """Build the program of one run.

    Args:
        retriever: `bm25`: words that passage and question share; rare words count more.
            `trigrams`: pieces of three letters, so that "sanding" also finds "sander".
            `none`: no passages, the model answers from memory.
        k: How many passages the model reads.
        query: `question`: the question is the query. `rewritten`: the model writes the query.
    """
    searches = {"bm25": bm25, "trigrams": trigrams}
    return HandbookQA(None if retriever == "none" else searches[retriever](), k, query)


def retrieval(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> dict[str, float]:
    """Whether the passage with the answer was retrieved, and one over its rank, whose mean is the MRR."""
    found = list(prediction.passages)
    rank = found.index(example.source) + 1 if example.source in found else None
    return {"recall": float(rank is not None), "rr": 1 / rank if rank else 0.0}


def rows(name: str) -> list[dict[str, Any]]:
    with (FOLDER / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@functools.cache
def corpus() -> dict[str, str]:
    """Passage id to its title and text. Listed in the experiment under program.files: a change is noticed."""
    return {row["id"]: f"{row['title']}: {row['text']}" for row in rows("corpus.jsonl")}


def context(found: list[str]) -> str:
    return "\n".join(corpus()[passage] for passage in found)


@functools.cache
def bm25() -> Search:
    ids = list(corpus())
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(corpus().values()), show_progress=False), show_progress=False)

    def search(query: str, k: int) -> list[str]:
        tokens = bm25s.tokenize(query, show_progress=False)
        return [ids[position] for position in index.retrieve(tokens, k=k, show_progress=False).documents[0]]

    return search


@functools.cache
def trigrams() -> Search:
    """Cosine of hashed trigram counts. For real vectors, put a dspy.Embedder in the place of `vectors`."""
    ids = list(corpus())
    known = vectors(list(corpus().values()))
    weights = np.log(len(ids) / (1 + (known > 0).sum(axis=0)))  # a piece that is everywhere says nothing
    known = unit(known * weights)

    def search(query: str, k: int) -> list[str]:
        likeness = known @ unit(vectors([query]) * weights)[0]
        return [ids[position] for position in np.argsort(-likeness)[:k]]

    return search


def vectors(texts: list[str], width: int = 4096) -> Any:
    counts = np.zeros((len(texts), width))
    for row, text in enumerate(texts):
        padded = f" {text.lower()} "
        for start in range(len(padded) - 2):
            counts[row, zlib.crc32(padded[start : start + 3].encode()) % width] += 1
    return counts


def unit(rows_of_numbers: Any) -> Any:
    return rows_of_numbers / np.maximum(np.linalg.norm(rows_of_numbers, axis=1, keepdims=True), 1e-9)
