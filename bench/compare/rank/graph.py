"""How is an ONNX graph written node by node, in the three forms that are compared?

The form says what a graph does with the user's features, of which a request has one row and its candidates many:

* `tiled`: every input has the candidates' batch dimension, as a trainer exports it;
* `expanded`: user inputs have one row, and what is made of them is expanded just before it meets the candidates' in a
  `Concat`; every product stays whole;
* `split`: as a person would split it by hand: a product of user and candidate values is two products, the user's of one
  row.
"""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FORMS = ("tiled", "expanded", "split")
USER, CANDIDATE = "user", "candidate"


class Graph:
    """A graph being written: each method adds nodes and gives the name of their output."""

    def __init__(self, name, form):
        assert form in FORMS
        self.name, self.form = name, form
        self.nodes, self.constants, self.inputs, self.outputs, self.count = [], {}, {}, {}, 0
        self.first_candidate = None

    def node(self, operator, *inputs, output=None, **attributes):
        self.count += 1
        output = output or f"{operator.lower()}_{self.count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{operator}_{self.count}", **attributes))
        return output

    def constant(self, name, values):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(numpy.ascontiguousarray(values), name)
        return name

    def integers(self, *values):
        return self.constant("integers_" + "_".join(map(str, values)).replace("-", "m"), numpy.array(values, numpy.int64))

    def input(self, name, side, width=1, kind=TensorProto.FLOAT):
        rows = 1 if side == USER and self.form != "tiled" else "batch"
        if side == CANDIDATE and self.first_candidate is None:
            self.first_candidate = name
        self.inputs.setdefault(name, helper.make_tensor_value_info(name, kind, [rows, width]))
        return name

    def embedded(self, name, side, table, width=1):
        """Rows of a table: [batch, columns] for one place, [batch, width, columns] for several."""
        rows = self.input(name, side, width, TensorProto.INT64)
        found = self.node("Gather", self.constant(f"{name}.table", table), rows, axis=0)
        return self.node("Squeeze", found, self.integers(1)) if width == 1 else found

    def many(self, user, width):
        """A user's [1, width] with the candidates' rows; in the tiled form it has them."""
        if self.form == "tiled":
            return user
        candidates = self.node("Slice", self.node("Shape", self.first_candidate), self.integers(0), self.integers(1))
        return self.node("Expand", user, self.node("Concat", candidates, self.integers(width), axis=0))

    def linear(self, name, x, weights, bias=None):
        product = self.node("MatMul", x, self.constant(f"{name}.w", weights))
        return product if bias is None else self.node("Add", product, self.constant(f"{name}.b", bias))

    def relu(self, x):
        return self.node("Relu", x)

    def output(self, name, x):
        self.node("Identity", x, output=name)
        self.outputs[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1])

    def vector(self, name, x, width):
        self.node("Identity", x, output=name)
        self.outputs[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    def model(self):
        graph = helper.make_graph(
            self.nodes, self.name, list(self.inputs.values()), list(self.outputs.values()), list(self.constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="gavel-compare")
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


class Joined:
    """A user's and a candidate's values, side by side: [user, candidate] along the last axis."""

    def __init__(self, graph, user, user_width, candidate, candidate_width):
        self.graph, self.user, self.candidate = graph, user, candidate
        self.user_width, self.candidate_width = user_width, candidate_width
        self.whole = None

    @property
    def width(self):
        return self.user_width + self.candidate_width

    def concat(self):
        """Both as one tensor."""
        if self.whole is None:
            many = self.graph.many(self.user, self.user_width)
            self.whole = self.graph.node("Concat", many, self.candidate, axis=1)
        return self.whole

    def linear(self, name, weights, bias=None):
        """A dense layer over both."""
        if self.graph.form != "split":
            return self.graph.linear(name, self.concat(), weights, bias)
        of_user = self.graph.linear(f"{name}.user", self.user, weights[: self.user_width], bias)
        return self.graph.node("Add", self.graph.linear(f"{name}.rest", self.candidate, weights[self.user_width :]), of_user)
