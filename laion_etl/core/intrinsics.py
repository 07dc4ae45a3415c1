"""Single instructions for kernels, which Python has no words for.

Like kernels they are made when they are first needed: this module does not import numba.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast


def _copy_bytes(_: object, out: Any, _at: Any, data: Any, _start: Any, _count: Any) -> object:
    from numba import types
    from numba.core.cgutils import raw_memcpy

    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def address(array: int) -> Any:
            return _address(context, builder, signature, values, array)

        raw_memcpy(builder, address(0), address(2), values[4], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(out, types.intp, data, types.intp, types.intp), generated


def _prefetch(_: object, data: Any, _at: Any) -> object:
    from llvmlite import ir
    from numba import types

    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address = _address(context, builder, signature, values, 0)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(fetch, [address, number(0), number(3), number(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(data, types.intp), generated


def _address(context: Any, builder: Any, signature: Any, values: Any, array: int) -> Any:
    """Returns the address of a place in an array; the argument after the array is the index of the place."""
    data = context.make_array(signature.args[array])(context, builder, values[array]).data
    return builder.gep(data, [values[array + 1]])


class _Intrinsic:
    """A function for kernels only, which numba asks for its type while it compiles one that calls it."""

    def __init__(self, typed: Callable[..., object]) -> None:
        self._typed = typed

    @cached_property
    def _numba_type_(self) -> object:
        from numba.core.registry import cpu_target
        from numba.extending import intrinsic

        made, context = intrinsic(self._typed), cpu_target.typing_context
        context.refresh()  # of what intrinsics there are
        return context.resolve_value_type(made)


# For kernels: copy_bytes(out, at, data, start, count) copies like memcpy. Arrays of bytes in C order; bounds
# are not checked.
copy_bytes = cast(Callable[[Any, int, Any, int, int], None], _Intrinsic(_copy_bytes))
# For kernels: prefetch(data, at) begins to read a place that is needed soon, whether it exists or not.
prefetch = cast(Callable[[Any, int], None], _Intrinsic(_prefetch))
