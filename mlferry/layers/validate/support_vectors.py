"""Rules about support vector machines, as in Apple's checker."""

from __future__ import annotations

from typing import Any

from mlferry.layers.validate.rules import kind_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problems, error, listed, warning
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

_KINDS = ("supportVectorClassifier", "supportVectorRegressor")
Machine = pp.SupportVectorRegressor | pp.SupportVectorClassifier
_KERNELS = "linearKernel, rbfKernel, polyKernel and sigmoidKernel"


def _vectors(params: Machine) -> Any:
    field = params.WhichOneof("supportVectors")
    return getattr(params, field).vectors if field else ()


@kind_rule(*_KINDS)
def support_vector_kernel(spec: model_pb2.Model, params: Machine) -> Problems:
    """There is a kernel; degree and gamma are not below 0."""
    kernel = params.kernel
    which = kernel.WhichOneof("kernel")
    if which is None:
        yield error(f"it has no kernel; possible are {_KERNELS}")
        return
    result = getattr(kernel, which)
    for name in ("degree", "gamma"):
        value = getattr(result, name, 0)
        if value < 0:
            yield (error if name == "degree" else warning)(
                f"{name} of its {which} is {value}; the smallest is 0"
            )


@kind_rule(*_KINDS)
def support_vectors(spec: model_pb2.Model, params: Machine) -> Problems:
    """There are vectors: dense ones of one length, or sparse ones with unique elements."""
    field = params.WhichOneof("supportVectors")
    if field is None:
        yield error("it has neither denseSupportVectors nor sparseSupportVectors")
    elif field == "denseSupportVectors":
        lengths = sorted({len(vector.values) for vector in _vectors(params)})
        if len(lengths) > 1:
            yield error(f"its support vectors are of several lengths: {listed(lengths)}")
    for vector in params.sparseSupportVectors.vectors:
        places = [node.index for node in vector.nodes]
        if min(places, default=1) < 1:
            yield error(f"a sparse vector has an element {min(places)}; they count from 1")
            return
        if len(set(places)) < len(places):
            yield error("a sparse vector has a value for the same element twice")
            return


@kind_rule(*_KINDS)
def support_vector_coefficients(spec: model_pb2.Model, params: Machine) -> Problems:
    """A regressor has one coefficient per vector, a classifier one per further class."""
    count = len(_vectors(params))
    if isinstance(params, pp.SupportVectorClassifier):
        rows = list(params.coefficients)
    else:
        rows = [params.coefficients]
    for row in rows:
        if len(row.alpha) != count:
            yield error(f"{len(row.alpha)} coefficients for {count} support vectors")
            return


@kind_rule("supportVectorClassifier")
def support_vector_classes(spec: model_pb2.Model, params: pp.SupportVectorClassifier) -> Problems:
    """The numbers of vectors, coefficients, rho and probabilities fit the number of classes."""
    classes = len(networks.class_labels(params))
    pairs = classes * (classes - 1) // 2
    counts = list(params.numberOfSupportVectorsPerClass)
    if classes < 2:
        yield error(f"it has {classes} classes; there are at least two")
        return
    if len(params.coefficients) != classes - 1:
        result = f"{len(params.coefficients)} rows of coefficients for {classes} classes"
        yield error(f"{result}; there are {classes - 1}")
    if len(counts) != classes:
        yield error(f"{len(counts)} numberOfSupportVectorsPerClass for {classes} classes")
    if min(counts, default=0) < 0 or sum(counts) != len(_vectors(params)):
        result = f"numberOfSupportVectorsPerClass are {listed(counts)}"
        yield error(f"{result}, and there are {len(_vectors(params))} support vectors")
    if len(params.rho) != pairs:
        yield error(f"{len(params.rho)} rho for {pairs} pairs of classes")
    for name in ("probA", "probB"):
        if len(getattr(params, name)) not in (0, pairs):
            result = f"{len(getattr(params, name))} {name} for {pairs} pairs of classes"
            yield error(result)
    if bool(params.probA) != bool(params.probB):
        yield error("it has one of probA and probB, and not the other")
    if spec.description.predictedProbabilitiesName and not params.probA:
        yield warning(
            "predictedProbabilitiesName names an output that cannot be computed without probA and "
            "probB"
        )
