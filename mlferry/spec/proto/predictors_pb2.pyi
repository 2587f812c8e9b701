from mlferry.spec.proto import features_pb2 as _features_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

Classification_SoftMax: TreeEnsemblePostEvaluationTransform
Classification_SoftMaxWithZeroClassReference: TreeEnsemblePostEvaluationTransform
DESCRIPTOR: _descriptor.FileDescriptor
NoTransform: TreeEnsemblePostEvaluationTransform
Regression_Logistic: TreeEnsemblePostEvaluationTransform

class BayesianProbitRegressor(_message.Message):
    __slots__ = ["bias", "features", "meanOutputFeatureName", "numberOfFeatures", "optimismInputFeatureName", "pessimisticProbabilityOutputFeatureName", "regressionInputFeatureName", "sampledProbabilityOutputFeatureName", "samplingScaleInputFeatureName", "samplingTruncationInputFeatureName", "varianceOutputFeatureName"]
    class FeatureValueWeight(_message.Message):
        __slots__ = ["featureValue", "featureWeight"]
        FEATUREVALUE_FIELD_NUMBER: _ClassVar[int]
        FEATUREWEIGHT_FIELD_NUMBER: _ClassVar[int]
        featureValue: int
        featureWeight: BayesianProbitRegressor.Gaussian
        def __init__(self, featureValue: _Optional[int] = ..., featureWeight: _Optional[_Union[BayesianProbitRegressor.Gaussian, _Mapping]] = ...) -> None: ...
    class FeatureWeight(_message.Message):
        __slots__ = ["featureId", "weights"]
        FEATUREID_FIELD_NUMBER: _ClassVar[int]
        WEIGHTS_FIELD_NUMBER: _ClassVar[int]
        featureId: int
        weights: _containers.RepeatedCompositeFieldContainer[BayesianProbitRegressor.FeatureValueWeight]
        def __init__(self, featureId: _Optional[int] = ..., weights: _Optional[_Iterable[_Union[BayesianProbitRegressor.FeatureValueWeight, _Mapping]]] = ...) -> None: ...
    class Gaussian(_message.Message):
        __slots__ = ["mean", "precision"]
        MEAN_FIELD_NUMBER: _ClassVar[int]
        PRECISION_FIELD_NUMBER: _ClassVar[int]
        mean: float
        precision: float
        def __init__(self, mean: _Optional[float] = ..., precision: _Optional[float] = ...) -> None: ...
    BIAS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MEANOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    NUMBEROFFEATURES_FIELD_NUMBER: _ClassVar[int]
    OPTIMISMINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    PESSIMISTICPROBABILITYOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    REGRESSIONINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    SAMPLEDPROBABILITYOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    SAMPLINGSCALEINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    SAMPLINGTRUNCATIONINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    VARIANCEOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    bias: BayesianProbitRegressor.Gaussian
    features: _containers.RepeatedCompositeFieldContainer[BayesianProbitRegressor.FeatureWeight]
    meanOutputFeatureName: str
    numberOfFeatures: int
    optimismInputFeatureName: str
    pessimisticProbabilityOutputFeatureName: str
    regressionInputFeatureName: str
    sampledProbabilityOutputFeatureName: str
    samplingScaleInputFeatureName: str
    samplingTruncationInputFeatureName: str
    varianceOutputFeatureName: str
    def __init__(self, numberOfFeatures: _Optional[int] = ..., bias: _Optional[_Union[BayesianProbitRegressor.Gaussian, _Mapping]] = ..., features: _Optional[_Iterable[_Union[BayesianProbitRegressor.FeatureWeight, _Mapping]]] = ..., regressionInputFeatureName: _Optional[str] = ..., optimismInputFeatureName: _Optional[str] = ..., samplingScaleInputFeatureName: _Optional[str] = ..., samplingTruncationInputFeatureName: _Optional[str] = ..., meanOutputFeatureName: _Optional[str] = ..., varianceOutputFeatureName: _Optional[str] = ..., pessimisticProbabilityOutputFeatureName: _Optional[str] = ..., sampledProbabilityOutputFeatureName: _Optional[str] = ...) -> None: ...

