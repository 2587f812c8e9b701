from mlferry.spec.proto import features_pb2 as _features_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ArrayFeatureExtractor(_message.Message):
    __slots__ = ["extractIndex"]
    EXTRACTINDEX_FIELD_NUMBER: _ClassVar[int]
    extractIndex: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, extractIndex: _Optional[_Iterable[int]] = ...) -> None: ...

class CategoricalMapping(_message.Message):
    __slots__ = ["int64ToStringMap", "int64Value", "strValue", "stringToInt64Map"]
    INT64TOSTRINGMAP_FIELD_NUMBER: _ClassVar[int]
    INT64VALUE_FIELD_NUMBER: _ClassVar[int]
    STRINGTOINT64MAP_FIELD_NUMBER: _ClassVar[int]
    STRVALUE_FIELD_NUMBER: _ClassVar[int]
    int64ToStringMap: _features_pb2.Int64ToStringMap
    int64Value: int
    strValue: str
    stringToInt64Map: _features_pb2.StringToInt64Map
    def __init__(self, stringToInt64Map: _Optional[_Union[_features_pb2.StringToInt64Map, _Mapping]] = ..., int64ToStringMap: _Optional[_Union[_features_pb2.Int64ToStringMap, _Mapping]] = ..., strValue: _Optional[str] = ..., int64Value: _Optional[int] = ...) -> None: ...

class ClassConfidenceThresholding(_message.Message):
    __slots__ = ["precisionRecallCurves"]
    PRECISIONRECALLCURVES_FIELD_NUMBER: _ClassVar[int]
    precisionRecallCurves: _containers.RepeatedCompositeFieldContainer[_features_pb2.PrecisionRecallCurve]
    def __init__(self, precisionRecallCurves: _Optional[_Iterable[_Union[_features_pb2.PrecisionRecallCurve, _Mapping]]] = ...) -> None: ...

class DictVectorizer(_message.Message):
    __slots__ = ["int64ToIndex", "stringToIndex"]
    INT64TOINDEX_FIELD_NUMBER: _ClassVar[int]
    STRINGTOINDEX_FIELD_NUMBER: _ClassVar[int]
    int64ToIndex: _features_pb2.Int64Vector
    stringToIndex: _features_pb2.StringVector
    def __init__(self, stringToIndex: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64ToIndex: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ...) -> None: ...

