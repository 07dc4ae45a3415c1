"""memcpy for kernels. Only modules with kernels that call it import this, and numba with it."""

from collections.abc import Callable
from typing import Any, cast

from numba import types
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic


def _copy_bytes(_: object, out: types.Array, _at: Any, data: types.Array, _start: Any, _count: Any) -> object:
    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def address(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.gep(data, [values[array + 1]])

        raw_memcpy(builder, address(0), address(2), values[4], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(out, types.intp, data, types.intp, types.intp), generated


# For kernels: copy_bytes(out, at, data, start, count) copies like memcpy. Arrays of bytes in C order; bounds
# are not checked.
copy_bytes = cast(Callable[[Any, int, Any, int, int], None], intrinsic(_copy_bytes))