class Coefficients(_message.Message):
    __slots__ = ["alpha"]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    alpha: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, alpha: _Optional[_Iterable[float]] = ...) -> None: ...

class CustomModel(_message.Message):
    __slots__ = ["className", "description", "parameters"]
    class CustomModelParamValue(_message.Message):
        __slots__ = ["boolValue", "bytesValue", "doubleValue", "intValue", "longValue", "stringValue"]
        BOOLVALUE_FIELD_NUMBER: _ClassVar[int]
        BYTESVALUE_FIELD_NUMBER: _ClassVar[int]
        DOUBLEVALUE_FIELD_NUMBER: _ClassVar[int]
        INTVALUE_FIELD_NUMBER: _ClassVar[int]
        LONGVALUE_FIELD_NUMBER: _ClassVar[int]
        STRINGVALUE_FIELD_NUMBER: _ClassVar[int]
        boolValue: bool
        bytesValue: bytes
        doubleValue: float
        intValue: int
        longValue: int
        stringValue: str
        def __init__(self, doubleValue: _Optional[float] = ..., stringValue: _Optional[str] = ..., intValue: _Optional[int] = ..., longValue: _Optional[int] = ..., boolValue: bool = ..., bytesValue: _Optional[bytes] = ...) -> None: ...
    class ParametersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: CustomModel.CustomModelParamValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[CustomModel.CustomModelParamValue, _Mapping]] = ...) -> None: ...
    CLASSNAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    className: str
    description: str
    parameters: _containers.MessageMap[str, CustomModel.CustomModelParamValue]
    def __init__(self, className: _Optional[str] = ..., parameters: _Optional[_Mapping[str, CustomModel.CustomModelParamValue]] = ..., description: _Optional[str] = ...) -> None: ...

class DenseSupportVectors(_message.Message):
    __slots__ = ["vectors"]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[DenseVector]
    def __init__(self, vectors: _Optional[_Iterable[_Union[DenseVector, _Mapping]]] = ...) -> None: ...

class DenseVector(_message.Message):
    __slots__ = ["values"]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class GLMClassifier(_message.Message):
    __slots__ = ["classEncoding", "int64ClassLabels", "offset", "postEvaluationTransform", "stringClassLabels", "weights"]
    class ClassEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class PostEvaluationTransform(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class DoubleArray(_message.Message):
        __slots__ = ["value"]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        value: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, value: _Optional[_Iterable[float]] = ...) -> None: ...
    CLASSENCODING_FIELD_NUMBER: _ClassVar[int]
    INT64CLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    Logit: GLMClassifier.PostEvaluationTransform
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    OneVsRest: GLMClassifier.ClassEncoding
    POSTEVALUATIONTRANSFORM_FIELD_NUMBER: _ClassVar[int]
    Probit: GLMClassifier.PostEvaluationTransform
    ReferenceClass: GLMClassifier.ClassEncoding
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    classEncoding: GLMClassifier.ClassEncoding
    int64ClassLabels: _features_pb2.Int64Vector
    offset: _containers.RepeatedScalarFieldContainer[float]
    postEvaluationTransform: GLMClassifier.PostEvaluationTransform
    stringClassLabels: _features_pb2.StringVector
    weights: _containers.RepeatedCompositeFieldContainer[GLMClassifier.DoubleArray]
    def __init__(self, weights: _Optional[_Iterable[_Union[GLMClassifier.DoubleArray, _Mapping]]] = ..., offset: _Optional[_Iterable[float]] = ..., postEvaluationTransform: _Optional[_Union[GLMClassifier.PostEvaluationTransform, str]] = ..., classEncoding: _Optional[_Union[GLMClassifier.ClassEncoding, str]] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64ClassLabels: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ...) -> None: ...

