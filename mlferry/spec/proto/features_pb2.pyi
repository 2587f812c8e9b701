from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ArrayFeatureType(_message.Message):
    __slots__ = ["dataType", "doubleDefaultValue", "enumeratedShapes", "floatDefaultValue", "intDefaultValue", "shape", "shapeRange"]
    class ArrayDataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class EnumeratedShapes(_message.Message):
        __slots__ = ["shapes"]
        SHAPES_FIELD_NUMBER: _ClassVar[int]
        shapes: _containers.RepeatedCompositeFieldContainer[ArrayFeatureType.Shape]
        def __init__(self, shapes: _Optional[_Iterable[_Union[ArrayFeatureType.Shape, _Mapping]]] = ...) -> None: ...
    class Shape(_message.Message):
        __slots__ = ["shape"]
        SHAPE_FIELD_NUMBER: _ClassVar[int]
        shape: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, shape: _Optional[_Iterable[int]] = ...) -> None: ...
    class ShapeRange(_message.Message):
        __slots__ = ["sizeRanges"]
        SIZERANGES_FIELD_NUMBER: _ClassVar[int]
        sizeRanges: _containers.RepeatedCompositeFieldContainer[SizeRange]
        def __init__(self, sizeRanges: _Optional[_Iterable[_Union[SizeRange, _Mapping]]] = ...) -> None: ...
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE: ArrayFeatureType.ArrayDataType
    DOUBLEDEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    ENUMERATEDSHAPES_FIELD_NUMBER: _ClassVar[int]
    FLOAT16: ArrayFeatureType.ArrayDataType
    FLOAT32: ArrayFeatureType.ArrayDataType
    FLOATDEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    INT32: ArrayFeatureType.ArrayDataType
    INT8: ArrayFeatureType.ArrayDataType
    INTDEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    INVALID_ARRAY_DATA_TYPE: ArrayFeatureType.ArrayDataType
    SHAPERANGE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dataType: ArrayFeatureType.ArrayDataType
    doubleDefaultValue: float
    enumeratedShapes: ArrayFeatureType.EnumeratedShapes
    floatDefaultValue: float
    intDefaultValue: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    shapeRange: ArrayFeatureType.ShapeRange
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., dataType: _Optional[_Union[ArrayFeatureType.ArrayDataType, str]] = ..., enumeratedShapes: _Optional[_Union[ArrayFeatureType.EnumeratedShapes, _Mapping]] = ..., shapeRange: _Optional[_Union[ArrayFeatureType.ShapeRange, _Mapping]] = ..., intDefaultValue: _Optional[int] = ..., floatDefaultValue: _Optional[float] = ..., doubleDefaultValue: _Optional[float] = ...) -> None: ...

class BoolParameter(_message.Message):
    __slots__ = ["defaultValue"]
    DEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    defaultValue: bool
    def __init__(self, defaultValue: bool = ...) -> None: ...

class DictionaryFeatureType(_message.Message):
    __slots__ = ["int64KeyType", "stringKeyType"]
    INT64KEYTYPE_FIELD_NUMBER: _ClassVar[int]
    STRINGKEYTYPE_FIELD_NUMBER: _ClassVar[int]
    int64KeyType: Int64FeatureType
    stringKeyType: StringFeatureType
    def __init__(self, int64KeyType: _Optional[_Union[Int64FeatureType, _Mapping]] = ..., stringKeyType: _Optional[_Union[StringFeatureType, _Mapping]] = ...) -> None: ...

class DoubleFeatureType(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class DoubleParameter(_message.Message):
    __slots__ = ["defaultValue", "range"]
    DEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    defaultValue: float
    range: DoubleRange
    def __init__(self, defaultValue: _Optional[float] = ..., range: _Optional[_Union[DoubleRange, _Mapping]] = ...) -> None: ...

class DoubleRange(_message.Message):
    __slots__ = ["maxValue", "minValue"]
    MAXVALUE_FIELD_NUMBER: _ClassVar[int]
    MINVALUE_FIELD_NUMBER: _ClassVar[int]
    maxValue: float
    minValue: float
    def __init__(self, minValue: _Optional[float] = ..., maxValue: _Optional[float] = ...) -> None: ...

class DoubleVector(_message.Message):
    __slots__ = ["vector"]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    vector: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, vector: _Optional[_Iterable[float]] = ...) -> None: ...

