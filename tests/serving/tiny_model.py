"""A SavedModel of one weight, with two of the project's signatures.

``python -m tests.serving.tiny_model DIR`` writes it as a version below a folder, for a server to
which the tests of ``docs/serving.md`` are to be held.
"""

import sys
from pathlib import Path
from typing import Any

LUNG_BELOW = 100
"""Gray value below which a pixel is lung."""

TINY_VERSION = 3


def export_tiny_model(export_dir: Path) -> None:
    """Writes the SavedModel."""
    import tensorflow as tf

    class TinyModel(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lung_below = tf.Variable(float(LUNG_BELOW))

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8, name="image")])
        def segment(self, image: Any) -> Any:
            probability = tf.sigmoid((self.lung_below - tf.cast(image, tf.float32)) / 16.0)
            return {
                "predicted_mask": tf.cast(probability > 0.5, tf.uint8),
                "probability": probability,
            }

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def segment_files(self, image_bytes: Any) -> Any:
            def segment_file(data: Any) -> Any:
                image = tf.io.decode_image(data, expand_animations=False)[..., :1]
                image = tf.ensure_shape(image, [None, None, 1])
                mask = self.segment(image[tf.newaxis])["predicted_mask"][0]
                return tf.io.encode_png(mask * 255)

            masks = tf.map_fn(segment_file, image_bytes, fn_output_signature=tf.string)
            return {"predicted_mask_bytes": masks}

    model = TinyModel()
    tf.saved_model.save(
        model,
        str(export_dir),
        signatures={"serving_default": model.segment, "encoded": model.segment_files},
    )


if __name__ == "__main__":
    export_tiny_model(Path(sys.argv[1]) / str(TINY_VERSION))
