"""Models of scikit-learn, XGBoost and LightGBM in ONNX, beside onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mlferry
from mlferry.converters.onnx.ml import OPS
from mlferry.errors import ConversionError, MlferryError, OpenShapesError, UnsupportedOpError
from mlferry.layers.validate import validate
from tests.converters.onnx import ml_cases
from tests.converters.onnx.ml_cases import CASES, DOMAIN, REFUSED, Case, node

Library = Callable[[str], Any]
Feeds = Mapping[str, Any]


def rows_as_given(feeds: Feeds) -> dict[str, Any]:
    return {name: array[0] for name, array in feeds.items()}


def compared(
    library: Library,
    proto: Any,
    feeds: Sequence[Feeds],
    as_given: Callable[[Any], dict[str, Any]] | None = None,
    tolerance: float = 2e-6,
) -> mlferry.MLModel:
    """Convert, and compare every output for every sample; labels are the same."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # with several, its sums of many trees depend on them
    session = runtime.InferenceSession(proto.SerializeToString(), options)
    model = mlferry.convert(proto)
    assert validate(model.get_spec()) == []
    names = [output.name for output in session.get_outputs()]
    for sample in feeds:
        expected = dict(zip(names, session.run(None, sample), strict=True))
        actual = model.predict((as_given or rows_as_given)(sample))
        assert set(actual) == set(names)
        for name, value in expected.items():
            same(actual[name], value, tolerance)
    return model


