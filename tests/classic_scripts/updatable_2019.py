"""A model that an app trains: the last layers of a network of Keras, as of Core ML 3."""

import keras
import numpy as np

import mlferry as coremltools
from mlferry.models.neural_network import AdamParams, NeuralNetworkBuilder, SgdParams

model = keras.Sequential(
    [
        keras.layers.Input((8, 8, 1)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, name="last"),
    ]
)
model.layers[0].trainable = False
mlmodel = coremltools.converters.keras.convert(model, input_names=["image"], output_names=["score"])
spec = mlmodel.get_spec()

builder = NeuralNetworkBuilder(spec=spec)
builder.inspect_layers(last=3)
builder.make_updatable(["last"])
score = builder.spec.description.output[0]
shape = tuple(score.type.multiArrayType.shape)
builder.set_mean_squared_error_loss(
    name="loss", input_feature=("score", coremltools.models.datatypes.Array(*shape))
)
builder.set_sgd_optimizer(SgdParams(lr=1e-2, batch=4))
builder.set_epochs(10, allowed_set=[5, 10, 20])
builder.inspect_optimizer()
builder.inspect_loss_layers()
builder.inspect_updatable_layers()
coremltools.utils.save_spec(builder.spec, "Trainable.mlmodel")

updatable = coremltools.models.MLModel("Trainable.mlmodel")
x = np.random.default_rng(0).random((1, 8, 8, 1)).astype(np.float32)
np.testing.assert_allclose(updatable.predict({"image": x})["score"], model(x), atol=1e-5)
kept = updatable.get_spec()
assert kept.isUpdatable
assert kept.specificationVersion == 4
assert [f.name for f in kept.description.trainingInput] == ["image", "score_true"]

# once more, as the model was compiled
model.add(keras.layers.Activation("softmax"))
model.compile(optimizer=keras.optimizers.Adam(0.001), loss="categorical_crossentropy")
other = coremltools.converters.keras.convert(
    model, input_names=["image"], output_names=["p"], class_labels=["a", "b", "c"],
    respect_trainable=True,
)  # fmt: skip
network = other.get_spec().neuralNetworkClassifier
assert [layer.name for layer in network.layers if layer.isUpdatable] == ["last"]
adam = network.updateParams.optimizer.adamOptimizer
assert abs(adam.learningRate.defaultValue - 0.001) < 1e-9
assert list(adam.miniBatchSize.set.values) == [1, 16, 32]
assert AdamParams().beta2.value == 0.999
