"""What a served model takes and gives, for people."""

from typing import Any

from serving.embedded.models import ServedModel
from serving.tensors import type_name


def describe_signatures(model: ServedModel) -> list[str]:
    """Gives one line for each signature: what goes in, and what comes out."""
    lines = []
    width = max(len(name) for name in model.session.signatures)
    for name, signature in sorted(model.session.signatures.items()):
        if name.startswith("__"):  # TensorFlow's own, such as __saved_model_init_op
            continue
        inputs, outputs = (
            ", ".join(f"{key} {_tensor_type(info)}" for key, info in sorted(tensors.items()))
            for tensors in (signature.inputs, signature.outputs)
        )
        lines.append(f"{name:{width}}  {inputs} -> {outputs}")
    return lines


def _tensor_type(info: Any) -> str:
    shape = info.tensor_shape
    sizes = ["?" if dim.size < 0 else str(dim.size) for dim in shape.dim]
    return f"{type_name(info.dtype)}[{','.join(sizes)}]"
