"""A frozen graph and a model of Keras by tfcoreml's function, names in both spellings."""

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from mlferry.converters import tensorflow as tfcoreml

with tf.Graph().as_default() as graph:
    image = tf.compat.v1.placeholder(tf.float32, [1, 6, 6, 3], name="net/input")
    tf.reduce_mean(image, (1, 2), name="net/mean")
with open("frozen.pb", "wb") as stream:
    stream.write(graph.as_graph_def().SerializeToString())

pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
for spelling in ("net/input:0", "net__input__0"):
    mlmodel = tfcoreml.convert(
        tf_model_path="frozen.pb",
        mlmodel_path="mean.mlmodel",
        output_feature_names=["net/mean:0"],
        input_name_shape_dict={"net/input:0": [1, 6, 6, 3]},
        image_input_names=[spelling],
        image_scale={spelling: 1 / 255.0},
        minimum_ios_deployment_target="13",
    )
    found = mlmodel.predict({"net__input__0": Image.fromarray(pixels)})["net__mean__0"]
    np.testing.assert_allclose(found, pixels.mean((0, 1))[None] / 255, atol=1e-5)

model = keras.Sequential([keras.layers.Input((5,), name="input_1"), keras.layers.Dense(2)])
model.save("model.h5")
mlmodel = tfcoreml.convert(
    "model.h5",
    mlmodel_path="model.mlmodel",
    input_name_shape_dict={"input_1": (1, 5)},
    output_feature_names=["Identity"],
    minimum_ios_deployment_target="13",
)
x = np.ones((1, 5), np.float32)
np.testing.assert_allclose(mlmodel.predict({"input_1": x})["Identity"], model(x), atol=1e-6)
