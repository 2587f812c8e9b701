"""Rules about how many inputs and outputs models without a network have, and of which types.

The table holds what Apple's checker asks for; `ANY` stands for any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlferry.layers.validate.layers import known_enum_values
from mlferry.layers.validate.rules import model_rule
from mlferry.spec.problems import Problems, warning, within
from mlferry.spec.proto import model_pb2

ANY = 0


@dataclass(frozen=True)
class Features:
    """The inputs or the outputs of a kind of model.

    Attributes:
        most: how many there are at most.
        types: those that each may have.
    """

    most: int
    types: tuple[str, ...]


_INTEGER, _DOUBLE, _STRING = "int64Type", "doubleType", "stringType"
_ARRAY, _DICTIONARY, _SEQUENCE, _IMAGE = (
    "multiArrayType",
    "dictionaryType",
    "sequenceType",
    "imageType",
)
_NUMBERS = (_DOUBLE, _INTEGER, _ARRAY)
_ONE_ARRAY, _ONE_STRING = Features(1, (_ARRAY,)), Features(1, (_STRING,))
_ONE_DICTIONARY = Features(1, (_DICTIONARY,))
_IMPUTED = Features(1, (_INTEGER, _DOUBLE, _ARRAY, _STRING, _DICTIONARY))

SIGNATURES: dict[str, tuple[Features | None, Features | None]] = {
    "glmRegressor": (Features(ANY, _NUMBERS), Features(ANY, (_DOUBLE,))),
    "glmClassifier": (Features(ANY, _NUMBERS), None),
    "supportVectorRegressor": (Features(ANY, _NUMBERS), None),
    "supportVectorClassifier": (Features(ANY, _NUMBERS), None),
    "treeEnsembleRegressor": (None, None),
    "treeEnsembleClassifier": (None, None),
    "scaler": (Features(1, _NUMBERS), Features(1, _NUMBERS)),
    "imputer": (_IMPUTED, _IMPUTED),
    "normalizer": (_ONE_ARRAY, _ONE_ARRAY),
    "oneHotEncoder": (Features(1, (_INTEGER, _STRING)), Features(1, (_DICTIONARY, _ARRAY))),
    "categoricalMapping": (
        Features(1, (_STRING, _INTEGER, _SEQUENCE)),
        Features(1, (_STRING, _INTEGER, _SEQUENCE)),
    ),
    "dictVectorizer": (_ONE_DICTIONARY, _ONE_DICTIONARY),
    "featureVectorizer": (Features(ANY, (*_NUMBERS, _DICTIONARY)), _ONE_ARRAY),
    "arrayFeatureExtractor": (_ONE_ARRAY, Features(1, _NUMBERS)),
    "bayesianProbitRegressor": (Features(ANY, (_ARRAY,)), None),
    "textClassifier": (_ONE_STRING, _ONE_STRING),
    "gazetteer": (_ONE_STRING, _ONE_STRING),
    "wordTagger": (_ONE_STRING, Features(ANY, (_SEQUENCE,))),
    "wordEmbedding": (_ONE_STRING, _ONE_ARRAY),
    "visionFeaturePrint": (Features(1, (_IMAGE,)), Features(2, (_ARRAY,))),
    "soundAnalysisPreprocessing": (_ONE_ARRAY, _ONE_ARRAY),
    "audioFeaturePrint": (_ONE_ARRAY, _ONE_ARRAY),
}


@model_rule
def parameters_have_known_values(spec: model_pb2.Model) -> Problems:
    """Every enum field of a model without a network holds a value that exists."""
    kind = spec.WhichOneof("Type")
    if kind in SIGNATURES:
        yield from within(kind, known_enum_values(getattr(spec, kind)))


@model_rule
def features_of_the_kind(spec: model_pb2.Model) -> Problems:
    """Inputs and outputs are as many as the kind has, and of its types."""
    kind = spec.WhichOneof("Type") or ""
    takes, gives = SIGNATURES.get(kind, (None, None))
    for role, described, allowed in (
        ("input", spec.description.input, takes),
        ("output", spec.description.output, gives),
    ):
        if allowed is not None:
            yield from _features(kind, role, described, allowed)


def _features(
    kind: str, role: str, described: Sequence[model_pb2.FeatureDescription], allowed: Features
) -> Problems:
    if allowed.most and len(described) > allowed.most:
        most = f"{allowed.most} {role}" + "s" * (allowed.most > 1)
        yield warning(f"{kind} models have {most} at most; this has {len(described)}", "model")
    for feature in described:
        type_ = type_of(feature)
        if type_ is not None and type_ not in allowed.types:
            text = f"its type is {type_}; {role}s of {kind} models are {' or '.join(allowed.types)}"
            yield from within(f"{role} {feature.name!r}", [warning(text)])


def type_of(feature: model_pb2.FeatureDescription) -> str | None:
    """The name of a feature's type."""
    name: str | None = feature.type.WhichOneof("Type")
    return name


def described(
    features: Sequence[model_pb2.FeatureDescription], name: str, field: str, types: Sequence[str]
) -> Problems:
    """A feature that a parameter names exists, with one of some types."""
    feature_of_name = next((feature for feature in features if feature.name == name), None)
    if feature_of_name is None:
        yield warning(f"{field} is {name!r}; the description has no such feature")
    elif type_of(feature_of_name) not in types:
        yield warning(
            f"{field} {name!r} is a {type_of(feature_of_name)}; it must be {' or '.join(types)}"
        )