class FeatureType(_message.Message):
    __slots__ = ["dictionaryType", "doubleType", "imageType", "int64Type", "isOptional", "multiArrayType", "sequenceType", "stateType", "stringType"]
    DICTIONARYTYPE_FIELD_NUMBER: _ClassVar[int]
    DOUBLETYPE_FIELD_NUMBER: _ClassVar[int]
    IMAGETYPE_FIELD_NUMBER: _ClassVar[int]
    INT64TYPE_FIELD_NUMBER: _ClassVar[int]
    ISOPTIONAL_FIELD_NUMBER: _ClassVar[int]
    MULTIARRAYTYPE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCETYPE_FIELD_NUMBER: _ClassVar[int]
    STATETYPE_FIELD_NUMBER: _ClassVar[int]
    STRINGTYPE_FIELD_NUMBER: _ClassVar[int]
    dictionaryType: DictionaryFeatureType
    doubleType: DoubleFeatureType
    imageType: ImageFeatureType
    int64Type: Int64FeatureType
    isOptional: bool
    multiArrayType: ArrayFeatureType
    sequenceType: SequenceFeatureType
    stateType: StateFeatureType
    stringType: StringFeatureType
    def __init__(self, int64Type: _Optional[_Union[Int64FeatureType, _Mapping]] = ..., doubleType: _Optional[_Union[DoubleFeatureType, _Mapping]] = ..., stringType: _Optional[_Union[StringFeatureType, _Mapping]] = ..., imageType: _Optional[_Union[ImageFeatureType, _Mapping]] = ..., multiArrayType: _Optional[_Union[ArrayFeatureType, _Mapping]] = ..., dictionaryType: _Optional[_Union[DictionaryFeatureType, _Mapping]] = ..., sequenceType: _Optional[_Union[SequenceFeatureType, _Mapping]] = ..., stateType: _Optional[_Union[StateFeatureType, _Mapping]] = ..., isOptional: bool = ...) -> None: ...

class FloatVector(_message.Message):
    __slots__ = ["vector"]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    vector: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, vector: _Optional[_Iterable[float]] = ...) -> None: ...

class ImageFeatureType(_message.Message):
    __slots__ = ["colorSpace", "enumeratedSizes", "height", "imageSizeRange", "width"]
    class ColorSpace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class EnumeratedImageSizes(_message.Message):
        __slots__ = ["sizes"]
        SIZES_FIELD_NUMBER: _ClassVar[int]
        sizes: _containers.RepeatedCompositeFieldContainer[ImageFeatureType.ImageSize]
        def __init__(self, sizes: _Optional[_Iterable[_Union[ImageFeatureType.ImageSize, _Mapping]]] = ...) -> None: ...
    class ImageSize(_message.Message):
        __slots__ = ["height", "width"]
        HEIGHT_FIELD_NUMBER: _ClassVar[int]
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        height: int
        width: int
        def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...
    class ImageSizeRange(_message.Message):
        __slots__ = ["heightRange", "widthRange"]
        HEIGHTRANGE_FIELD_NUMBER: _ClassVar[int]
        WIDTHRANGE_FIELD_NUMBER: _ClassVar[int]
        heightRange: SizeRange
        widthRange: SizeRange
        def __init__(self, widthRange: _Optional[_Union[SizeRange, _Mapping]] = ..., heightRange: _Optional[_Union[SizeRange, _Mapping]] = ...) -> None: ...
    BGR: ImageFeatureType.ColorSpace
    COLORSPACE_FIELD_NUMBER: _ClassVar[int]
    ENUMERATEDSIZES_FIELD_NUMBER: _ClassVar[int]
    GRAYSCALE: ImageFeatureType.ColorSpace
    GRAYSCALE_FLOAT16: ImageFeatureType.ColorSpace
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    IMAGESIZERANGE_FIELD_NUMBER: _ClassVar[int]
    INVALID_COLOR_SPACE: ImageFeatureType.ColorSpace
    RGB: ImageFeatureType.ColorSpace
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    colorSpace: ImageFeatureType.ColorSpace
    enumeratedSizes: ImageFeatureType.EnumeratedImageSizes
    height: int
    imageSizeRange: ImageFeatureType.ImageSizeRange
    width: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., enumeratedSizes: _Optional[_Union[ImageFeatureType.EnumeratedImageSizes, _Mapping]] = ..., imageSizeRange: _Optional[_Union[ImageFeatureType.ImageSizeRange, _Mapping]] = ..., colorSpace: _Optional[_Union[ImageFeatureType.ColorSpace, str]] = ...) -> None: ...

