from mlferry.spec.proto import features_pb2 as _features_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioFeaturePrint(_message.Message):
    __slots__ = ["sound"]
    class Sound(_message.Message):
        __slots__ = ["version"]
        class SoundVersion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = []
        SOUND_VERSION_1: AudioFeaturePrint.Sound.SoundVersion
        SOUND_VERSION_INVALID: AudioFeaturePrint.Sound.SoundVersion
        VERSION_FIELD_NUMBER: _ClassVar[int]
        version: AudioFeaturePrint.Sound.SoundVersion
        def __init__(self, version: _Optional[_Union[AudioFeaturePrint.Sound.SoundVersion, str]] = ...) -> None: ...
    SOUND_FIELD_NUMBER: _ClassVar[int]
    sound: AudioFeaturePrint.Sound
    def __init__(self, sound: _Optional[_Union[AudioFeaturePrint.Sound, _Mapping]] = ...) -> None: ...

class Gazetteer(_message.Message):
    __slots__ = ["language", "modelParameterData", "revision", "stringClassLabels"]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MODELPARAMETERDATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    language: str
    modelParameterData: bytes
    revision: int
    stringClassLabels: _features_pb2.StringVector
    def __init__(self, revision: _Optional[int] = ..., language: _Optional[str] = ..., modelParameterData: _Optional[bytes] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ...) -> None: ...

class SoundAnalysisPreprocessing(_message.Message):
    __slots__ = ["vggish"]
    class Vggish(_message.Message):
        __slots__ = []
        def __init__(self) -> None: ...
    VGGISH_FIELD_NUMBER: _ClassVar[int]
    vggish: SoundAnalysisPreprocessing.Vggish
    def __init__(self, vggish: _Optional[_Union[SoundAnalysisPreprocessing.Vggish, _Mapping]] = ...) -> None: ...

class TextClassifier(_message.Message):
    __slots__ = ["language", "modelParameterData", "revision", "stringClassLabels"]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MODELPARAMETERDATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    language: str
    modelParameterData: bytes
    revision: int
    stringClassLabels: _features_pb2.StringVector
    def __init__(self, revision: _Optional[int] = ..., language: _Optional[str] = ..., modelParameterData: _Optional[bytes] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ...) -> None: ...

class VisionFeaturePrint(_message.Message):
    __slots__ = ["objects", "scene"]
    class Objects(_message.Message):
        __slots__ = ["output", "version"]
        class ObjectsVersion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = []
        OBJECTS_VERSION_1: VisionFeaturePrint.Objects.ObjectsVersion
        OBJECTS_VERSION_INVALID: VisionFeaturePrint.Objects.ObjectsVersion
        OUTPUT_FIELD_NUMBER: _ClassVar[int]
        VERSION_FIELD_NUMBER: _ClassVar[int]
        output: _containers.RepeatedScalarFieldContainer[str]
        version: VisionFeaturePrint.Objects.ObjectsVersion
        def __init__(self, version: _Optional[_Union[VisionFeaturePrint.Objects.ObjectsVersion, str]] = ..., output: _Optional[_Iterable[str]] = ...) -> None: ...
    class Scene(_message.Message):
        __slots__ = ["version"]
        class SceneVersion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = []
        SCENE_VERSION_1: VisionFeaturePrint.Scene.SceneVersion
        SCENE_VERSION_2: VisionFeaturePrint.Scene.SceneVersion
        SCENE_VERSION_INVALID: VisionFeaturePrint.Scene.SceneVersion
        VERSION_FIELD_NUMBER: _ClassVar[int]
        version: VisionFeaturePrint.Scene.SceneVersion
        def __init__(self, version: _Optional[_Union[VisionFeaturePrint.Scene.SceneVersion, str]] = ...) -> None: ...
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    SCENE_FIELD_NUMBER: _ClassVar[int]
    objects: VisionFeaturePrint.Objects
    scene: VisionFeaturePrint.Scene
    def __init__(self, scene: _Optional[_Union[VisionFeaturePrint.Scene, _Mapping]] = ..., objects: _Optional[_Union[VisionFeaturePrint.Objects, _Mapping]] = ...) -> None: ...

class WordEmbedding(_message.Message):
    __slots__ = ["language", "modelParameterData", "revision"]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MODELPARAMETERDATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    language: str
    modelParameterData: bytes
    revision: int
    def __init__(self, revision: _Optional[int] = ..., language: _Optional[str] = ..., modelParameterData: _Optional[bytes] = ...) -> None: ...

class WordTagger(_message.Message):
    __slots__ = ["language", "modelParameterData", "revision", "stringTags", "tokenLengthsOutputFeatureName", "tokenLocationsOutputFeatureName", "tokenTagsOutputFeatureName", "tokensOutputFeatureName"]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    MODELPARAMETERDATA_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STRINGTAGS_FIELD_NUMBER: _ClassVar[int]
    TOKENLENGTHSOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    TOKENLOCATIONSOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    TOKENSOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    TOKENTAGSOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    language: str
    modelParameterData: bytes
    revision: int
    stringTags: _features_pb2.StringVector
    tokenLengthsOutputFeatureName: str
    tokenLocationsOutputFeatureName: str
    tokenTagsOutputFeatureName: str
    tokensOutputFeatureName: str
    def __init__(self, revision: _Optional[int] = ..., language: _Optional[str] = ..., tokensOutputFeatureName: _Optional[str] = ..., tokenTagsOutputFeatureName: _Optional[str] = ..., tokenLocationsOutputFeatureName: _Optional[str] = ..., tokenLengthsOutputFeatureName: _Optional[str] = ..., modelParameterData: _Optional[bytes] = ..., stringTags: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ...) -> None: ...
