"""The unified `convert` of coremltools 4, with everything that its guides write."""

import keras
import numpy as np
from PIL import Image

import mlferry as ct

inputs = keras.layers.Input((None, None, 3), name="image")
x = keras.layers.Conv2D(3, 3, padding="same", name="filtered")(inputs)
model = keras.Model(inputs, x)

mlmodel = ct.convert(
    model,
    source="tensorflow",
    inputs=[
        ct.ImageType(
            name="image",
            shape=ct.Shape(
                shape=(1, ct.RangeDim(8, 32), ct.RangeDim(8, 32), 3), default=(1, 16, 8, 3)
            ),
            bias=[-1, -1, -1],
            scale=1 / 127.5,
            color_layout=ct.colorlayout.RGB,
        )
    ],
    minimum_deployment_target=ct.target.iOS13,
    convert_to="neuralnetwork",
    compute_precision=ct.precision.FLOAT32,
    compute_units=ct.ComputeUnit.CPU_ONLY,
)  # fmt: skip
mlmodel.short_description = "A filter"
mlmodel.version = "1.0"
mlmodel.save("filter.mlmodel")

loaded = ct.models.MLModel("filter.mlmodel", compute_units=ct.ComputeUnit.CPU_ONLY)
assert loaded.get_spec().description.input[0].type.imageType.height == 16
for size in ((16, 8), (32, 20)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    made = loaded.predict({"image": Image.fromarray(pixels)})
    wanted = model((pixels[None] / 127.5 - 1).astype(np.float32))
    np.testing.assert_allclose(made["filtered"], wanted, atol=1e-4)
