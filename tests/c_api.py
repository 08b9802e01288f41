"""SavedModels through TensorFlow's C API, whose loader is the one that TensorFlow Serving links.

TensorFlow's Python is not imported: functions are called by ctypes, and signatures are read off the MetaGraphDef, a
protocol buffer.
"""

import ctypes
import importlib.util
import pathlib

import numpy as np

DTYPES = {1: np.float32, 4: np.uint8, 7: object, 10: np.bool_}  # of TensorFlow's DataType; 7 is a string
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
STRING_BYTES = 24  # sizeof(TF_TString)
POINTER, INT64 = ctypes.c_void_p, ctypes.c_int64


class Buffer(ctypes.Structure):
    _fields_ = (("data", POINTER), ("length", ctypes.c_size_t), ("free", POINTER))


class Output(ctypes.Structure):
    _fields_ = (("operation", POINTER), ("index", ctypes.c_int))


def library():
    """TensorFlow's shared library, found without importing TensorFlow."""
    (folder,) = importlib.util.find_spec("tensorflow").submodule_search_locations
    (path,) = (path for path in pathlib.Path(folder).glob("libtensorflow_cc.*") if path.suffix in (".2", ".dylib"))
    tf = ctypes.CDLL(str(path))
    for function in ("NewStatus", "NewGraph", "NewSessionOptions", "LoadSessionFromSavedModel"):
        getattr(tf, f"TF_{function}").restype = POINTER
    for function in ("GraphOperationByName", "AllocateTensor", "TensorData", "StringGetDataPointer"):
        getattr(tf, f"TF_{function}").restype = POINTER
    tf.TF_NewBuffer.restype = ctypes.POINTER(Buffer)
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_Dim.restype = INT64
    tf.TF_StringGetSize.restype = ctypes.c_size_t
    return tf


class SavedModel:
    """A loaded SavedModel; `signatures` are {name: {"inputs" | "outputs": {name: (tensor, dtype code, shape)}}}."""

    def __init__(self, path):
        self.tf = tf = library()
        self.status = POINTER(tf.TF_NewStatus())
        self.graph = POINTER(tf.TF_NewGraph())
        options, tags, meta = POINTER(tf.TF_NewSessionOptions()), (ctypes.c_char_p * 1)(b"serve"), tf.TF_NewBuffer()
        self.session = POINTER(
            tf.TF_LoadSessionFromSavedModel(options, None, str(path).encode(), tags, 1, self.graph, meta, self.status)
        )
        self._check()
        self.signatures = read_signatures(ctypes.string_at(meta.contents.data, meta.contents.length))

    def run(self, signature, inputs):
        """Arrays in, those of dtype object holding bytes, arrays out, by their names in the signature."""
        ends = self.signatures[signature]
        given = [self._output(ends["inputs"][name][0]) for name in inputs]
        wanted = [self._output(tensor) for tensor, *_ in ends["outputs"].values()]
        tensors = (POINTER * len(given))(*(self._tensor(np.asarray(array)) for array in inputs.values()))
        results = (POINTER * len(wanted))()
        self.tf.TF_SessionRun(
            self.session,
            None,
            (Output * len(given))(*given),
            tensors,
            len(given),
            (Output * len(wanted))(*wanted),
            results,
            len(wanted),
            None,
            0,
            None,
            self.status,
        )
        self._check()
        return {name: self._array(result) for name, result in zip(ends["outputs"], results, strict=True)}

    def _check(self):
        if self.tf.TF_GetCode(self.status):
            raise RuntimeError(self.tf.TF_Message(self.status).decode())

    def _output(self, tensor):
        operation, index = tensor.split(":")
        return Output(self.tf.TF_GraphOperationByName(self.graph, operation.encode()), int(index))

    def _tensor(self, array):
        size = array.size * (STRING_BYTES if array.dtype == object else array.itemsize)
        shape = (INT64 * array.ndim)(*array.shape)
        tensor = self.tf.TF_AllocateTensor(CODES[array.dtype], shape, array.ndim, ctypes.c_size_t(size))
        data = self.tf.TF_TensorData(POINTER(tensor))
        if array.dtype != object:
            ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        for number, text in enumerate(array.ravel() if array.dtype == object else ()):
            place = POINTER(data + number * STRING_BYTES)
            self.tf.TF_StringInit(place)
            self.tf.TF_StringCopy(place, text, ctypes.c_size_t(len(text)))
        return tensor

    def _array(self, tensor):
        tensor = POINTER(tensor)
        shape = [self.tf.TF_Dim(tensor, axis) for axis in range(self.tf.TF_NumDims(tensor))]
        dtype = np.dtype(DTYPES[self.tf.TF_TensorType(tensor)])
        data, count = self.tf.TF_TensorData(tensor), int(np.prod(shape))
        if dtype.kind != "O":
            size = count * dtype.itemsize
            return np.frombuffer(ctypes.string_at(data, size), dtype).reshape(shape)
        strings = np.empty(count, object)
        for number in range(count):
            place = POINTER(data + number * STRING_BYTES)
            strings[number] = ctypes.string_at(self.tf.TF_StringGetDataPointer(place), self.tf.TF_StringGetSize(place))
        return strings.reshape(shape)


def read_signatures(meta_graph):
    """The signatures of a serialized MetaGraphDef."""
    signatures = {}
    for name, definition in _map(meta_graph, 5):
        if not name.startswith("__"):  # TensorFlow's own
            signatures[name] = {
                end: {key: _tensor_info(info) for key, info in _map(definition, number)}
                for number, end in ((1, "inputs"), (2, "outputs"))
            }
    return signatures


def _tensor_info(info):
    fields = dict(_fields(info))
    sizes = [dict(_fields(dimension)).get(1, 0) for number, dimension in _fields(fields[3]) if number == 2]
    return fields[1].decode(), fields[2], [-1 if size == 2**64 - 1 else size for size in sizes]


def _map(message, field):
    """The entries of a map<string, message>."""
    for number, value in _fields(message):
        if number == field:
            entry = dict(_fields(value))
            yield entry[1].decode(), entry[2]


def _fields(message):
    """(number, value) of a protocol buffer's fields: an int, or the bytes of whatever has a length."""
    position = 0

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        length = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        yield key >> 3, message[position : position + length]
        position += length