class GLMRegressor(_message.Message):
    __slots__ = ["offset", "postEvaluationTransform", "weights"]
    class PostEvaluationTransform(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class DoubleArray(_message.Message):
        __slots__ = ["value"]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        value: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, value: _Optional[_Iterable[float]] = ...) -> None: ...
    Logit: GLMRegressor.PostEvaluationTransform
    NoTransform: GLMRegressor.PostEvaluationTransform
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    POSTEVALUATIONTRANSFORM_FIELD_NUMBER: _ClassVar[int]
    Probit: GLMRegressor.PostEvaluationTransform
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    offset: _containers.RepeatedScalarFieldContainer[float]
    postEvaluationTransform: GLMRegressor.PostEvaluationTransform
    weights: _containers.RepeatedCompositeFieldContainer[GLMRegressor.DoubleArray]
    def __init__(self, weights: _Optional[_Iterable[_Union[GLMRegressor.DoubleArray, _Mapping]]] = ..., offset: _Optional[_Iterable[float]] = ..., postEvaluationTransform: _Optional[_Union[GLMRegressor.PostEvaluationTransform, str]] = ...) -> None: ...

class InverseDistanceWeighting(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ItemSimilarityRecommender(_message.Message):
    __slots__ = ["itemExclusionInputFeatureName", "itemInputFeatureName", "itemInt64Ids", "itemItemSimilarities", "itemRestrictionInputFeatureName", "itemStringIds", "numRecommendationsInputFeatureName", "recommendedItemListOutputFeatureName", "recommendedItemScoreOutputFeatureName"]
    class ConnectedItem(_message.Message):
        __slots__ = ["itemId", "similarityScore"]
        ITEMID_FIELD_NUMBER: _ClassVar[int]
        SIMILARITYSCORE_FIELD_NUMBER: _ClassVar[int]
        itemId: int
        similarityScore: float
        def __init__(self, itemId: _Optional[int] = ..., similarityScore: _Optional[float] = ...) -> None: ...
    class SimilarItems(_message.Message):
        __slots__ = ["itemId", "itemScoreAdjustment", "similarItemList"]
        ITEMID_FIELD_NUMBER: _ClassVar[int]
        ITEMSCOREADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
        SIMILARITEMLIST_FIELD_NUMBER: _ClassVar[int]
        itemId: int
        itemScoreAdjustment: float
        similarItemList: _containers.RepeatedCompositeFieldContainer[ItemSimilarityRecommender.ConnectedItem]
        def __init__(self, itemId: _Optional[int] = ..., similarItemList: _Optional[_Iterable[_Union[ItemSimilarityRecommender.ConnectedItem, _Mapping]]] = ..., itemScoreAdjustment: _Optional[float] = ...) -> None: ...
    ITEMEXCLUSIONINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    ITEMINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    ITEMINT64IDS_FIELD_NUMBER: _ClassVar[int]
    ITEMITEMSIMILARITIES_FIELD_NUMBER: _ClassVar[int]
    ITEMRESTRICTIONINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    ITEMSTRINGIDS_FIELD_NUMBER: _ClassVar[int]
    NUMRECOMMENDATIONSINPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDEDITEMLISTOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDEDITEMSCOREOUTPUTFEATURENAME_FIELD_NUMBER: _ClassVar[int]
    itemExclusionInputFeatureName: str
    itemInputFeatureName: str
    itemInt64Ids: _features_pb2.Int64Vector
    itemItemSimilarities: _containers.RepeatedCompositeFieldContainer[ItemSimilarityRecommender.SimilarItems]
    itemRestrictionInputFeatureName: str
    itemStringIds: _features_pb2.StringVector
    numRecommendationsInputFeatureName: str
    recommendedItemListOutputFeatureName: str
    recommendedItemScoreOutputFeatureName: str
    def __init__(self, itemItemSimilarities: _Optional[_Iterable[_Union[ItemSimilarityRecommender.SimilarItems, _Mapping]]] = ..., itemStringIds: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., itemInt64Ids: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ..., itemInputFeatureName: _Optional[str] = ..., numRecommendationsInputFeatureName: _Optional[str] = ..., itemRestrictionInputFeatureName: _Optional[str] = ..., itemExclusionInputFeatureName: _Optional[str] = ..., recommendedItemListOutputFeatureName: _Optional[str] = ..., recommendedItemScoreOutputFeatureName: _Optional[str] = ...) -> None: ...

class KNearestNeighborsClassifier(_message.Message):
    __slots__ = ["defaultInt64Label", "defaultStringLabel", "int64ClassLabels", "inverseDistanceWeighting", "nearestNeighborsIndex", "numberOfNeighbors", "stringClassLabels", "uniformWeighting"]
    DEFAULTINT64LABEL_FIELD_NUMBER: _ClassVar[int]
    DEFAULTSTRINGLABEL_FIELD_NUMBER: _ClassVar[int]
    INT64CLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    INVERSEDISTANCEWEIGHTING_FIELD_NUMBER: _ClassVar[int]
    NEARESTNEIGHBORSINDEX_FIELD_NUMBER: _ClassVar[int]
    NUMBEROFNEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    UNIFORMWEIGHTING_FIELD_NUMBER: _ClassVar[int]
    defaultInt64Label: int
    defaultStringLabel: str
    int64ClassLabels: _features_pb2.Int64Vector
    inverseDistanceWeighting: InverseDistanceWeighting
    nearestNeighborsIndex: NearestNeighborsIndex
    numberOfNeighbors: _features_pb2.Int64Parameter
    stringClassLabels: _features_pb2.StringVector
    uniformWeighting: UniformWeighting
    def __init__(self, nearestNeighborsIndex: _Optional[_Union[NearestNeighborsIndex, _Mapping]] = ..., numberOfNeighbors: _Optional[_Union[_features_pb2.Int64Parameter, _Mapping]] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64ClassLabels: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ..., defaultStringLabel: _Optional[str] = ..., defaultInt64Label: _Optional[int] = ..., uniformWeighting: _Optional[_Union[UniformWeighting, _Mapping]] = ..., inverseDistanceWeighting: _Optional[_Union[InverseDistanceWeighting, _Mapping]] = ...) -> None: ...

class Kernel(_message.Message):
    __slots__ = ["linearKernel", "polyKernel", "rbfKernel", "sigmoidKernel"]
    LINEARKERNEL_FIELD_NUMBER: _ClassVar[int]
    POLYKERNEL_FIELD_NUMBER: _ClassVar[int]
    RBFKERNEL_FIELD_NUMBER: _ClassVar[int]
    SIGMOIDKERNEL_FIELD_NUMBER: _ClassVar[int]
    linearKernel: LinearKernel
    polyKernel: PolyKernel
    rbfKernel: RBFKernel
    sigmoidKernel: SigmoidKernel
    def __init__(self, linearKernel: _Optional[_Union[LinearKernel, _Mapping]] = ..., rbfKernel: _Optional[_Union[RBFKernel, _Mapping]] = ..., polyKernel: _Optional[_Union[PolyKernel, _Mapping]] = ..., sigmoidKernel: _Optional[_Union[SigmoidKernel, _Mapping]] = ...) -> None: ...

class LinearIndex(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class LinearKernel(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class LinkedModel(_message.Message):
    __slots__ = ["linkedModelFile"]
    LINKEDMODELFILE_FIELD_NUMBER: _ClassVar[int]
    linkedModelFile: LinkedModelFile
    def __init__(self, linkedModelFile: _Optional[_Union[LinkedModelFile, _Mapping]] = ...) -> None: ...

class LinkedModelFile(_message.Message):
    __slots__ = ["linkedModelFileName", "linkedModelSearchPath"]
    LINKEDMODELFILENAME_FIELD_NUMBER: _ClassVar[int]
    LINKEDMODELSEARCHPATH_FIELD_NUMBER: _ClassVar[int]
    linkedModelFileName: _features_pb2.StringParameter
    linkedModelSearchPath: _features_pb2.StringParameter
    def __init__(self, linkedModelFileName: _Optional[_Union[_features_pb2.StringParameter, _Mapping]] = ..., linkedModelSearchPath: _Optional[_Union[_features_pb2.StringParameter, _Mapping]] = ...) -> None: ...

class NearestNeighborsIndex(_message.Message):
    __slots__ = ["floatSamples", "linearIndex", "numberOfDimensions", "singleKdTreeIndex", "squaredEuclideanDistance"]
    FLOATSAMPLES_FIELD_NUMBER: _ClassVar[int]
    LINEARINDEX_FIELD_NUMBER: _ClassVar[int]
    NUMBEROFDIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    SINGLEKDTREEINDEX_FIELD_NUMBER: _ClassVar[int]
    SQUAREDEUCLIDEANDISTANCE_FIELD_NUMBER: _ClassVar[int]
    floatSamples: _containers.RepeatedCompositeFieldContainer[_features_pb2.FloatVector]
    linearIndex: LinearIndex
    numberOfDimensions: int
    singleKdTreeIndex: SingleKdTreeIndex
    squaredEuclideanDistance: SquaredEuclideanDistance
    def __init__(self, numberOfDimensions: _Optional[int] = ..., floatSamples: _Optional[_Iterable[_Union[_features_pb2.FloatVector, _Mapping]]] = ..., linearIndex: _Optional[_Union[LinearIndex, _Mapping]] = ..., singleKdTreeIndex: _Optional[_Union[SingleKdTreeIndex, _Mapping]] = ..., squaredEuclideanDistance: _Optional[_Union[SquaredEuclideanDistance, _Mapping]] = ...) -> None: ...

class PolyKernel(_message.Message):
    __slots__ = ["c", "degree", "gamma"]
    C_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    c: float
    degree: int
    gamma: float
    def __init__(self, degree: _Optional[int] = ..., c: _Optional[float] = ..., gamma: _Optional[float] = ...) -> None: ...

class RBFKernel(_message.Message):
    __slots__ = ["gamma"]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    gamma: float
    def __init__(self, gamma: _Optional[float] = ...) -> None: ...

class SigmoidKernel(_message.Message):
    __slots__ = ["c", "gamma"]
    C_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    c: float
    gamma: float
    def __init__(self, gamma: _Optional[float] = ..., c: _Optional[float] = ...) -> None: ...

class SingleKdTreeIndex(_message.Message):
    __slots__ = ["leafSize"]
    LEAFSIZE_FIELD_NUMBER: _ClassVar[int]
    leafSize: int
    def __init__(self, leafSize: _Optional[int] = ...) -> None: ...

class SparseNode(_message.Message):
    __slots__ = ["index", "value"]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    index: int
    value: float
    def __init__(self, index: _Optional[int] = ..., value: _Optional[float] = ...) -> None: ...

class SparseSupportVectors(_message.Message):
    __slots__ = ["vectors"]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[SparseVector]
    def __init__(self, vectors: _Optional[_Iterable[_Union[SparseVector, _Mapping]]] = ...) -> None: ...

class SparseVector(_message.Message):
    __slots__ = ["nodes"]
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[SparseNode]
    def __init__(self, nodes: _Optional[_Iterable[_Union[SparseNode, _Mapping]]] = ...) -> None: ...

class SquaredEuclideanDistance(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class SupportVectorClassifier(_message.Message):
    __slots__ = ["coefficients", "denseSupportVectors", "int64ClassLabels", "kernel", "numberOfSupportVectorsPerClass", "probA", "probB", "rho", "sparseSupportVectors", "stringClassLabels"]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    DENSESUPPORTVECTORS_FIELD_NUMBER: _ClassVar[int]
    INT64CLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    NUMBEROFSUPPORTVECTORSPERCLASS_FIELD_NUMBER: _ClassVar[int]
    PROBA_FIELD_NUMBER: _ClassVar[int]
    PROBB_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    SPARSESUPPORTVECTORS_FIELD_NUMBER: _ClassVar[int]
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    coefficients: _containers.RepeatedCompositeFieldContainer[Coefficients]
    denseSupportVectors: DenseSupportVectors
    int64ClassLabels: _features_pb2.Int64Vector
    kernel: Kernel
    numberOfSupportVectorsPerClass: _containers.RepeatedScalarFieldContainer[int]
    probA: _containers.RepeatedScalarFieldContainer[float]
    probB: _containers.RepeatedScalarFieldContainer[float]
    rho: _containers.RepeatedScalarFieldContainer[float]
    sparseSupportVectors: SparseSupportVectors
    stringClassLabels: _features_pb2.StringVector
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ..., numberOfSupportVectorsPerClass: _Optional[_Iterable[int]] = ..., sparseSupportVectors: _Optional[_Union[SparseSupportVectors, _Mapping]] = ..., denseSupportVectors: _Optional[_Union[DenseSupportVectors, _Mapping]] = ..., coefficients: _Optional[_Iterable[_Union[Coefficients, _Mapping]]] = ..., rho: _Optional[_Iterable[float]] = ..., probA: _Optional[_Iterable[float]] = ..., probB: _Optional[_Iterable[float]] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64ClassLabels: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ...) -> None: ...

class SupportVectorRegressor(_message.Message):
    __slots__ = ["coefficients", "denseSupportVectors", "kernel", "rho", "sparseSupportVectors"]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    DENSESUPPORTVECTORS_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    SPARSESUPPORTVECTORS_FIELD_NUMBER: _ClassVar[int]
    coefficients: Coefficients
    denseSupportVectors: DenseSupportVectors
    kernel: Kernel
    rho: float
    sparseSupportVectors: SparseSupportVectors
    def __init__(self, kernel: _Optional[_Union[Kernel, _Mapping]] = ..., sparseSupportVectors: _Optional[_Union[SparseSupportVectors, _Mapping]] = ..., denseSupportVectors: _Optional[_Union[DenseSupportVectors, _Mapping]] = ..., coefficients: _Optional[_Union[Coefficients, _Mapping]] = ..., rho: _Optional[float] = ...) -> None: ...

class TreeEnsembleClassifier(_message.Message):
    __slots__ = ["int64ClassLabels", "postEvaluationTransform", "stringClassLabels", "treeEnsemble"]
    INT64CLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    POSTEVALUATIONTRANSFORM_FIELD_NUMBER: _ClassVar[int]
    STRINGCLASSLABELS_FIELD_NUMBER: _ClassVar[int]
    TREEENSEMBLE_FIELD_NUMBER: _ClassVar[int]
    int64ClassLabels: _features_pb2.Int64Vector
    postEvaluationTransform: TreeEnsemblePostEvaluationTransform
    stringClassLabels: _features_pb2.StringVector
    treeEnsemble: TreeEnsembleParameters
    def __init__(self, treeEnsemble: _Optional[_Union[TreeEnsembleParameters, _Mapping]] = ..., postEvaluationTransform: _Optional[_Union[TreeEnsemblePostEvaluationTransform, str]] = ..., stringClassLabels: _Optional[_Union[_features_pb2.StringVector, _Mapping]] = ..., int64ClassLabels: _Optional[_Union[_features_pb2.Int64Vector, _Mapping]] = ...) -> None: ...

class TreeEnsembleParameters(_message.Message):
    __slots__ = ["basePredictionValue", "nodes", "numPredictionDimensions"]
    class TreeNode(_message.Message):
        __slots__ = ["branchFeatureIndex", "branchFeatureValue", "evaluationInfo", "falseChildNodeId", "missingValueTracksTrueChild", "nodeBehavior", "nodeId", "relativeHitRate", "treeId", "trueChildNodeId"]
        class TreeNodeBehavior(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = []
        class EvaluationInfo(_message.Message):
            __slots__ = ["evaluationIndex", "evaluationValue"]
            EVALUATIONINDEX_FIELD_NUMBER: _ClassVar[int]
            EVALUATIONVALUE_FIELD_NUMBER: _ClassVar[int]
            evaluationIndex: int
            evaluationValue: float
            def __init__(self, evaluationIndex: _Optional[int] = ..., evaluationValue: _Optional[float] = ...) -> None: ...
        BRANCHFEATUREINDEX_FIELD_NUMBER: _ClassVar[int]
        BRANCHFEATUREVALUE_FIELD_NUMBER: _ClassVar[int]
        BranchOnValueEqual: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        BranchOnValueGreaterThan: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        BranchOnValueGreaterThanEqual: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        BranchOnValueLessThan: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        BranchOnValueLessThanEqual: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        BranchOnValueNotEqual: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        EVALUATIONINFO_FIELD_NUMBER: _ClassVar[int]
        FALSECHILDNODEID_FIELD_NUMBER: _ClassVar[int]
        LeafNode: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        MISSINGVALUETRACKSTRUECHILD_FIELD_NUMBER: _ClassVar[int]
        NODEBEHAVIOR_FIELD_NUMBER: _ClassVar[int]
        NODEID_FIELD_NUMBER: _ClassVar[int]
        RELATIVEHITRATE_FIELD_NUMBER: _ClassVar[int]
        TREEID_FIELD_NUMBER: _ClassVar[int]
        TRUECHILDNODEID_FIELD_NUMBER: _ClassVar[int]
        branchFeatureIndex: int
        branchFeatureValue: float
        evaluationInfo: _containers.RepeatedCompositeFieldContainer[TreeEnsembleParameters.TreeNode.EvaluationInfo]
        falseChildNodeId: int
        missingValueTracksTrueChild: bool
        nodeBehavior: TreeEnsembleParameters.TreeNode.TreeNodeBehavior
        nodeId: int
        relativeHitRate: float
        treeId: int
        trueChildNodeId: int
        def __init__(self, treeId: _Optional[int] = ..., nodeId: _Optional[int] = ..., nodeBehavior: _Optional[_Union[TreeEnsembleParameters.TreeNode.TreeNodeBehavior, str]] = ..., branchFeatureIndex: _Optional[int] = ..., branchFeatureValue: _Optional[float] = ..., trueChildNodeId: _Optional[int] = ..., falseChildNodeId: _Optional[int] = ..., missingValueTracksTrueChild: bool = ..., evaluationInfo: _Optional[_Iterable[_Union[TreeEnsembleParameters.TreeNode.EvaluationInfo, _Mapping]]] = ..., relativeHitRate: _Optional[float] = ...) -> None: ...
    BASEPREDICTIONVALUE_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NUMPREDICTIONDIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    basePredictionValue: _containers.RepeatedScalarFieldContainer[float]
    nodes: _containers.RepeatedCompositeFieldContainer[TreeEnsembleParameters.TreeNode]
    numPredictionDimensions: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[TreeEnsembleParameters.TreeNode, _Mapping]]] = ..., numPredictionDimensions: _Optional[int] = ..., basePredictionValue: _Optional[_Iterable[float]] = ...) -> None: ...

class TreeEnsembleRegressor(_message.Message):
    __slots__ = ["postEvaluationTransform", "treeEnsemble"]
    POSTEVALUATIONTRANSFORM_FIELD_NUMBER: _ClassVar[int]
    TREEENSEMBLE_FIELD_NUMBER: _ClassVar[int]
    postEvaluationTransform: TreeEnsemblePostEvaluationTransform
    treeEnsemble: TreeEnsembleParameters
    def __init__(self, treeEnsemble: _Optional[_Union[TreeEnsembleParameters, _Mapping]] = ..., postEvaluationTransform: _Optional[_Union[TreeEnsemblePostEvaluationTransform, str]] = ...) -> None: ...

class UniformWeighting(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class TreeEnsemblePostEvaluationTransform(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