def same(result: Any, expected: Any, tolerance: float) -> None:
    if isinstance(expected, list):  # what ZipMap gives: a dictionary a sample
        (expected,) = expected
    if isinstance(result, dict):
        actual = list(result.values())
        if isinstance(expected, dict):
            assert list(result) == list(expected)
            expected = list(expected.values())
        np.testing.assert_allclose(actual, np.ravel(expected), rtol=tolerance, atol=tolerance)
    elif isinstance(result, str) or np.asarray(expected).dtype.kind in "OUS":
        assert result == np.ravel(expected)[0]
    elif np.asarray(expected).dtype.kind == "i":
        np.testing.assert_array_equal(np.ravel(result), np.ravel(expected))
    else:
        np.testing.assert_allclose(
            np.ravel(result), np.ravel(expected), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_nodes(case: Case, library: Library, tmp_path: Path) -> None:
    model = compared(library, case.model(), case.feeds(), case.as_given, case.tolerance)
    saved = model.save(tmp_path / "m.mlmodel")
    sample = (case.as_given or rows_as_given)(case.feeds()[0])
    same_features(mlferry.MLModel(saved).predict(sample), model.predict(sample))


def same_features(result: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_equal(result[name], value)


def test_every_op_has_a_case() -> None:
    used = {n.op_type for case in CASES for n in case.nodes if n.domain == DOMAIN}
    assert set(OPS) - used == {"DictVectorizer"}  # it reads a map; see test_dictionaries


@pytest.mark.parametrize("row", REFUSED, ids=[case.name for case, _ in REFUSED])
def test_refusals(row: tuple[Case, str]) -> None:
    case, message = row
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(case.model())


def test_all_refusals_come_at_once() -> None:
    case = Case("two", [ml_cases.trees("target", aggregate_function="MIDDLE"),
                        node("Scaler", ["X"], ["s"], scale=[1.0, 2.0]),
                        node("Normalizer", ["s"], ["z"], norm="L1")],
                ml_cases.ROWS, {"y": ml_cases.FLOAT, "z": ml_cases.FLOAT})  # fmt: skip
    with pytest.raises(ConversionError) as caught:
        mlferry.convert(case.model())
    text = str(caught.value)
    assert "it is SUM, AVERAGE, MIN or MAX" in text
    assert "scale has 2 values for 3 columns" in text
    assert "Normalizer" not in text  # it only depends on the other


def test_unknown_ops_are_named_together() -> None:
    case = Case("unknown", [node("Foo", ["X"], ["a"]), ml_cases.plain("Bar", ["a"], ["b"]),
                            node("Scaler", ["b"], ["y"], scale=[1.0], offset=[0.0])],
                ml_cases.ROWS, ml_cases.Y)  # fmt: skip
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(case.model())
    assert set(caught.value.ops) == {"ai.onnx.ml.Foo", "Bar"}
    assert "TreeEnsembleClassifier" in str(caught.value)


def test_functions_of_the_user_come_first() -> None:
    case = Case("custom", [node("Foo", ["X"], ["y"])], ml_cases.ROWS, ml_cases.Y)

    def convert_foo(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams(class_name="Foo", output_shapes=[(1, 3)])

    model = mlferry.convert(case.model(), custom_conversion_functions={"Foo": convert_foo})
    assert model.get_spec().WhichOneof("Type") == "neuralNetwork"
    model = mlferry.convert(case.model(), add_custom_layers=True)
    assert model.get_spec().WhichOneof("Type") == "neuralNetwork"


# ---- inputs and options ----------------------------------------------------------------


def opened(columns: Any = None) -> Any:
    proto = CASES[0].model()
    proto.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    return proto


def test_open_columns_are_asked_for() -> None:
    with pytest.raises(OpenShapesError, match=r"inputs=\[mlferry\.TensorType\(name='X', shape="):
        mlferry.convert(opened())
    model = mlferry.convert(opened(), inputs=[mlferry.TensorType(name="X", shape=(1, 3))])
    assert model.predict({"X": [1.0, 2.0, 3.0]})["y"].tolist() == [0.0, 0.0, 12.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": [mlferry.TensorType(name="Z")]}, "no input 'Z'"),
        ({"inputs": [mlferry.TensorType(name="X", shape=(1, 4))]}, r"not \(1, 4\)"),
        ({"inputs": [mlferry.TensorType(name="X", shape=(5, 3))]}, "5 rows; a Core ML model takes"),
        ({"inputs": [mlferry.ImageType(name="X")]}, "ImageType: a model with ai.onnx.ml"),
        ({"outputs": ["q"]}, "no output 'q'"),
        ({"classifier_config": mlferry.ClassifierConfig(["a", "b"])}, "has its own labels"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(CASES[0].model(), **options)


def test_functions_that_match_nothing_are_told() -> None:
    with pytest.warns(UserWarning, match="nothing in the ONNX model is named 'Foo'"):
        mlferry.convert(CASES[0].model(), custom_conversion_functions={"Foo": print})


def test_functions_convert_ordinary_ops_between_models() -> None:
    case = next(case for case in CASES if case.name == "ordinary ops between")

    def doubled(node: Any, builder: Any) -> None:
        builder.layer("activation", node.name, [node.inputs[0].name], [node.outputs[0].name],
                      linear={"alpha": 2.0})  # fmt: skip

    model = mlferry.convert(case.model(), custom_conversion_functions={"Tanh": doubled})
    x = np.float32(ml_cases.ROWS[0])
    expected = np.exp((x - 1) * 2) + x
    np.testing.assert_allclose(
        model.predict({"X": x})["y"], expected / np.linalg.norm(expected), rtol=1e-5
    )


def test_functions_convert_some_of_the_ops() -> None:
    case = Case("some", [node("Scaler", ["X"], ["s"], scale=[2.0], offset=[0.0]),
                         node("Normalizer", ["s"], ["y"], norm="L1")],
                ml_cases.ROWS, ml_cases.Y)  # fmt: skip

    def negated(node: Any, builder: Any) -> None:
        builder.layer("activation", node.name, [node.inputs[0].name], [node.outputs[0].name],
                      linear={"alpha": -1.0})  # fmt: skip

    model = mlferry.convert(case.model(), custom_conversion_functions={"Scaler": negated})
    actual = model.predict({"X": [1.0, -1.0, 2.0]})["y"]
    np.testing.assert_allclose(actual, [-0.25, 0.25, -0.5])


def test_columns_of_texts_do_not_take_the_name_of_another_input() -> None:
    case = next(case for case in CASES if case.name == "OneHotEncoder of columns of texts")
    proto = case.model()
    proto.graph.input.add().CopyFrom(
        onnx.helper.make_tensor_value_info("X_1", ml_cases.FLOAT, [None, 3])
    )
    proto.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info("z", ml_cases.FLOAT, [None, 3])
    )
    proto.graph.node.append(node("Scaler", ["X_1"], ["z"], scale=[1.0], offset=[0.0]))
    names = [f.name for f in mlferry.convert(proto).get_spec().description.input]
    assert names == ["X_0", "X_1_1", "X_1"]


def test_names_inside_are_not_given_to_outputs() -> None:
    case = next(case for case in CASES if case.name == "FeatureVectorizer")
    spec = mlferry.convert(case.model()).get_spec()
    inside = spec.pipeline.models[0].description.output[0].name
    proto = case.model()
    proto.graph.output[0].name = inside
    proto.graph.node[-1].output[0] = inside
    model = mlferry.convert(proto)
    assert [f.name for f in model.get_spec().description.output] == [inside]


def test_some_outputs() -> None:
    case = next(case for case in CASES if case.name == "LinearClassifier SOFTMAX of three")
    model = mlferry.convert(case.model(), outputs=["scores"])
    assert list(model.predict({"X": ml_cases.ROWS[0]})) == ["scores"]


def test_the_classic_entry_point(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(CASES[0].model(), path)
    model = mlferry.converters.onnx.convert(str(path))
    assert model.get_spec().WhichOneof("Type") == "scaler"


def test_coremltools_reads_what_is_written(library: Library, tmp_path: Path) -> None:
    utils = library("coremltools.models.utils")
    for case in CASES:
        path = mlferry.convert(case.model()).save(tmp_path / "m.mlmodel")
        spec = utils.load_spec(str(path))
        assert spec.SerializeToString(deterministic=True) == (
            mlferry.MLModel(path).get_spec().SerializeToString(deterministic=True)
        )


# ---- scikit-learn ----------------------------------------------------------------------

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(100, 4)).astype(np.float32)
TWO = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5])
NAMES = np.array(["ash", "elm", "oak"])[THREE]
VALUE = X[:, 0] * 2 - X[:, 3]
NEW = RANDOM.normal(size=(40, 4)).astype(np.float32)


def svm(kernel: str, y: Any, **options: Any) -> Callable[[Any], Any]:
    return lambda k: k("svm").SVC(kernel=kernel, random_state=0, **options).fit(X, y)


def svr(kernel: str) -> Callable[[Any], Any]:
    return lambda k: k("svm").SVR(kernel=kernel).fit(X, VALUE)


SKLEARN: dict[str, Callable[[Any], Any]] = {
    "logistic regression": lambda k: k("linear_model").LogisticRegression().fit(X, TWO),
    "multinomial": lambda k: k("linear_model").LogisticRegression().fit(X, THREE),
    "string labels": lambda k: k("linear_model").LogisticRegression().fit(X, NAMES),
    "one-vs-rest": lambda k: k("multiclass").OneVsRestClassifier(
        k("linear_model").LogisticRegression()).fit(X, THREE),
    "linear SVC": lambda k: k("svm").LinearSVC().fit(X, TWO),
    "linear SVC of three": lambda k: k("svm").LinearSVC().fit(X, NAMES),
    "ridge": lambda k: k("linear_model").Ridge().fit(X, VALUE),
    "two targets": lambda k: k("linear_model").LinearRegression().fit(X, X[:, :2]),
    "SGD": lambda k: k("linear_model").SGDClassifier(loss="log_loss", random_state=0).fit(X, THREE),
    "tree": lambda k: k("tree").DecisionTreeClassifier(max_depth=3).fit(X, TWO),
    "tree of names": lambda k: k("tree").DecisionTreeClassifier(max_depth=3).fit(X, NAMES),
    "tree regression": lambda k: k("tree").DecisionTreeRegressor(max_depth=4).fit(X, VALUE),
    "forest": lambda k: k("ensemble").RandomForestClassifier(10, random_state=0).fit(X, TWO),
    "forest of three": lambda k: k("ensemble").RandomForestClassifier(10, random_state=0).fit(
        X, THREE),
    "forest regression": lambda k: k("ensemble").RandomForestRegressor(10, random_state=0).fit(
        X, VALUE),
    "extra trees": lambda k: k("ensemble").ExtraTreesClassifier(8, random_state=0).fit(X, NAMES),
    "boosting": lambda k: k("ensemble").GradientBoostingClassifier(n_estimators=9).fit(X, TWO),
    "boosting of three": lambda k: k("ensemble").GradientBoostingClassifier(n_estimators=9).fit(
        X, THREE),
    "boosting regression": lambda k: k("ensemble").GradientBoostingRegressor(n_estimators=9).fit(
        X, VALUE),
    "AdaBoost": lambda k: k("ensemble").AdaBoostClassifier(n_estimators=3).fit(X, TWO),
    "bagging": lambda k: k("ensemble").BaggingClassifier(
        k("tree").DecisionTreeClassifier(max_depth=3), n_estimators=3).fit(X, THREE),
    "stacking": lambda k: k("ensemble").StackingClassifier(
        [("a", k("linear_model").LogisticRegression()),
         ("b", k("tree").DecisionTreeClassifier(max_depth=3))]).fit(X, THREE),
    "AdaBoost regression": lambda k: k("ensemble").AdaBoostRegressor(
        n_estimators=3, random_state=0).fit(X, VALUE),
    "voting": lambda k: k("ensemble").VotingClassifier(
        [("a", k("linear_model").LogisticRegression()),
         ("b", k("tree").DecisionTreeClassifier(max_depth=3))],
        voting="soft", flatten_transform=False).fit(X, THREE),
    "one-vs-one": lambda k: k("multiclass").OneVsOneClassifier(
        k("linear_model").LogisticRegression()).fit(X, THREE),
    "calibrated": lambda k: k("calibration").CalibratedClassifierCV(
        k("svm").LinearSVC()).fit(X, TWO),
    "several targets": lambda k: k("multioutput").MultiOutputRegressor(
        k("ensemble").GradientBoostingRegressor(n_estimators=3)).fit(X, X[:, :2]),
    "nearest neighbours": lambda k: k("neighbors").KNeighborsClassifier().fit(X, TWO),
    "nearest neighbours' values": lambda k: k("neighbors").KNeighborsRegressor().fit(X, VALUE),
    "bins": lambda k: k("preprocessing").KBinsDiscretizer(3, encode="onehot-dense").fit(X),
    "power": lambda k: k("preprocessing").PowerTransformer().fit(X),
    "isolation forest": lambda k: k("ensemble").IsolationForest(
        n_estimators=3, random_state=0).fit(X),
    "perceptron": lambda k: k("neural_network").MLPClassifier((5,), max_iter=20).fit(X, THREE),
    "naive Bayes": lambda k: k("naive_bayes").GaussianNB().fit(X, THREE),
    "preprocessing": lambda k: k("pipeline").make_pipeline(
        k("impute").SimpleImputer(), k("preprocessing").StandardScaler(),
        k("preprocessing").MinMaxScaler(), k("preprocessing").MaxAbsScaler(),
        k("preprocessing").RobustScaler(), k("preprocessing").Normalizer("l1"),
        k("preprocessing").Binarizer(threshold=0.1),
        k("linear_model").LogisticRegression()).fit(X, TWO),
    "polynomials": lambda k: k("pipeline").make_pipeline(
        k("preprocessing").PolynomialFeatures(),
        k("linear_model").LogisticRegression()).fit(X, TWO),
    "the two best columns": lambda k: k("pipeline").make_pipeline(
        k("feature_selection").SelectKBest(k=2), k("svm").SVR()).fit(X, VALUE),
    **{f"SVC {kernel}": svm(kernel, TWO) for kernel in ("linear", "rbf", "poly", "sigmoid")},
    **{f"SVC {kernel} of three": svm(kernel, NAMES) for kernel in ("linear", "rbf", "poly")},
    **{f"SVR {kernel}": svr(kernel) for kernel in ("linear", "rbf", "poly", "sigmoid")},
    "NuSVC": lambda k: k("svm").NuSVC(kernel="poly").fit(X, THREE),
    "one-class SVM": lambda k: k("svm").OneClassSVM().fit(X),
}  # fmt: skip
PROBABLE = {
    **{f"SVC {kernel}": svm(kernel, TWO, probability=True) for kernel in ("linear", "rbf", "poly")},
    **{f"SVC {kernel} of three": svm(kernel, NAMES, probability=True)
       for kernel in ("linear", "rbf", "poly", "sigmoid")},
}  # fmt: skip


def to_onnx(library: Library, make: Callable[[Any], Any], types: Any = None, **options: Any) -> Any:
    skl2onnx = library("skl2onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = make(lambda name: library(f"sklearn.{name}"))
        return skl2onnx.to_onnx(
            estimator, None if types else X[:1], initial_types=types,
            options=options or None, target_opset={"": 21, DOMAIN: 3},
        )  # fmt: skip


def samples(name: str = "X", data: Any = NEW) -> list[Feeds]:
    return [{name: row[None]} for row in data]


@pytest.mark.parametrize("name", SKLEARN)
def test_scikit_learn(name: str, library: Library) -> None:
    compared(library, to_onnx(library, SKLEARN[name]), samples(), tolerance=1e-5)


WITHOUT_ZIP_MAP = ("logistic regression", "multinomial", "string labels", "forest",
                   "forest of three", "boosting of three", "SVC rbf of three")  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_ZIP_MAP)
def test_without_zip_map(name: str, library: Library) -> None:
    proto = to_onnx(library, SKLEARN[name], zipmap=False)
    compared(library, proto, samples(), tolerance=1e-5)


@pytest.mark.parametrize("name", PROBABLE)
def test_support_vector_machines_with_probabilities(name: str, library: Library) -> None:
    tolerance = 1e-5 if "three" in name else 5e-3  # see `coupled` for two classes
    compared(library, to_onnx(library, PROBABLE[name]), samples(), tolerance=tolerance)


def test_kinds(library: Library) -> None:
    kinds = {
        "logistic regression": "glmClassifier", "forest": "treeEnsembleClassifier",
        "ridge": "glmRegressor", "forest regression": "treeEnsembleRegressor",
        "SVR rbf": "supportVectorRegressor", "preprocessing": "pipelineClassifier",
    }  # fmt: skip
    for name, kind in kinds.items():
        spec = mlferry.convert(to_onnx(library, SKLEARN[name])).get_spec()
        assert spec.WhichOneof("Type") == kind


# ---- tables ----------------------------------------------------------------------------

TEXTS = np.array([["a", "x"], ["b", "y"], ["c", "x"]] * 10, object)
NUMBERS = np.array([[1, 5], [2, 6], [3, 5]] * 10)


def test_one_hot_encoding_of_texts(library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    proto = to_onnx(
        library,
        lambda k: k("preprocessing").OneHotEncoder(handle_unknown="ignore").fit(TEXTS),
        [("s", types.StringTensorType([None, 2]))],
    )
    inputs = [{"s": np.array([row], object)} for row in (["a", "y"], ["c", "x"], ["q", "x"])]
    compared(library, proto, inputs, ml_cases.by_columns)


def test_one_hot_encoding_refuses_what_scikit_learn_refuses(library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    make = lambda k: k("preprocessing").OneHotEncoder().fit(TEXTS[:, :1])  # noqa: E731
    proto = to_onnx(library, make, [("s", types.StringTensorType([None, 1]))])
    with pytest.raises(MlferryError, match="'q' is none of the 3 categories"):
        mlferry.convert(proto).predict({"s": "q"})


def test_one_hot_encoding_of_integers(library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    proto = to_onnx(
        library,
        lambda k: k("preprocessing").OneHotEncoder().fit(NUMBERS),
        [("s", types.Int64TensorType([None, 2]))],
    )
    compared(library, proto, [{"s": np.array([[2, 6]])}, {"s": np.array([[3, 5]])}])


def test_ordinal_encoding_before_a_classifier(library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    proto = to_onnx(
        library,
        lambda k: k("pipeline").make_pipeline(
            k("preprocessing").OrdinalEncoder(), k("linear_model").LogisticRegression()
        ).fit(TEXTS, [0, 1, 2] * 10),
        [("s", types.StringTensorType([None, 2]))],
    )  # fmt: skip
    compared(library, proto, [{"s": np.array([["a", "y"]], object)}], ml_cases.by_columns)


def test_dictionaries(library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    rows = [{"a": 1.0, "b": 2.0}, {"a": 3.0}, {"b": -1.0}] * 5
    proto = to_onnx(
        library,
        lambda k: k("pipeline").make_pipeline(
            k("feature_extraction").DictVectorizer(sparse=False),
            k("linear_model").LogisticRegression(),
        ).fit(rows, ["u", "v", "w"] * 5),
        [("d", types.DictionaryType(types.StringTensorType([1]), types.FloatTensorType([1])))],
    )  # fmt: skip
    model = compared(library, proto, [{"d": {"a": 1.0, "b": 0.5}}, {"d": {"b": 2.0}}], dict)
    kinds = [m.WhichOneof("Type") for m in model.get_spec().pipelineClassifier.pipeline.models]
    assert kinds == ["dictVectorizer", "featureVectorizer", "glmClassifier"]


def test_columns_of_several_types(library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    table = np.array([[1.0, 2.0, "a"], [3.0, 4.0, "b"], [5.0, 1.0, "a"]] * 5, object)

    def make(k: Any) -> Any:
        numbers = k("pipeline").make_pipeline(
            k("impute").SimpleImputer(), k("preprocessing").StandardScaler()
        )
        columns = k("compose").ColumnTransformer(
            [("n", numbers, [0, 1]), ("c", k("preprocessing").OneHotEncoder(), [2])]
        )
        final = k("linear_model").LogisticRegression()
        return k("pipeline").make_pipeline(columns, final).fit(table, [0, 1, 1] * 5)

    number, text = types.FloatTensorType([None, 1]), types.StringTensorType([None, 1])
    proto = to_onnx(library, make, [("u", number), ("v", number), ("w", text)])
    inputs = [
        {"u": np.float32([[2.0]]), "v": np.float32([[v]]), "w": np.array([[w]], object)}
        for v, w in ((np.nan, "b"), (3.0, "a"))
    ]
    compared(library, proto, inputs, lambda f: {"u": f["u"][0], "v": f["v"][0], "w": f["w"][0, 0]})


@pytest.mark.parametrize("kind", ["DoubleTensorType", "Int64TensorType"])
def test_other_types_of_columns(kind: str, library: Library) -> None:
    types = library("skl2onnx.common.data_types")
    scale, dtype = (5, np.int64) if "Int" in kind else (1, np.float64)
    data = (NEW * scale).astype(dtype)
    proto = to_onnx(
        library,
        lambda k: k("ensemble").RandomForestClassifier(7, random_state=0).fit(X * scale, TWO),
        [("X", getattr(types, kind)([None, 4]))],
    )
    compared(library, proto, samples(data=data))


# ---- XGBoost and LightGBM --------------------------------------------------------------

HOLES = np.where(RANDOM.random(X.shape) < 0.1, np.nan, X).astype(np.float32)
NEW_HOLES = np.where(RANDOM.random(NEW.shape) < 0.2, np.nan, NEW).astype(np.float32)
BOOSTED: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "XGBoost": ("xgboost", "XGBClassifier", {}, TWO),
    "XGBoost of three": ("xgboost", "XGBClassifier", {}, THREE),
    "XGBoost forest": ("xgboost", "XGBRFClassifier", {}, TWO),
    "XGBoost regression": ("xgboost", "XGBRegressor", {}, VALUE),
    "LightGBM": ("lightgbm", "LGBMClassifier", {"verbose": -1}, TWO),
    "LightGBM of three": ("lightgbm", "LGBMClassifier", {"verbose": -1}, THREE),
    "LightGBM one-vs-all": ("lightgbm", "LGBMClassifier",
                            {"verbose": -1, "objective": "multiclassova"}, THREE),
    "LightGBM regression": ("lightgbm", "LGBMRegressor", {"verbose": -1}, VALUE),
}  # fmt: skip


@pytest.mark.parametrize("count", [3, 30])
@pytest.mark.parametrize("name", BOOSTED)
def test_boosted_trees_with_missing_values(name: str, count: int, library: Library) -> None:
    package, kind, options, y = BOOSTED[name]
    tools = library("onnxmltools")
    types = library("onnxmltools.convert.common.data_types")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = getattr(library(package), kind)(n_estimators=count, **options).fit(HOLES, y)
        proto = getattr(tools, f"convert_{package}")(
            estimator, initial_types=[("x", types.FloatTensorType([None, 4]))], target_opset=15
        )
    compared(library, proto, samples("x", NEW_HOLES))
