"""Single instructions for kernels, which Python has no words for.

Masks compare 64 bytes at once and have a bit for each, the lowest for the first byte. A loop over bytes does
the same at a tenth of the speed: what it is made into depends on how it is written. They read
up to 66 bytes beyond the data, which must belong to the array (ByteArena has 128 to spare).

Like kernels they are made when they are first needed: this module does not import numba. Each has a form in
Python, too, for kernels that run as Python (NUMBA_DISABLE_JIT, as the fuzzer runs them).
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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


def _weigh_lines(
    _: object,
    out: Any,
    _at: Any,
    lines: Any,
    _start: Any,
    _stride: Any,
    weights: Any,
    _first: Any,
    _taps: Any,
) -> object:
    from llvmlite import ir
    from numba import types
    from numba.core.cgutils import alloca_once_value, for_range

    numbers, levels = (ir.VectorType(ir.IntType(bits), WEIGHED) for bits in (32, 8))

    def all_of(value: int) -> Any:
        return ir.Constant(numbers, [value] * WEIGHED)

    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        target, line, weight = (_address(context, builder, signature, values, array) for array in (0, 2, 5))
        half = all_of(1 << (WEIGHT_BITS - 1))
        sums = alloca_once_value(builder, half)  # type: ignore[no-untyped-call]
        with for_range(builder, values[7]) as loop:
            place = builder.gep(line, [builder.mul(loop.index, values[4])])
            pixels = builder.load(builder.bitcast(place, levels.as_pointer()), align=1)
            one = builder.insert_element(
                ir.Constant(numbers, ir.Undefined),
                builder.load(builder.gep(weight, [loop.index])),
                _first_lane(ir),
            )
            each = builder.shuffle_vector(one, one, all_of(0))
            product = builder.mul(builder.zext(pixels, numbers), each)
            builder.store(builder.add(builder.load(sums), product), sums)
        found = builder.ashr(builder.load(sums), all_of(WEIGHT_BITS))
        found = builder.select(builder.icmp_signed("<", found, all_of(0)), all_of(0), found)
        found = builder.select(builder.icmp_signed(">", found, all_of(255)), all_of(255), found)
        written = builder.bitcast(target, levels.as_pointer())
        builder.store(builder.trunc(found, levels), written, align=1)
        return context.get_dummy_value()

    index = types.intp
    return types.void(out, index, lines, index, index, weights, index, index), generated


def _first_lane(ir: Any) -> Any:
    return ir.Constant(ir.IntType(32), 0)


LANES = 64  # bytes of a mask


def _mask(compared: Callable[[Any, Any, Any], Any]) -> Callable[..., object]:
    """Returns the intrinsic for a comparison of each byte of a block with one value."""

    def typed(_: object, data: Any, _at: Any, _byte: Any) -> object:
        from llvmlite import ir
        from numba import types

        def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            block_type = ir.VectorType(ir.IntType(8), LANES)
            address = _address(context, builder, signature, values, 0)
            block = builder.load(builder.bitcast(address, block_type.as_pointer()))
            block.align = 1
            return builder.bitcast(
                compared(builder, block, _repeated(builder, values[2], block_type)), ir.IntType(LANES)
            )

        return types.uint64(data, types.intp, types.uint8), generated

    return typed


def _repeated(builder: Any, byte: Any, block_type: Any) -> Any:
    """Returns a block with a byte in each place."""
    from llvmlite import ir

    places = ir.VectorType(ir.IntType(32), LANES)
    undefined = ir.Constant(block_type, ir.Undefined)
    first = builder.insert_element(undefined, byte, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(places, None))


def _equal(builder: Any, block: Any, other: Any) -> Any:
    return builder.icmp_unsigned("==", block, other)


def _equal_letter(builder: Any, block: Any, other: Any) -> Any:
    case = _repeated(builder, other.type.element(32), other.type)
    return builder.icmp_unsigned("==", builder.or_(block, case), other)


def _below(builder: Any, block: Any, other: Any) -> Any:
    return builder.icmp_unsigned("<", block, other)


def _lowest_bit(_: object, _mask: Any) -> object:
    from llvmlite import ir
    from numba import types

    def generated(_: Any, builder: Any, __: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.IntType(1)(1))

    return types.intp(types.uint64), generated


def _address(context: Any, builder: Any, signature: Any, values: Any, array: int) -> Any:
    """Returns the address of a place in an array; the argument after the array is the index of the place."""
    data = context.make_array(signature.args[array])(context, builder, values[array]).data
    return builder.gep(data, [values[array + 1]])


WEIGHED = 32  # bytes that `weigh_lines` writes
WEIGHT_BITS = 22  # of the fraction of its weights


class _Intrinsic:
    """A function for kernels only, which numba asks for its type while it compiles one that calls it."""

    def __init__(self, typed: Callable[..., object], in_python: Callable[..., object]) -> None:
        self._typed = typed
        self._in_python = in_python

    def __call__(self, *given: object) -> object:
        return self._in_python(*given)

    @cached_property
    def _numba_type_(self) -> object:
        from numba.core.registry import cpu_target
        from numba.extending import intrinsic

        made, context = intrinsic(self._typed), cpu_target.typing_context
        context.refresh()  # of what intrinsics there are
        return context.resolve_value_type(made)


def _copied(out: Array, at: int, data: Array, start: int, count: int) -> None:
    out[at : at + count] = data[start : start + count]


def _not_fetched(_: Array, __: int) -> None: ...


def _weighed(  # noqa: PLR0913, PLR0917 - as the compiled one
    out: Array, at: int, lines: Array, start: int, stride: int, weights: Array, first: int, taps: int
) -> None:
    sums = np.full(WEIGHED, 1 << (WEIGHT_BITS - 1), np.int64)
    for tap in range(taps):
        place = start + tap * stride
        sums += lines[place : place + WEIGHED].astype(np.int64) * int(weights[first + tap])
    out[at : at + WEIGHED] = np.clip(sums >> WEIGHT_BITS, 0, 255)


def _equal_places(data: Array, at: int, byte: int) -> np.uint64:
    return _mask_of(data[at : at + LANES] == byte)


def _letter_places(data: Array, at: int, byte: int) -> np.uint64:
    return _mask_of((data[at : at + LANES] | 32) == byte)


def _places_below(data: Array, at: int, byte: int) -> np.uint64:
    return _mask_of(data[at : at + LANES] < byte)


def _mask_of(places: npt.NDArray[np.bool_]) -> np.uint64:
    return np.uint64(int.from_bytes(np.packbits(places, bitorder="little").tobytes(), "little"))


def _lowest(mask: np.uint64) -> int:
    bits = int(mask)
    return (bits & -bits).bit_length() - 1


# For kernels: copy_bytes(out, at, data, start, count) copies like memcpy. Arrays of bytes in C order; bounds
# are not checked.
copy_bytes = cast(Callable[[Any, int, Any, int, int], None], _Intrinsic(_copy_bytes, _copied))
# For kernels: prefetch(data, at) begins to read a place that is needed soon, whether it exists or not.
prefetch = cast(Callable[[Any, int], None], _Intrinsic(_prefetch, _not_fetched))
# For kernels: weigh_lines(out, at, lines, start, stride, weights, first, taps) writes WEIGHED bytes of the
# weighted sum of `taps` lines, which are `stride` bytes apart, rounded and clipped. A loop over whole lines
# for each tap takes half as long again, because the sums go through memory.
weigh_lines = cast(
    Callable[[Any, int, Any, int, int, Any, int, int], None], _Intrinsic(_weigh_lines, _weighed)
)

# For kernels: the mask of the places, from `at` on, that have this byte, this letter in any case (given in
# lower case), or a smaller byte.
equal_mask = cast(Callable[[Any, int, int], np.uint64], _Intrinsic(_mask(_equal), _equal_places))
letter_mask = cast(Callable[[Any, int, int], np.uint64], _Intrinsic(_mask(_equal_letter), _letter_places))
below_mask = cast(Callable[[Any, int, int], np.uint64], _Intrinsic(_mask(_below), _places_below))
# For kernels: the number of the lowest bit that is set; there must be one.
lowest_bit = cast(Callable[[np.uint64], int], _Intrinsic(_lowest_bit, _lowest))
