"""The built-in metrics that compare a predicted value with a label. Nothing here knows DSPy.

Each entry of `COMPARISONS` is a factory: its keyword arguments are what `params` of the experiment file
may hold, and it returns a function from (answer, label) to a `Verdict`. Answers and labels are JSON
values. A list as a label holds alternatives, unless the answer is a list too.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jsonschema
import referencing

from dspylab.errors import EnvironmentProblem, ProgramError
from dspylab.extras import install_command
from dspylab.records import JSON

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# A sign that follows a word, a number or a bracket is a dash or a minus between two numbers.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-+\u2212])?"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says of one answer.

    Attributes:
        value: The score.
        detail: What there is to say beside it; None for nothing.
    """

    value: float
    detail: JSON = None


Comparison = Callable[[Any, Any], Verdict]


def comparison(kind: str, params: Mapping[str, Any], where: str) -> Comparison:
    """The comparison of a metric of the experiment file.

    Args:
        kind: Type of the metric, a key of `COMPARISONS`.
        params: Its settings.
        where: Address of the metric in the experiment file, for messages.

    Raises:
        ProgramError: If a setting is unknown, missing or of no use.
        EnvironmentProblem: If the metric needs a package that is not installed.
    """
    factory = COMPARISONS[kind]
    check_params(factory, params, where)
    try:
        return factory(**params)
    except (TypeError, ValueError, re.error, jsonschema.SchemaError) as error:
        reason = error.message if isinstance(error, jsonschema.SchemaError) else str(error)
        raise ProgramError(reason, where=f"{where}.params", remedy=f"see the settings of {kind}") from error


def check_params(function: Callable[..., Any], params: Mapping[str, Any], where: str) -> None:
    """Checks settings against the keyword arguments of the function that takes them.

    Raises:
        ProgramError: If one is unknown or missing; names the near miss.
    """
    known = inspect.signature(function).parameters
    for name in params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'no settings'}"
            raise ProgramError(f"unknown setting {name!r}", where=f"{where}.params", remedy=hint)
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name not in params:
            raise ProgramError(
                f"the setting {name!r} is missing", where=f"{where}.params", remedy=f"add {name}: …"
            )


def exact_match(
    *, case_sensitive: bool = False, normalize: Literal[True, False, "squad"] = True
) -> Comparison:
    """1 when answer and label are the same, else 0.

    Texts are compared in Unicode NFC without surrounding whitespace and case. A number equals a text
    that spells it; True and False equal the texts ``true`` and ``false``; null equals only null. Two
    lists are equal element by element.

    Args:
        case_sensitive: Upper and lower case differ.
        normalize: False keeps whitespace and Unicode form; ``squad`` also drops punctuation, the
            articles a, an, the, and repeated whitespace (Rajpurkar et al. 2016, "SQuAD").
    """
    if normalize not in (True, False, "squad"):
        raise ValueError(f"normalize must be true, false or squad, not {normalize!r}")

    def form(text: str) -> str:
        if normalize is False:
            return text if case_sensitive else text.casefold()
        if normalize == "squad":
            return squad_text(text, lower=not case_sensitive)
        text = unicodedata.normalize("NFC", text.strip())
        return text if case_sensitive else text.casefold()

    return lambda answer, label: Verdict(float(_any_equal(answer, label, form)))


def contains(*, case_sensitive: bool = False, every: bool = False) -> Comparison:
    """1 when the label stands in the answer, else 0.

    In a text: as a part of it. In a list: as one of its elements. Of a list of labels one must be there.

    Args:
        case_sensitive: Upper and lower case differ.
        every: All labels of a list must be there.
    """

    def form(text: str) -> str:
        text = unicodedata.normalize("NFC", text.strip())
        return text if case_sensitive else text.casefold()

    def found(answer: Any, label: Any) -> bool:
        if isinstance(answer, list):
            return any(_equal(item, label, form) for item in answer)
        needle = form(text_of(label))
        if not needle:
            raise ValueError("the label is empty, and an empty text stands in every answer")
        return needle in form(text_of(answer))

    combine = all if every else any
    return lambda answer, label: Verdict(float(combine(found(answer, item) for item in references(label))))


