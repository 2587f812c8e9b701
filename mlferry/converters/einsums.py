"""Sums of products over named axes, as Core ML's transposes, reductions and matrix products."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import known, rank, scalar, shaped
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError


class Term(NamedTuple):
    """An operand with one letter for each axis."""

    blob: Blob
    letters: str


def einsum(context: Lowering, equation: str, inputs: Sequence[Blob]) -> Blob:
    """Compute what `numpy.einsum` does, from left to right.

    Args:
        equation: with or without "->" and "...".
        inputs: the operands, in the source's order of axes.

    Raises:
        ConversionError: the equation does not fit the operands.
    """
    terms, result = parsed(equation, [rank(x) for x in inputs])
    operands = [_diagonal(context, Term(x, term)) for x, term in zip(inputs, terms, strict=True)]
    current, *rest = operands
    for index, following in enumerate(rest):
        later = "".join(term.letters for term in rest[index + 1 :]) + result
        first = _summed(context, current, following.letters + later)
        second = _summed(context, following, current.letters + later)
        current = _product(context, first, second, later)
    current = _summed(context, current, result)
    return _spread(context, current, result)


def parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The letters of every operand, and those of the result; "..." becomes letters.

    Raises:
        ConversionError: the equation does not fit operands of these ranks.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ConversionError(f"equation {equation!r} has {len(terms)} operands, not {len(ranks)}")
    free = [c for c in string.ascii_letters if c not in equation]
    widths = [r - len(t.replace("...", "")) for t, r in zip(terms, ranks, strict=True)]
    for term, width, axes in zip(terms, widths, ranks, strict=True):
        if width < 0 or (width and "..." not in term):
            raise ConversionError(f"equation {equation!r}: {term!r} for an operand of {axes} axes")
    most = max((w for t, w in zip(terms, widths, strict=True) if "..." in t), default=0)
    batch = "".join(free[:most])
    pairs = zip(terms, widths, strict=True)
    terms = [term.replace("...", batch[most - width :]) for term, width in pairs]
    every = "".join(terms)
    if arrow:
        result = right.replace("...", batch)
    else:
        once = sorted(c for c in set(every) if every.count(c) == 1 and c not in batch)
        result = batch + "".join(once)
    if "." in "".join([*terms, result]) or not set(result) <= set(every):
        raise ConversionError(f"equation {equation!r} makes no sense")
    if len(set(result)) < len(result):
        raise ConversionError(f"equation {equation!r}: a letter appears twice in the result")
    return terms, result


def _diagonal(context: Lowering, term: Term) -> Term:
    """For a letter that an operand has twice, keep the entries where both indices are equal."""
    x, letters = term
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            size = known(x)[first]
            shape = [size if axis in (first, second) else 1 for axis in range(len(letters))]
            mask = np.eye(size, dtype=np.float32).reshape(shape)
            output = context.multiply(x, context.constant(mask))
            x = context.reduce("reduceSum", output, (second,), keep=False)
            letters = letters[:second] + letters[second + 1 :]
    return Term(x, letters)


def _summed(context: Lowering, term: Term, others: str) -> Term:
    """Sum over letters that appear nowhere else."""
    x, letters = term
    summed_axes = [axis for axis, letter in enumerate(letters) if letter not in others]
    if not summed_axes:
        return term
    output = context.reduce("reduceSum", x, summed_axes, keep=False)
    rest = "".join(letter for letter in letters if letter in others)
    return Term(output if rest else scalar(output), rest)


def _spread(context: Lowering, term: Term, target: str) -> Blob:
    """The result in the requested order."""
    x, letters = term
    if letters == target:
        return x
    return context.transpose(x, [letters.index(c) for c in target])


def _product(context: Lowering, a: Term, b: Term, later: str) -> Term:
    """Multiply as [batch, rows, inner] times [batch, inner, columns]; extents of 1 broadcast."""
    a, b = _without_ones(context, a, b)
    left, right = a.letters, b.letters
    sizes = dict(zip(left + right, (*known(a.blob), *known(b.blob)), strict=True))
    batch = [c for c in left if c in right and c in later]
    inner = [c for c in left if c in right and c not in later]
    rows = [c for c in left if c not in right]
    columns = [c for c in right if c not in left]

    def count(group: Sequence[str]) -> int:
        return math.prod(sizes[c] for c in group)

    def matrix(term: Term, first: list[str], second: list[str]) -> Blob:
        order = "".join([*batch, *first, *second])
        ordered = _spread(context, term, order) if term.letters else term.blob
        return shaped(context, ordered, (count(batch), count(first), count(second)))

    output = context.matmul(matrix(a, rows, inner), matrix(b, inner, columns))
    letters = "".join([*batch, *rows, *columns])
    return Term(shaped(context, output, tuple(sizes[c] for c in letters)), letters)


def _without_ones(context: Lowering, a: Term, b: Term) -> tuple[Term, Term]:
    """If only one operand has extent 1 for a letter, drop its axis."""

    def trimmed(term: Term, other: Term) -> Term:
        x, letters = term
        mine = dict(zip(letters, known(x), strict=True))
        theirs = dict(zip(other.letters, known(other.blob), strict=True))
        dropped = [c for c in letters if mine[c] == 1 and theirs.get(c, 1) > 1]
        if not dropped:
            return term
        rest = "".join(c for c in letters if c not in dropped)
        return Term(shaped(context, x, tuple(mine[c] for c in rest)), rest)

    return trimmed(a, b), trimmed(b, a)
