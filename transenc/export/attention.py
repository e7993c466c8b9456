"""Fuse the attention that onnxruntime's optimizer leaves: with position biases (MPNet) or rotations (ModernBERT)."""

from __future__ import annotations

from typing import Any

import numpy as np

TO_HEADS = [0, 2, 1, 3]  # between (batch, sequence, heads, size) and (batch, heads, sequence, size)


class AttentionFusion:
    """Replace softmax(q k^T * scale + biases) v by one MultiHeadAttention node, wherever that is what is computed."""

    def __init__(self, model: Any, heads: int) -> None:
        self.graph, self.heads = model.graph, heads
        self.made: list[Any] = []
        self.known: dict[tuple[str, ...], str] = {}
        self.constants = {t.name: t for t in model.graph.initializer}
        self._index()

    def _index(self) -> None:
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def run(self) -> int:
        """Fuse all there are and return how many; nodes that became useless are left for pruning."""
        count = sum(self._fuse(node) for node in list(self.graph.node) if node.op_type == "Softmax")
        self.graph.node.extend(self.made)
        return count

    def _fuse(self, softmax: Any) -> bool:
        end = self._end(softmax)
        scores, biases = self._scores(softmax.input[0])
        if end is None or scores is None:
            return False
        context, reshape = end
        product, scale = scores
        turned = self._made_by(product.input[1], "Transpose")
        if turned is None:
            return False
        if _perm(turned) == [0, 2, 3, 1]:
            key = self._joined(turned.input[0])
        elif _perm(turned) == [0, 1, 3, 2]:
            key = self._flat(turned.input[0])
        else:
            return False
        query, value = self._flat(product.input[0]), self._flat(context.input[1])
        self._add(
            "MultiHeadAttention",
            [query, key, value, "", "", self._sum(biases)],
            reshape.output[0],
            domain="com.microsoft",
            num_heads=self.heads,
            scale=scale,
        )
        del reshape.output[:]
        reshape.output.append(f"{query}_unfused_{len(self.made)}")  # its name belongs to the new node
        return True

    def _end(self, softmax: Any) -> tuple[Any, Any] | None:
        """Return the product with the values and the reshape that joins the heads after it."""
        context = self._only_user(softmax, "MatMul")
        turned = None if context is None else self._only_user(context, "Transpose")
        if turned is None or _perm(turned) != TO_HEADS:
            return None
        reshape = self._only_user(turned, "Reshape")
        return None if reshape is None else (context, reshape)

    def _scores(self, name: str) -> tuple[tuple[Any, float] | None, list[str]]:
        """Walk up the additions before a softmax to the scaled product of queries and keys."""
        biases: list[str] = []
        while (add := self._made_by(name, "Add")) is not None:
            sides = [side for side in add.input if self._leads_to_product(side)]
            if len(sides) != 1:
                return None, []
            name = sides[0]
            biases.append(next(side for side in add.input if side != name))
        scaled = self._product(name)
        return (scaled, biases) if scaled is not None and biases else (None, [])

    def _leads_to_product(self, name: str) -> bool:
        add = self._made_by(name, "Add")
        if add is not None:
            return any(self._leads_to_product(side) for side in add.input)
        return self._product(name) is not None

    def _product(self, name: str) -> tuple[Any, float] | None:
        node = self.maker.get(name)
        if node is None or node.op_type not in ("Div", "Mul"):
            return None
        product, factor = self._made_by(node.input[0], "MatMul"), self._number(node.input[1])
        if product is None or not factor:
            return None
        return product, 1 / factor if node.op_type == "Div" else factor

    def _flat(self, name: str) -> str:
        """Return (batch, heads, sequence, size) as (batch, sequence, heads * size)."""
        turned = self._made_by(name, "Transpose")
        if turned is not None and _perm(turned) == TO_HEADS:
            return self._joined(turned.input[0])
        return self._joined(self._add("Transpose", [name], f"{name}_turned", perm=TO_HEADS))

    def _joined(self, name: str) -> str:
        """Return (batch, sequence, heads, size) as (batch, sequence, heads * size)."""
        split = self._made_by(name, "Reshape")
        if split is not None:
            return str(split.input[0])
        return self._add("Reshape", [name, self._shape()], f"{name}_joined")

    def _sum(self, biases: list[str]) -> str:
        total = biases[0]
        for bias in biases[1:]:
            total = self._add("Add", [total, bias], f"{total}_plus_{len(self.made)}")
        return total

    def _add(self, kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Add a node, or find the one that computes the same, and return its output."""
        from onnx.helper import make_node

        key = (kind, *inputs)
        if key not in self.known:
            name = f"fused_{kind}_{len(self.made)}"
            self.made.append(make_node(kind, inputs, [output], name=name, domain=domain, **attributes))
            self.known[key] = output
        return self.known[key]

    def _shape(self) -> str:
        from onnx.numpy_helper import from_array

        name = "fused_shape"
        if name not in self.constants:
            self.constants[name] = from_array(np.array([0, 0, -1], np.int64), name)
            self.graph.initializer.append(self.constants[name])
        return name

    def _number(self, name: str) -> float | None:
        from onnx.numpy_helper import to_array

        tensor = self.constants.get(name)
        constant = self._made_by(name, "Constant")
        if tensor is None and constant is not None:
            tensor = constant.attribute[0].t
        if tensor is None:
            return None
        values = to_array(tensor)
        return float(values.reshape(-1)[0]) if values.size == 1 else None

    def _made_by(self, name: str, kind: str) -> Any:
        node = self.maker.get(name)
        return node if node is not None and node.op_type == kind else None

    def _only_user(self, node: Any, kind: str) -> Any:
        users = self.users.get(node.output[0], [])
        return users[0] if len(users) == 1 and users[0].op_type == kind else None


def _perm(node: Any) -> list[int]:
    return list(node.attribute[0].ints)