def token_f1() -> Comparison:
    """Harmonic mean of token precision and recall, the best over the labels (Rajpurkar et al. 2016).

    Tokens are the words of `squad_text`, with their multiplicity. When one side has no token, 1 if
    neither has (as the evaluation script of SQuAD 2.0 does), else 0. Texts in scripts that put no space
    between words count as one token.
    """

    def score(answer: list[str], label: list[str]) -> float:
        if not answer or not label:
            return float(answer == label)
        common = (Counter(answer) & Counter(label)).total()
        # 2PR/(P+R) with P = common/len(answer) and R = common/len(label).
        return 2 * common / (len(answer) + len(label))

    def compare(answer: Any, label: Any) -> Verdict:
        tokens = squad_text(text_of(answer)).split()
        return Verdict(max(score(tokens, squad_text(text_of(item)).split()) for item in references(label)))

    return compare


def numeric(*, rel_tol: float = 1e-6, abs_tol: float = 0.0) -> Comparison:
    """1 when the answer's number is the label's within the tolerance, else 0.

    Of a text the last number counts, as is usual for worked solutions (Cobbe et al. 2021, "GSM8K").
    ``1,234.5`` has a separator of thousands, ``3,14`` is two numbers. An answer without a number is wrong.

    Args:
        rel_tol: Tolerance as a share of the label's absolute value.
        abs_tol: Tolerance in the label's unit. The larger of the two holds.
    """
    if not (rel_tol >= 0 and abs_tol >= 0):
        raise ValueError("rel_tol and abs_tol must not be negative")

    def matches(number: float, label: Any) -> bool:
        truth = number_of(label)
        if truth is None:
            raise ValueError(f"the label {label!r} has no number")
        return number == truth or abs(number - truth) <= max(rel_tol * abs(truth), abs_tol)

    def compare(answer: Any, label: Any) -> Verdict:
        number = number_of(answer)
        hits = [number is not None and matches(number, item) for item in references(label)]
        return Verdict(float(any(hits)))

    return compare


def regex(*, pattern: str, ignore_case: bool = False, full: bool = False) -> Comparison:
    """1 when the pattern is found in the answer, else 0. There need be no label.

    Args:
        pattern: Python regular expression; ``.`` matches line ends too.
        ignore_case: Upper and lower case are the same.
        full: The whole answer must match.
    """
    compiled = re.compile(pattern, re.DOTALL | (re.IGNORECASE if ignore_case else 0))
    search = compiled.fullmatch if full else compiled.search
    return lambda answer, _: Verdict(float(search(text_of(answer)) is not None))


def json_schema(*, schema: Mapping[str, Any]) -> Comparison:
    """1 when the answer is JSON that the schema allows, else 0 and what is wrong. There need be no label.

    Args:
        schema: JSON Schema, of the draft that its ``$schema`` names, by default 2020-12. A text is
            parsed first. References to other documents are not fetched.
    """
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    kind.check_schema(dict(schema))
    # An empty registry: jsonschema would otherwise ask the network for documents that a schema refers to.
    validator = kind(dict(schema), registry=referencing.Registry())

    def compare(answer: Any, _: Any) -> Verdict:
        if isinstance(answer, str):
            try:
                answer = json.loads(answer)
            except ValueError as error:
                return Verdict(0.0, f"not JSON: {error}")
        worst = jsonschema.exceptions.best_match(validator.iter_errors(answer))
        return Verdict(1.0) if worst is None else Verdict(0.0, f"{worst.json_path}: {worst.message}")

    return compare