class Int64FeatureType(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Int64Parameter(_message.Message):
    __slots__ = ["defaultValue", "range", "set"]
    DEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    defaultValue: int
    range: Int64Range
    set: Int64Set
    def __init__(self, defaultValue: _Optional[int] = ..., range: _Optional[_Union[Int64Range, _Mapping]] = ..., set: _Optional[_Union[Int64Set, _Mapping]] = ...) -> None: ...

class Int64Range(_message.Message):
    __slots__ = ["maxValue", "minValue"]
    MAXVALUE_FIELD_NUMBER: _ClassVar[int]
    MINVALUE_FIELD_NUMBER: _ClassVar[int]
    maxValue: int
    minValue: int
    def __init__(self, minValue: _Optional[int] = ..., maxValue: _Optional[int] = ...) -> None: ...

class Int64Set(_message.Message):
    __slots__ = ["values"]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class Int64ToDoubleMap(_message.Message):
    __slots__ = ["map"]
    class MapEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: float
        def __init__(self, key: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _containers.ScalarMap[int, float]
    def __init__(self, map: _Optional[_Mapping[int, float]] = ...) -> None: ...

class Int64ToStringMap(_message.Message):
    __slots__ = ["map"]
    class MapEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _containers.ScalarMap[int, str]
    def __init__(self, map: _Optional[_Mapping[int, str]] = ...) -> None: ...

class Int64Vector(_message.Message):
    __slots__ = ["vector"]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    vector: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, vector: _Optional[_Iterable[int]] = ...) -> None: ...

class PrecisionRecallCurve(_message.Message):
    __slots__ = ["precisionConfidenceThresholds", "precisionValues", "recallConfidenceThresholds", "recallValues"]
    PRECISIONCONFIDENCETHRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    PRECISIONVALUES_FIELD_NUMBER: _ClassVar[int]
    RECALLCONFIDENCETHRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    RECALLVALUES_FIELD_NUMBER: _ClassVar[int]
    precisionConfidenceThresholds: FloatVector
    precisionValues: FloatVector
    recallConfidenceThresholds: FloatVector
    recallValues: FloatVector
    def __init__(self, precisionValues: _Optional[_Union[FloatVector, _Mapping]] = ..., precisionConfidenceThresholds: _Optional[_Union[FloatVector, _Mapping]] = ..., recallValues: _Optional[_Union[FloatVector, _Mapping]] = ..., recallConfidenceThresholds: _Optional[_Union[FloatVector, _Mapping]] = ...) -> None: ...

class SequenceFeatureType(_message.Message):
    __slots__ = ["int64Type", "sizeRange", "stringType"]
    INT64TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZERANGE_FIELD_NUMBER: _ClassVar[int]
    STRINGTYPE_FIELD_NUMBER: _ClassVar[int]
    int64Type: Int64FeatureType
    sizeRange: SizeRange
    stringType: StringFeatureType
    def __init__(self, int64Type: _Optional[_Union[Int64FeatureType, _Mapping]] = ..., stringType: _Optional[_Union[StringFeatureType, _Mapping]] = ..., sizeRange: _Optional[_Union[SizeRange, _Mapping]] = ...) -> None: ...

class SizeRange(_message.Message):
    __slots__ = ["lowerBound", "upperBound"]
    LOWERBOUND_FIELD_NUMBER: _ClassVar[int]
    UPPERBOUND_FIELD_NUMBER: _ClassVar[int]
    lowerBound: int
    upperBound: int
    def __init__(self, lowerBound: _Optional[int] = ..., upperBound: _Optional[int] = ...) -> None: ...

class StateFeatureType(_message.Message):
    __slots__ = ["arrayType"]
    ARRAYTYPE_FIELD_NUMBER: _ClassVar[int]
    arrayType: ArrayFeatureType
    def __init__(self, arrayType: _Optional[_Union[ArrayFeatureType, _Mapping]] = ...) -> None: ...

class StringFeatureType(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StringParameter(_message.Message):
    __slots__ = ["defaultValue"]
    DEFAULTVALUE_FIELD_NUMBER: _ClassVar[int]
    defaultValue: str
    def __init__(self, defaultValue: _Optional[str] = ...) -> None: ...

class StringToDoubleMap(_message.Message):
    __slots__ = ["map"]
    class MapEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _containers.ScalarMap[str, float]
    def __init__(self, map: _Optional[_Mapping[str, float]] = ...) -> None: ...

class StringToInt64Map(_message.Message):
    __slots__ = ["map"]
    class MapEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MAP_FIELD_NUMBER: _ClassVar[int]
    map: _containers.ScalarMap[str, int]
    def __init__(self, map: _Optional[_Mapping[str, int]] = ...) -> None: ...

class StringVector(_message.Message):
    __slots__ = ["vector"]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    vector: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, vector: _Optional[_Iterable[str]] = ...) -> None: ...
