"""A small TensorFlow Serving: its own gRPC service, answered from the file of a SavedModel."""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Iterator

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc


class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """One model under one name, as the server has it: what it takes and gives stands in its SignatureDefs.

    Args:
      path: <folder>/<name>/<version>.
    """

    def __init__(self, path: pathlib.Path):
        saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        (meta_graph,) = saved_model.meta_graphs
        self.name, self.version = path.parent.name, int(path.name)
        self.ends = {name: ends for name, ends in meta_graph.signature_def.items() if not name.startswith("__")}
        self.model = tf.saved_model.load(path)

    def GetModelMetadata(self, request, context):  # noqa: N802 - the protocol's
        """The SignatureDefs."""
        self._spec(request, context)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._fill(response.model_spec)
        response.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=self.ends))
        return response

    def Predict(self, request, context):  # noqa: N802 - the protocol's
        """One session run, from the names of the SignatureDef to its names."""
        signature = self._spec(request, context) or "serving_default"
        if signature not in self.ends:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature}" not found.')
        ends, tensors = self.ends[signature], {}
        if set(request.inputs) != set(ends.inputs):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"inputs: {[*request.inputs]}, not {[*ends.inputs]}")
        for name, info in ends.inputs.items():
            tensor = request.inputs[name]
            fits = tf.TensorShape(info.tensor_shape).is_compatible_with(tf.TensorShape(tensor.tensor_shape))
            if tensor.dtype != info.dtype or not fits:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {tensor.dtype}, {tensor.tensor_shape}")
            tensors[name] = tf.constant(tf.make_ndarray(tensor))
        try:
            outputs = self.model.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        self._fill(response.model_spec, signature_name=signature)
        for name in request.output_filter or ends.outputs:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response

    def _spec(self, request, context) -> str:
        if request.model_spec.name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        return request.model_spec.signature_name

    def _fill(self, spec, **more):
        spec.MergeFrom(type(spec)(name=self.name, **more))
        spec.version.value = self.version


@contextlib.contextmanager
def served(path: pathlib.Path) -> Iterator[prediction_service_pb2_grpc.PredictionServiceStub]:
    """TensorFlow Serving's own client of such a server, over a socket."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Server(path), server)
    address = f"localhost:{server.add_insecure_port('localhost:0')}"
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    finally:
        server.stop(grace=None).wait()