def rouge_l(*, use_stemmer: bool = False) -> Comparison:
    """ROUGE-L F-measure, the best over the labels (Lin 2004), by the package rouge-score.

    Args:
        use_stemmer: English words are reduced to their stem.
    """
    scorer = _library("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=use_stemmer)

    def compare(answer: Any, label: Any) -> Verdict:
        text = text_of(answer)
        return Verdict(
            max(float(scorer.score(text_of(item), text)["rougeL"].fmeasure) for item in references(label))
        )

    return compare


def bleu(*, lowercase: bool = False, tokenize: str = "13a") -> Comparison:
    """Sentence BLEU against all labels, from 0 to 1 (Papineni et al. 2002), by the package sacrebleu.

    Exponential smoothing and effective order, as sacrebleu advises for sentences. The mean over a run
    is not the corpus BLEU that papers report, which pools the n-gram counts before it divides.

    Args:
        lowercase: Upper and lower case are the same.
        tokenize: Name of one of sacrebleu's tokenizers, such as ``zh`` or ``char``.
    """
    scorer = _library("sacrebleu").BLEU(effective_order=True, lowercase=lowercase, tokenize=tokenize)

    def compare(answer: Any, label: Any) -> Verdict:
        score = scorer.sentence_score(text_of(answer), [text_of(item) for item in references(label)]).score
        # Rounding can lift a perfect match above 100.
        return Verdict(min(1.0, float(score) / 100))

    return compare


COMPARISONS: Mapping[str, Callable[..., Comparison]] = {
    "exact_match": exact_match,
    "contains": contains,
    "token_f1": token_f1,
    "numeric": numeric,
    "regex": regex,
    "json_schema": json_schema,
    "rouge_l": rouge_l,
    "bleu": bleu,
}
#: Those that look at the answer alone.
WITHOUT_LABEL = frozenset({"regex", "json_schema"})


def references(label: Any) -> Sequence[Any]:
    """The alternatives of a label: its elements if it is a list, else itself.

    Raises:
        ValueError: If the list is empty: then nothing could be right.
    """
    if not isinstance(label, list):
        return [label]
    if not label:
        raise ValueError("the label is an empty list: there is nothing to compare with")
    return label


def text_of(value: Any) -> str:
    """A JSON value as text: null is empty, true and false are words, lists and mappings are JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def number_of(value: Any) -> float | None:
    """A number as it is, the last number of a text, None when there is none."""
    if isinstance(value, (int, float)):
        return float(value)
    found = _NUMBER.findall(text_of(value))
    number = float(found[-1].replace(",", "").replace("\u2212", "-")) if found else None
    return number if number is not None and math.isfinite(number) else None


def squad_text(text: str, *, lower: bool = True) -> str:
    """Text without case, ASCII punctuation, articles and repeated whitespace, as SQuAD's script has it."""
    text = unicodedata.normalize("NFC", text)
    text = text.lower() if lower else text
    return " ".join(_ARTICLES.sub(" ", text.translate(_PUNCTUATION)).split())


def _any_equal(answer: Any, label: Any, form: Callable[[str], str]) -> bool:
    if isinstance(label, list) and not isinstance(answer, list):
        return any(_equal(answer, item, form) for item in references(label))
    return _equal(answer, label, form)


def _equal(answer: Any, label: Any, form: Callable[[str], str]) -> bool:
    """Equality of two JSON values, texts in the given form."""
    if answer is None or label is None:
        return answer is label
    if isinstance(answer, list) and isinstance(label, list):
        return len(answer) == len(label) and all(map(lambda a, b: _equal(a, b, form), answer, label))
    if isinstance(answer, dict) and isinstance(label, dict):
        return answer.keys() == label.keys() and all(_equal(answer[key], label[key], form) for key in label)
    if _is_number(answer) or _is_number(label):
        return _number(answer) is not None and _number(answer) == _number(label)
    return form(text_of(answer)) == form(text_of(label))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    """A number, or the one that a text spells; None for everything else."""
    if _is_number(value):
        return value  # type: ignore[no-any-return]
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _library(module: str) -> Any:
    """A module of the extra `text`, which loads slowly and is needed by few.

    Raises:
        EnvironmentProblem: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise EnvironmentProblem(
            f"the package {package} is not installed",
            where="metrics rouge_l and bleu",
            remedy=install_command("text"),
        ) from error
