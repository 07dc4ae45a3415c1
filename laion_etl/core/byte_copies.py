"""memcpy for kernels. Like them it is made when it is first needed: this module does not import numba."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, cast


def _copy_bytes(_: object, out: Any, _at: Any, data: Any, _start: Any, _count: Any) -> object:
    from numba import types
    from numba.core.cgutils import raw_memcpy

    def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def address(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.gep(data, [values[array + 1]])

        raw_memcpy(builder, address(0), address(2), values[4], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(out, types.intp, data, types.intp, types.intp), generated


class _Intrinsic:
    """A function for kernels only, which numba asks for its type while it compiles one that calls it."""

    @cached_property
    def _numba_type_(self) -> object:
        from numba.core.registry import cpu_target
        from numba.extending import intrinsic

        made, context = intrinsic(_copy_bytes), cpu_target.typing_context
        context.refresh()  # of what intrinsics there are
        return context.resolve_value_type(made)


# For kernels: copy_bytes(out, at, data, start, count) copies like memcpy. Arrays of bytes in C order; bounds
# are not checked.
copy_bytes = cast(Callable[[Any, int, Any, int, int], None], _Intrinsic())
