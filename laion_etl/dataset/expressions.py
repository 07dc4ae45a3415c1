"""Conditions of user-defined subsets: one SQL expression over the published columns, evaluated by DuckDB.

An expression comes from settings, or from the manifest of a dataset that someone else published, so it is
not trusted: DuckDB parses it, and every node of the syntax tree must be of a kind listed below. Subqueries,
other tables, windows, aggregates, parameters and all other functions are refused. The listed functions do not
read files, use the network, depend on time or chance, or build long values. The connection that evaluates it
has no access to files or the network, and its configuration is locked. A regular expression with nested
repetitions can take seconds for one text, so there is a time limit. DuckDB looks whether it is interrupted
between chunks of rows, so chunks are small.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from laion_etl.core.errors import SettingsError
from laion_etl.core.quantities import quantity
from laion_etl.core.schemas import DATASET_FILES

_MAX_CHARS = 4_000
_MAX_S = 60.0  # for one table, of at most the rows of a batch: plain conditions take milliseconds
_AGAIN_S = 0.01
_ROWS_PER_CHUNK = 64
_WRONG_CONSTANTS = (duckdb.InvalidInputException, duckdb.SyntaxException)
_CLASSES = frozenset({"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN",
                      "FUNCTION", "CAST", "CASE", "TYPE"})  # fmt: skip
_OPERATORS = frozenset({"OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "COMPARE_IN",
                        "COMPARE_NOT_IN", "OPERATOR_COALESCE"})  # fmt: skip
_FUNCTIONS = frozenset({
    "+", "-", "*", "/", "//", "%", "~~", "!~~", "~~*", "!~~*", "~~~", "like_escape", "not_like_escape",
    "ilike_escape", "not_ilike_escape", "regexp_matches", "regexp_full_match", "lower", "upper", "length",
    "strlen", "contains", "starts_with", "ends_with", "prefix", "suffix", "strpos", "instr", "substring",
    "substr", "left", "right", "trim", "ltrim", "rtrim", "abs", "round", "floor", "ceil", "ln", "log10",
    "sqrt", "least", "greatest", "isnan",
})  # fmt: skip
_TYPES = frozenset({"BOOLEAN", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "VARCHAR"})
_WITHOUT: dict[str, Any] = {
    "modifiers": [], "where_clause": None, "group_expressions": [], "group_sets": [], "having": None,
    "sample": None, "qualify": None, "cte_map": {"map": []},
}  # fmt: skip
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "1",
    "memory_limit": "512MB",
}

Node = dict[str, Any]


class Condition:
    """A checked expression; raises SettingsError naming the subset and what is wrong."""

    def __init__(self, name: str, expression: str) -> None:
        self._name = name
        self._database = duckdb.connect(":memory:", config=_CONFIG)
        self._database.execute("set lock_configuration = true")
        self.sql = self._checked(expression)
        kind = self._evaluate(DATASET_FILES.schema.empty_table()).type
        if kind != pa.bool_():
            raise self._error(f"it evaluates to {kind}, not true or false")
        self._check_constants()

    def selects(self, table: pa.Table) -> pa.ChunkedArray:
        """Return whether each row satisfies it; an undefined result (null, overflow ...) counts as false."""
        return pc.fill_null(self._evaluate(table), False)

    def _evaluate(self, table: pa.Table) -> pa.ChunkedArray:
        self._database.register("published_rows", _wide(table.select(DATASET_FILES.schema.names)))
        try:
            query = f"select try({self.sql}) from published_rows"  # noqa: S608 - it has been checked
            with self._limited():
                return self._database.sql(query).to_arrow_table().column(0)
        except duckdb.InterruptException as error:
            raise self._error(f"it took over {_MAX_S:g} s for {quantity(table.num_rows, 'row')}") from error
        except duckdb.Error as error:
            raise self._error(str(error).splitlines()[0]) from error
        finally:
            self._database.unregister("published_rows")

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Interrupt a query that takes too long; again and again, for one that has just begun ignores it."""
        done = Event()

        def watch() -> None:
            wait_s = _MAX_S
            while not done.wait(wait_s):
                self._database.interrupt()
                wait_s = _AGAIN_S

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()  # at the end of the process it would be torn down at whatever it does

    def _checked(self, expression: str) -> str:
        """Return the expression as DuckDB formats it, without comments, if all its nodes are allowed."""
        if len(expression) > _MAX_CHARS:
            raise self._error(f"it has over {_MAX_CHARS} characters")
        parsed = self._parse(expression)
        if parsed.get("error"):
            raise self._error(str(parsed.get("error_message")).splitlines()[0])
        for node in _nodes(_only_expression(parsed)):
            if wrong := _refusal(node):
                raise self._error(wrong)
        return self._text("select json_deserialize_sql(?::json)", json.dumps(parsed)).removeprefix("SELECT ")

    def _check_constants(self) -> None:
        """Refuse what `try` would turn into false for every row: a wrong pattern, or a number that is none.

        With nulls in place of values an error is one of the constants. Some are only looked at with values,
        of which texts need not be numbers.
        """
        fields = list(DATASET_FILES.schema)
        nulls = {field.name: pa.nulls(1, field.type) for field in fields}
        ones = {field.name: pa.array(["1"]).cast(field.type) for field in fields}
        self._check_row(nulls, (*_WRONG_CONSTANTS, duckdb.ConversionException))
        self._check_row(ones, _WRONG_CONSTANTS)

    def _check_row(self, row: dict[str, pa.Array], refused: tuple[type[duckdb.Error], ...]) -> None:
        self._database.register("one_row", _wide(pa.table(row)))
        try:
            self._database.execute(f"select {self.sql} from one_row").fetchall()  # noqa: S608 - checked
        except refused as error:
            raise self._error(str(error).splitlines()[0]) from error
        except duckdb.Error:
            return  # of a value, which is undefined and counts as false
        finally:
            self._database.unregister("one_row")

    def _parse(self, expression: str) -> Node:
        try:
            parsed: Node = json.loads(self._text("select json_serialize_sql(?)", f"SELECT {expression}"))
        except (duckdb.Error, ValueError, RecursionError) as error:
            raise self._error(f"it cannot be parsed ({type(error).__name__})") from error
        return parsed

    def _text(self, query: str, argument: str) -> str:
        [(text,)] = self._database.execute(query, [argument]).fetchall()
        return str(text)

    def _error(self, wrong: str) -> SettingsError:
        return SettingsError(
            f"cannot use the SQL expression of subset {self._name!r}: {wrong}; write one condition over the "
            f"columns {', '.join(DATASET_FILES.schema.names)} (docs/formats.md)"
        )


