"""The lecture's model in Keras: for those who come from it, and what the tests compare with.

Written with the lecture's names. `build` takes the framework as a module, so that one text serves
Keras 3 and tf.keras 2, whose layers have the same names and arguments:

    import keras
    from keras_vit import build

    ViT = build(keras).ViT
    model = keras.saving.load_model("faces.keras")

The classes are registered as `vitreous>ViT` and so on, which is how a `.keras` file finds them.
"""

from types import ModuleType, SimpleNamespace

import tensorflow as tf


def build(keras: ModuleType, gelu="gelu") -> SimpleNamespace:
    """The lecture's three classes on top of one generation of Keras, and one GELU."""
    layers = keras.layers

    @keras.saving.register_keras_serializable(package="vitreous")
    class PatchEncoder(layers.Layer):
        def __init__(self, num_patches, hidden_size, patch_size=16, **kwargs):
            super().__init__(**kwargs)
            self.num_patches, self.hidden_size, self.patch_size = (
                num_patches,
                hidden_size,
                patch_size,
            )
            self.linear_projection = layers.Dense(hidden_size)
            self.positional_embedding = layers.Embedding(num_patches, hidden_size)

        def call(self, images):
            side = [1, self.patch_size, self.patch_size, 1]
            patches = tf.image.extract_patches(images, side, side, [1, 1, 1, 1], "VALID")
            patches = tf.reshape(patches, (tf.shape(patches)[0], -1, patches.shape[-1]))
            positions = self.positional_embedding(tf.range(self.num_patches))
            return self.linear_projection(patches) + positions

    @keras.saving.register_keras_serializable(package="vitreous")
    class TransformerEncoder(layers.Layer):
        def __init__(self, num_heads, hidden_size, **kwargs):
            super().__init__(**kwargs)
            self.layer_norm_1 = layers.LayerNormalization()
            self.layer_norm_2 = layers.LayerNormalization()
            self.multi_head_att = layers.MultiHeadAttention(num_heads, hidden_size)
            self.dense_1 = layers.Dense(hidden_size, activation=gelu)
            self.dense_2 = layers.Dense(hidden_size, activation=gelu)

        def call(self, x):
            normed = self.layer_norm_1(x)
            x = self.multi_head_att(normed, normed) + x
            return self.dense_2(self.dense_1(self.layer_norm_2(x))) + x

    @keras.saving.register_keras_serializable(package="vitreous")
    class ViT(keras.Model):
        def __init__(
            self,
            num_heads,
            hidden_size,
            num_patches,
            num_layers,
            num_dense_units,
            num_classes=3,
            patch_size=16,
            **kwargs,
        ):
            super().__init__(**kwargs)
            self.settings = {
                "num_heads": num_heads,
                "hidden_size": hidden_size,
                "num_patches": num_patches,
                "num_layers": num_layers,
                "num_dense_units": num_dense_units,
                "num_classes": num_classes,
                "patch_size": patch_size,
            }
            self.patch_encoder = PatchEncoder(num_patches, hidden_size, patch_size)
            self.trans_encoders = [
                TransformerEncoder(num_heads, hidden_size) for _ in range(num_layers)
            ]
            self.flatten = layers.Flatten()
            self.dense_1 = layers.Dense(num_dense_units, activation=gelu)
            self.dense_2 = layers.Dense(num_dense_units, activation=gelu)
            self.dense_3 = layers.Dense(num_classes, activation="softmax")

        def get_config(self):
            return {**super().get_config(), **self.settings}

        def call(self, images):
            x = self.patch_encoder(images)
            for encoder in self.trans_encoders:
                x = encoder(x)
            return self.dense_3(self.dense_2(self.dense_1(self.flatten(x))))

    return SimpleNamespace(
        PatchEncoder=PatchEncoder, TransformerEncoder=TransformerEncoder, ViT=ViT
    )
