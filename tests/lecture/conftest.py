"""Real TensorFlow and Keras, and the lecture's classes in both generations of Keras."""

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

KERAS_VIT = Path(__file__).parents[2] / "docs" / "lecture" / "keras_vit.py"


@pytest.fixture(scope="session")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow

    return tensorflow


@pytest.fixture(scope="session")
def build(tf):
    """The function of docs/lecture/keras_vit.py, as a reader would import it."""
    spec = importlib.util.spec_from_file_location("keras_vit", KERAS_VIT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


@pytest.fixture(scope="session")
def keras(tf):
    import keras

    return keras


@pytest.fixture(scope="session")
def lecture3(build, keras) -> SimpleNamespace:
    """The lecture's classes in Keras 3."""
    return build(keras)


@pytest.fixture(scope="session")
def lecture2(build, tf) -> SimpleNamespace:
    """The lecture's classes in tf.keras 2."""
    import tf_keras

    return build(tf_keras)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (7, 24, 24, 3)).astype(np.float32)
