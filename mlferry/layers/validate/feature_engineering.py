"""Rules about models that prepare features, as in Apple's checker."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.layers.validate.rules import kind_rule
from mlferry.layers.validate.signatures import type_of
from mlferry.spec.problems import Problems, listed, warning
from mlferry.spec.proto import model_pb2, transforms_pb2 as tf

# By what is filled in: the types of features that take it, and how what is replaced is given.
_IMPUTED: dict[str, tuple[tuple[str, ...], str]] = {
    "imputedDoubleValue": (("doubleType", "multiArrayType"), "replaceDoubleValue"),
    "imputedInt64Value": (("int64Type",), "replaceInt64Value"),
    "imputedStringValue": (("stringType",), "replaceStringValue"),
    "imputedDoubleArray": (("multiArrayType",), "replaceDoubleValue"),
    "imputedInt64Array": (("multiArrayType",), "replaceInt64Value"),
    "imputedStringDictionary": (("dictionaryType",), ""),
    "imputedInt64Dictionary": (("dictionaryType",), ""),
}
# By the kind of mapping: what it reads, what it gives, and the field for unknown values.
_MAPPED = {
    "stringToInt64Map": ("stringType", "int64Type", "int64Value"),
    "int64ToStringMap": ("int64Type", "stringType", "strValue"),
}


def _ends(
    spec: model_pb2.Model,
) -> tuple[model_pb2.FeatureDescription, model_pb2.FeatureDescription] | None:
    """The input and the output; None without them."""
    inputs, outputs = spec.description.input, spec.description.output
    return (inputs[0], outputs[0]) if inputs and outputs else None


def _vectors(
    source: model_pb2.FeatureDescription, target: model_pb2.FeatureDescription
) -> Problems:
    """Arrays have one axis, and are as long before as after."""
    shape, result_shape = source.type.multiArrayType.shape, target.type.multiArrayType.shape
    if len(shape) != 1:
        yield warning(f"its input has the shape {listed(shape)}; arrays here have one axis")
    elif list(shape) != list(result_shape):
        yield warning(f"its input has the shape {listed(shape)}, its output {listed(result_shape)}")


@kind_rule("scaler")
def scaler(spec: model_pb2.Model, params: tf.Scaler) -> Problems:
    """Types stay, but integers may become doubles; there is one value, or one per element."""
    ends = _ends(spec)
    if ends is None:
        return
    source, target = ends
    before, after = type_of(source), type_of(target)
    if after != before and (before, after) != ("int64Type", "doubleType"):
        yield warning(f"its input is a {before}, and its output a {after}")
    sizes = {0, 1}
    if before == "multiArrayType":
        yield from _vectors(source, target)
        sizes |= set(source.type.multiArrayType.shape[:1])
    for field in ("shiftValue", "scaleValue"):
        count = len(getattr(params, field))
        if count not in sizes:
            allowed = " or ".join(map(str, sorted(sizes)))
            yield warning(f"{field} has {count} values; possible are {allowed}")


@kind_rule("imputer")
def imputer(spec: model_pb2.Model, params: tf.Imputer) -> Problems:
    """What is filled in, and what it replaces, have the type of the feature."""
    field, replaced = params.WhichOneof("ImputedValue"), params.WhichOneof("ReplaceValue")
    if field is None:
        yield warning(f"it has nothing to fill in; possible are {', '.join(_IMPUTED)}")
        return
    ends = _ends(spec)
    if ends is None:
        return
    source, target = ends
    if type_of(source) != type_of(target):
        yield warning(f"its input is a {type_of(source)}, and its output a {type_of(target)}")
    types, marker = _IMPUTED[field]
    if type_of(source) not in types:
        yield warning(f"{field} is for inputs of {' or '.join(types)}, not {type_of(source)}")
    if replaced not in (None, marker):
        yield warning(f"{replaced} does not go with {field}" + (f"; {marker} does" * bool(marker)))
    if type_of(source) != "multiArrayType":
        return
    yield from _vectors(source, target)
    if field in ("imputedDoubleArray", "imputedInt64Array"):
        count, shape = len(getattr(params, field).vector), source.type.multiArrayType.shape
        if [count] != list(shape):
            yield warning(f"{field} has {count} values for an input of shape {listed(shape)}")


@kind_rule("oneHotEncoder")
def one_hot_encoder(spec: model_pb2.Model, params: tf.OneHotEncoder) -> Problems:
    """There are categories; the output is sparse or dense as the parameters say."""
    if params.WhichOneof("CategoryType") is None:
        yield warning("it has no categories: neither stringCategories nor int64Categories")
    kind_of_output = "dictionaryType" if params.outputSparse else "multiArrayType"
    for feature in spec.description.output:
        if type_of(feature) != kind_of_output:
            sparse = str(params.outputSparse).lower()
            yield warning(f"outputSparse is {sparse}, so its output must be a {kind_of_output}")


@kind_rule("categoricalMapping")
def categorical_mapping(spec: model_pb2.Model, params: tf.CategoricalMapping) -> Problems:
    """There is a mapping, and it has the types of the features."""
    field, unknown = params.WhichOneof("MappingType"), params.WhichOneof("ValueOnUnknown")
    if field is None:
        yield warning(f"it has no mapping; possible are {' and '.join(_MAPPED)}")
        return
    takes, gives, value = _MAPPED[field]
    if unknown not in (None, value):
        yield warning(f"{unknown} is set, but {field} gives {gives}; {value} does")
    features = (*spec.description.input, *spec.description.output)
    sequence = any(type_of(feature) == "sequenceType" for feature in features)
    for role, described, single in (
        ("input", spec.description.input, takes),
        ("output", spec.description.output, gives),
    ):
        for feature in described:
            yield from _mapped(f"its {role}", feature, single, sequence)


def _mapped(
    place: str, feature: model_pb2.FeatureDescription, single: str, sequence: bool
) -> Problems:
    inner = feature.type.sequenceType.WhichOneof("Type") if sequence else None
    if sequence and (type_of(feature) != "sequenceType" or inner != single):
        yield warning(f"{place} must be a sequence of {single}, as the mapping is")
    elif not sequence and type_of(feature) != single:
        yield warning(f"{place} is a {type_of(feature)}; by the mapping it is a {single}")


@kind_rule("dictVectorizer")
def dict_vectorizer(spec: model_pb2.Model, params: tf.DictVectorizer) -> Problems:
    """There is a list of keys."""
    if params.WhichOneof("Map") is None:
        yield warning("it has no keys: neither stringToIndex nor int64ToIndex")


@kind_rule("featureVectorizer")
def feature_vectorizer(spec: model_pb2.Model, params: tf.FeatureVectorizer) -> Problems:
    """Columns have a size."""
    empty = [column.inputColumn for column in params.inputList if column.inputDimensions < 1]
    if empty:
        yield warning(f"columns without a size: {_names(empty)}; inputDimensions begins at 1")


@kind_rule("arrayFeatureExtractor")
def array_feature_extractor(spec: model_pb2.Model, params: tf.ArrayFeatureExtractor) -> Problems:
    """There is an array to extract from; one element goes into a number."""
    if not spec.description.input:
        yield warning("it has no input to extract from")
    count = len(params.extractIndex)
    if count != 1 and any(type_of(item) == "doubleType" for item in spec.description.output):
        yield warning(f"extractIndex has {count} entries for an output of doubleType; it needs 1")


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