class FeatureVectorizer(_message.Message):
    __slots__ = ["inputList"]
    class InputColumn(_message.Message):
        __slots__ = ["inputColumn", "inputDimensions"]
        INPUTCOLUMN_FIELD_NUMBER: _ClassVar[int]
        INPUTDIMENSIONS_FIELD_NUMBER: _ClassVar[int]
        inputColumn: str
        inputDimensions: int
        def __init__(self, inputColumn: _Optional[str] = ..., inputDimensions: _Optional[int] = ...) -> None: ...
    INPUTLIST_FIELD_NUMBER: _ClassVar[int]
    inputList: _containers.RepeatedCompositeFieldContainer[FeatureVectorizer.InputColumn]
    def __init__(self, inputList: _Optional[_Iterable[_Union[FeatureVectorizer.InputColumn, _Mapping]]] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Imputer(_message.Message):
    __slots__ = ["imputedDoubleArray", "imputedDoubleValue", "imputedInt64Array", "imputedInt64Dictionary", "imputedInt64Value", "imputedStringDictionary", "imputedStringValue", "replaceDoubleValue", "replaceInt64Value", "replaceStringValue"]
    IMPUTEDDOUBLEARRAY_FIELD_NUMBER: _ClassVar[int]
    IMPUTEDDOUBLEVALUE_FIELD_NUMBER: _ClassVar[int]
    IMPUTEDINT64ARRAY_FIELD_NUMBER: _ClassVar[int]
    IMPUTEDINT64DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    IMPUTEDINT64VALUE_FIELD_NUMBER: _ClassVar[int]
    IMPUTEDSTRINGDICTIONARY_FIELD_NUMBER: _ClassVar[int]
    IMPUTEDSTRINGVALUE_FIELD_NUMBER: _ClassVar[int]
    REPLACEDOUBLEVALUE_FIELD_NUMBER: _ClassVar[int]
    REPLACEINT64VALUE_FIELD_NUMBER: _ClassVar[int]
    REPLACESTRINGVALUE_FIELD_NUMBER: _ClassVar[int]
    imputedDoubleArray: _features_pb2.DoubleVector
    imputedDoubleValue: float
    imputedInt64Array: _features_pb2.Int64Vector
    imputedInt64Dictionary: _features_pb2.Int64ToDoubleMap
    imputedInt64Value: int
    imputedStringDictionary: _features_pb2.StringToDoubleMap
    imputedStringValue: str
    replaceDoubleValue: float
    replaceInt64Value: int
    replaceStringValue: str
    def __init__(self, imputedDoubleValue: _Optional[float] = ..., imputedInt64Value: _Optional[int] = ..., imputedStringValue: _Optional[str] = ..., imputedDoubleArray: _Optional[_Union[_features_pb2.DoubleVector, _Mapping]] = ..., imputedInt64Array: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ..., imputedStringDictionary: _Optional[_Union[_features_pb2.StringToDoubleMap, _Mapping]] = ..., imputedInt64Dictionary: _Optional[_Union[_features_pb2.Int64ToDoubleMap, _Mapping]] = ..., replaceDoubleValue: _Optional[float] = ..., replaceInt64Value: _Optional[int] = ..., replaceStringValue: _Optional[str] = ...) -> None: ...

class NonMaximumSuppression(_message.Message):
    __slots__ = ["confidenceInputFeatureName", "confidenceOutputFeatureName", "confidenceThreshold", "confidenceThresholdInputFeatureName", "coordinatesInputFeatureName", "coordinatesOutputFeatureName", "int64ClassLabels", "iouThreshold", "iouThresholdInputFeatureName", "pickTop", "stringClassLabels"]
    class PickTop(_message.Message):
        __slots__ = ["perClass"]
        PERCLASS_FIELD_NUMBER: _ClassVar[int]
        perClass: bool
        def __init__(self, perClass: bool = ...) -> None: ...
    CONFIDENCEINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCEOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCETHRESHOLDINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCETHRESHOLD_FIELD_NUMBER: _ClassVar[int]
    COORDINATESINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    COORDINATESOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    INT64CLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    IOUTHRESHOLDINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    IOUTHRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PICKTOP_FIELD_NUMBER: _ClassVar[int]
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    confidenceInputFeatureName: str
    confidenceOutputFeatureName: str
    confidenceThreshold: float
    confidenceThresholdInputFeatureName: str
    coordinatesInputFeatureName: str
    coordinatesOutputFeatureName: str
    int64ClassLabels: _features_pb2.Int64Vector
    iouThreshold: float
    iouThresholdInputFeatureName: str
    pickTop: NonMaximumSuppression.PickTop
    stringClassLabels: _features_pb2.StringVector
    def __init__(self, pickTop: _Optional[_Union[NonMaximumSuppression.PickTop, _Mapping]] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64ClassLabels: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ..., iouThreshold: _Optional[float] = ..., confidenceThreshold: _Optional[float] = ..., confidenceInputFeatureName: _Optional[str] = ..., coordinatesInputFeatureName: _Optional[str] = ..., iouThresholdInputFeatureName: _Optional[str] = ..., confidenceThresholdInputFeatureName: _Optional[str] = ..., confidenceOutputFeatureName: _Optional[str] = ..., coordinatesOutputFeatureName: _Optional[str] = ...) -> None: ...

class Normalizer(_message.Message):
    __slots__ = ["normType"]
    class NormType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    L1: Normalizer.NormType
    L2: Normalizer.NormType
    LMax: Normalizer.NormType
    NORMTYPE_FIELD_NUMBER: _ClassVar[int]
    normType: Normalizer.NormType
    def __init__(self, normType: _Optional[_Union[Normalizer.NormType, str]] = ...) -> None: ...

class OneHotEncoder(_message.Message):
    __slots__ = ["handleUnknown", "int64Categories", "outputSparse", "stringCategories"]
    class HandleUnknown(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ErrorOnUnknown: OneHotEncoder.HandleUnknown
    HANDLEUNKNOWN_FIELD_NUMBER: _ClassVar[int]
    INT64CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    IgnoreUnknown: OneHotEncoder.HandleUnknown
    OUTPUTSPARSE_FIELD_NUMBER: _ClassVar[int]
    STRINGCATEGORIES_FIELD_NUMBER: _ClassVar[int]
    handleUnknown: OneHotEncoder.HandleUnknown
    int64Categories: _features_pb2.Int64Vector
    outputSparse: bool
    stringCategories: _features_pb2.StringVector
    def __init__(self, stringCategories: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64Categories: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ..., outputSparse: bool = ..., handleUnknown: _Optional[_Union[OneHotEncoder.HandleUnknown, str]] = ...) -> None: ...

class Scaler(_message.Message):
    __slots__ = ["scaleValue", "shiftValue"]
    SCALEVALUE_FIELD_NUMBER: _ClassVar[int]
    SHIFTVALUE_FIELD_NUMBER: _ClassVar[int]
    scaleValue: _containers.RepeatedScalarFieldContainer[float]
    shiftValue: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, shiftValue: _Optional[_Iterable[float]] = ..., scaleValue: _Optional[_Iterable[float]] = ...) -> None: ...