def _only_expression(parsed: Node) -> Node:
    """Return the only expression of a bare SELECT; a node that will be refused if there is anything else."""
    nothing: Node = {"class": "more than one expression"}
    statements = parsed.get("statements", [])
    if len(statements) != 1:
        return nothing
    select = statements[0].get("node", {})
    if select.get("type") != "SELECT_NODE" or select.get("from_table", {}).get("type") != "EMPTY":
        return nothing
    if any(select.get(part) != empty for part, empty in _WITHOUT.items()) or len(select["select_list"]) != 1:
        return nothing
    expression: Node = select["select_list"][0]
    return nothing if expression.get("alias") else expression


def _nodes(root: Node) -> Iterator[Node]:
    """Yield all nodes of the expression; iterative, because deep nesting would break recursion."""
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class" in value:
                yield value
            elif "type" in value and "node" in value:
                yield {"class": "SUBQUERY"}
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _wide(table: pa.Table) -> pa.Table:
    """Return the table, in chunks, with sizes in 64 bits: their products are areas."""
    fields = [pa.field(f.name, pa.int64() if f.type == pa.int32() else f.type) for f in table.schema]
    wide = table.cast(pa.schema(fields))
    return pa.Table.from_batches(wide.to_batches(_ROWS_PER_CHUNK), wide.schema)


def _columns() -> frozenset[str]:
    return frozenset(name.lower() for name in DATASET_FILES.schema.names)


def _refusal(node: Node) -> str:
    """Return why a node is not allowed; '' if it is."""
    kind = node["class"]
    if kind not in _CLASSES:
        return f"{str(kind).lower()} is not allowed"
    if kind == "COLUMN_REF" and (
        len(node["column_names"]) != 1 or node["column_names"][0].lower() not in _columns()
    ):
        return f"there is no column {'.'.join(node['column_names'])}"
    if kind == "OPERATOR" and node["type"] not in _OPERATORS:
        return f"{node['type'].lower()} is not allowed"
    if kind == "FUNCTION":
        plain = not (node["schema"] or node["catalog"] or node["filter"] or node["distinct"])
        ordered = node["order_bys"]["orders"]
        if node["function_name"].lower() not in _FUNCTIONS or not plain or ordered:
            return f"the function {node['function_name']} is not allowed"
    if kind == "TYPE" and str(node.get("type_name", "")).upper() not in _TYPES:
        return f"the type {node.get('type_name')} is not allowed"
    return ""
