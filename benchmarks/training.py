"""Training a small convolutional network, here and by Keras, in turns in one process.

    python benchmarks/training.py [--runs 3] [--docs]

The same network, weights, samples, order and optimizer; one thread each. Keras trains as users do,
by `fit`, compiled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import numpy as np

from benchmarks.pages import PAGE, write_table

STEPS = 30
BATCHES = (1, 8, 32)
ADAM = {"learningRate": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-7}


def of_keras() -> Any:
    """28 x 28 pixels, two convolutions with pooling, two dense layers: 225,034 weights."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy")
    return model


def ours(model: Any, batch: int) -> Any:
    """The same network, updatable."""
    import mlferry
    from mlferry.layers.builder import Builder
    from mlferry.models import utils
    from mlferry.models.neural_network import AdamParams

    builder = Builder()
    builder.input("image", (1, 1, 28, 28))
    blob = "image"

    def add(kind: str, name: str, **params: Any) -> None:
        nonlocal blob
        builder.layer(kind, name, [blob], [name], **params)
        blob = name

    for index, layer in enumerate(layer for layer in model.layers if layer.get_weights()):
        matrix, bias = layer.get_weights()
        if matrix.ndim == 4:
            add(
                "convolution", f"conv{index}", outputChannels=matrix.shape[3],
                kernelChannels=matrix.shape[2], kernelSize=[3, 3], valid={}, hasBias=True,
                weights=matrix.transpose(3, 2, 0, 1), bias=bias,
            )  # fmt: skip
            add("activation", f"relu{index}", ReLU={})
            add("pooling", f"pool{index}", type="MAX", kernelSize=[2, 2], stride=[2, 2], valid={})
            continue
        if index == 2:
            add("flatten", "flat", mode="CHANNEL_LAST")
        add(
            "innerProduct", f"dense{index}", inputChannels=matrix.shape[0],
            outputChannels=matrix.shape[1], hasBias=True, weights=matrix.T, bias=bias,
        )  # fmt: skip
        if index == 2:
            add("activation", f"relu{index}", ReLU={})
    add("softmax", "p")
    builder.output("p")
    names = ["conv0", "conv1", "dense2", "dense3"]
    optimizer = AdamParams(0.001, batch, eps=1e-7)
    updatable = utils.with_training(mlferry.MLModel(builder.model()), names, optimizer, epochs=[1])
    spec = updatable.get_spec()
    spec.neuralNetwork.updateParams.shuffle.defaultValue = False
    return updatable.with_spec(spec)


def measured(batch: int, runs: int) -> tuple[str, ...]:
    rng = np.random.default_rng(0)
    images = rng.random((batch * STEPS, 28, 28, 1), np.float32)
    labels = rng.integers(0, 10, len(images))
    theirs = of_keras()
    model = ours(theirs, batch)
    target = model.spec.description.trainingInput[-1].name
    samples = [
        {"image": image.transpose(2, 0, 1)[None], target: int(label)}
        for image, label in zip(images, labels, strict=True)
    ]
    rates: list[tuple[float, float]] = []
    for run in range(runs + 1):
        start = time.perf_counter()
        theirs.fit(images, labels, batch_size=batch, epochs=1, shuffle=False, verbose=0)
        middle = time.perf_counter()
        model.update(samples)
        end = time.perf_counter()
        if run:  # the first compiles
            rates.append((STEPS / (end - middle), STEPS / (middle - start)))
    here, there = (statistics.median(each) for each in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    return str(batch), f"{here:.0f}", f"{there:.0f}", f"{ratio:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--docs", action="store_true", help="write docs/training.md's table")
    arguments = parser.parse_args()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rows = [measured(batch, arguments.runs) for batch in BATCHES]
    for row in rows:
        print("  ".join(row))
    if arguments.docs:
        header = ("Samples a step", "Steps a second", "Keras", "Ratio")
        write_table("training", header, rows, PAGE.with_name("training.md"))


if __name__ == "__main__":
    main()
