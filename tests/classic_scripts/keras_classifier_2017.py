"""A classifier of Keras 2 with pixels in the Caffe manner, as WWDC 2017 showed it."""

import keras
import numpy as np
from PIL import Image

import mlferry as coremltools

net = keras.models.Sequential(
    [
        keras.layers.Input((12, 12, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
net.save("flowers.h5")
with open("labels.txt", "w") as stream:
    stream.write("daisy\nrose\ntulip\n")

coreml_model = coremltools.converters.keras.convert(
    "flowers.h5",
    input_names=["image"],
    output_names=["probabilities"],
    image_input_names="image",
    class_labels="labels.txt",
    is_bgr=True,
    red_bias=-123.68,
    green_bias=-116.78,
    blue_bias=-103.94,
    image_scale=1.0,
)
coreml_model.author = "A. N. Author"
coreml_model.license = "MIT"
coreml_model.short_description = "Names a flower"
coreml_model.input_description["image"] = "A flower"
coreml_model.output_description["classLabel"] = "Its name"
coreml_model.save("Flowers.mlmodel")

pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
found = coremltools.models.MLModel("Flowers.mlmodel").predict(
    {"image": Image.fromarray(pixels)}, useCPUOnly=True
)
seen = pixels[..., ::-1] - np.array([103.94, 116.78, 123.68])
wanted = net.predict(seen[None].astype(np.float32), verbose=0)[0]
np.testing.assert_allclose(list(found["probabilities"].values()), wanted, atol=1e-5)
assert found["classLabel"] == ["daisy", "rose", "tulip"][int(wanted.argmax())]
