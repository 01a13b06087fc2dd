"""A worker: the lecture's model in Keras, trained by `model.fit`.

    PEERS/bin/python benchmarks/training_keras_peer.py \
        '{"backend": "tensorflow", "model": "lecture-small", "image_size": 96, "batch_size": 4,
          "best": false}'

float32 as Keras comes; at its best `mixed_bfloat16` and `jit_compile`. On TensorFlow it is the
module of docs/lecture; on JAX, where `tf.image` can't be, its patches are cut by `keras.ops`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from speed_turns import Turns

NUM_CLASSES, PATCH, WIDTH = 3, 16, 768
#: Heads, layers, units of the head's two layers.
MODELS = {"lecture-small": (4, 2, 128), "lecture": (8, 4, 1024)}


def build_model(keras: Any, backend: str, name: str, side: int) -> Any:
    sys.path.insert(0, str(Path(__file__).parent.parent / "docs" / "lecture"))
    from keras_vit import build

    heads, layers, units = MODELS[name]
    arguments = (heads, WIDTH, (side // PATCH) ** 2, layers, units, NUM_CLASSES)
    vit = build(keras).ViT(*arguments)
    if backend == "jax":
        # The same layers, but for how patches are cut.
        class Cut(keras.layers.Layer):
            def call(self, images: Any) -> Any:
                patches = keras.ops.image.extract_patches(images, PATCH)
                flat = keras.ops.reshape(patches, (-1, (side // PATCH) ** 2, patches.shape[-1]))
                inner = vit.patch_encoder
                places = keras.ops.arange(flat.shape[1])
                return inner.linear_projection(flat) + inner.positional_embedding(places)

        pictures = keras.Input((side, side, 3))
        x = Cut()(pictures)
        for encoder in vit.trans_encoders:
            x = encoder(x)
        x = vit.dense_3(vit.dense_2(vit.dense_1(vit.flatten(x))))
        return keras.Model(pictures, x)
    return vit


def main(settings: dict[str, Any]) -> None:
    backend, best = settings["backend"], settings["best"]
    os.environ["KERAS_BACKEND"] = backend
    import keras

    if best:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    turns = Turns(settings["batch_size"])

    class Paced(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            turns.begin()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            turns.end()

    batch_size, side = settings["batch_size"], settings["image_size"]
    model = build_model(keras, backend, settings["model"], side)
    # As the lecture compiles it.
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=True if best else "auto",
    )
    images = np.random.default_rng(0).random((batch_size, side, side, 3), dtype=np.float32) * 255
    labels = np.eye(NUM_CLASSES, dtype=np.float32)[np.arange(batch_size) % NUM_CLASSES]

    def endless() -> Any:
        while True:
            yield images, labels

    model.fit(endless(), steps_per_epoch=100_000, epochs=1, verbose=0, callbacks=[Paced()])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
