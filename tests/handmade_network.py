"""Tiny segmentation networks, written node by node, and the JSON files beside them."""

import json

import numpy as np
import pytest

CARD = {
    "labels": {"background": 0, "lv": 1, "myocardium": 2, "rv": 3},
    "layout": "NCHW",
    "output": "scores",
    "orientation": "as displayed",
    "spacing_mm": None,
    "size": {"multiple_of": 2},
    "intensity": {"scale": "none"},
}


def nearest(levels, path, *, shape=("n", 1, "h", "w"), tail=(), where=None, kind=1, **changes):
    """A network whose class is that of the level nearest to a pixel, and its card.

    −(x − l)² and 2 l x − l² are greatest at one l, and the second is a 1 × 1 convolution.

    Args:
        levels: of each class, by number. path: of the ONNX file.
        tail: names of further nodes. where: (h, w), 0 where only class 0 may be seen.
        shape, kind: of the input; 1, 10 and 11 are single, half and double precision.
        changes: of the card; `...` takes a field out.
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    of = np.array(levels, np.float32)
    constants = [
        numpy_helper.from_array((2 * of).reshape(-1, 1, 1, 1), "weight"),
        numpy_helper.from_array(-(of**2), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["single"], to=1),
        helper.make_node("Conv", ["single", "weight", "bias"], ["0"]),
    ]
    if where is not None:
        penalty = np.zeros((1, len(of), *where.shape), np.float32)
        penalty[0, 1:] = np.where(where, 0, -1e9)
        constants.append(numpy_helper.from_array(penalty, "penalty"))
        nodes.append(helper.make_node("Add", ["0", "penalty"], ["seen"]))
    for node, options in tail:
        last = nodes[-1].output[0]
        nodes.append(helper.make_node(node, [last], [str(len(nodes))], **options))
    result = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    image = helper.make_tensor_value_info("image", kind, shape)
    graph = helper.make_graph(nodes, "net", [image], [result], constants)
    model = helper.make_model(
        onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        ).graph,
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path.write_bytes(model.SerializeToString())
    write_card(path, **changes)
    return path


def write_card(path, **changes):
    card = {**CARD, **changes}
    card = {name: value for name, value in card.items() if value is not ...}
    path.with_suffix(".json").write_text(json.dumps(card))
