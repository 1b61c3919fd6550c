"""Reading the engine's memory, and calling its functions, from compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sensor.meter.compiled.engine import SYMBOL_PREFIX

Number = Any
"""A number or a truth value of compiled code: numpy's types and Python's mix there."""

# Numba counts references to every array that a function touches, in atomic steps, unless the
# function is compiled without Numba's runtime. Then it cannot allocate either: nothing here does.
compiled: Callable[..., Any] = njit(cache=True, error_model="numpy", _nrt=False, nogil=True)
"""How every function of the loop is compiled: kept on disk, without the interpreter's lock."""
inlined: Callable[..., Any] = njit(
    error_model="numpy", _nrt=False, nogil=True, forceinline=True,
    no_cpython_wrapper=True, no_cfunc_wrapper=True,
)  # fmt: skip
"""For what those call: it has no entry of its own, so it takes less to compile, and no cache."""


def _loader(name: str, numba_type: Any, kind: Any) -> Any:
    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], kind.as_pointer())
            value = builder.load(place)
            value.align = 1
            return value

        return numba_type(types.uint64), generate

    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"The {numba_type} at an address (uint64), whatever its alignment."
    return intrinsic(load)


load_u8 = _loader("load_u8", types.uint8, ir.IntType(8))
load_u32 = _loader("load_u32", types.uint32, ir.IntType(32))
load_i64 = _loader("load_i64", types.int64, ir.IntType(64))
load_f64 = _loader("load_f64", types.float64, ir.DoubleType())


def _storer(name: str, numba_type: Any, kind: Any) -> Any:
    def store(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], kind.as_pointer())
            builder.store(arguments[1], place, align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, numba_type), generate

    store.__name__ = store.__qualname__ = name
    store.__doc__ = f"Write a {numba_type} to an address (uint64), whatever its alignment."
    return intrinsic(store)


store_u8 = _storer("store_u8", types.uint8, ir.IntType(8))
store_u32 = _storer("store_u32", types.uint32, ir.IntType(32))
store_i64 = _storer("store_i64", types.int64, ir.IntType(64))
store_f64 = _storer("store_f64", types.float64, ir.DoubleType())


@intrinsic  # type: ignore[untyped-decorator]
def address_of(typing_context: Any, array: Any) -> Any:
    """The address of an array's first item, as uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(view.data, ir.IntType(64))

    return types.uint64(array), generate


@intrinsic  # type: ignore[untyped-decorator]
def record_at(typing_context: Any, like: Any, address: Any) -> Any:
    """The record at an address (uint64), of the dtype of the array `like`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return like.dtype(like, types.uint64), generate


def _engine(name: str, result: Any, *arguments: Any) -> Any:
    return types.ExternalFunction(SYMBOL_PREFIX + name, result(*arguments))


# Pointers are addresses; small integers are passed as 32 bits, as the platforms' calling
# conventions do.
_ptr, _int, _long = types.uint64, types.int32, types.uint64
capture_next = _engine("capture_next", _int, _ptr, _ptr, _int, _int, _long, _int)
meter_initialize_flow = _engine(
    "meter_initialize_flow", _ptr, _ptr, _int, _int, _int, _int, _ptr, _int
)
meter_update_flow = _engine(
    "meter_update_flow", types.uint8, _ptr, _ptr, _long, _long, _int, _int, _int, _int, _ptr, _int
)
meter_expire_flow = _engine("meter_expire_flow", types.void, _ptr, _int, _ptr)
meter_free_flow = _engine("meter_free_flow", types.void, _ptr, _int, _int, _int)
