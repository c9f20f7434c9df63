"""The mutation operators: those of Cosmic Ray that are used, and three of our own."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import parso
from cosmic_ray import plugins
from cosmic_ray.operators.boolean_replacer import AddNot
from cosmic_ray.operators.operator import Operator

__all__ = ["operators"]

Node = Any  # a node of parso's tree, which is hardly typed

# One change for each kind of mistake. Tests that notice these also notice Cosmic Ray's other changes of
# comparisons and arithmetic; its changes of `|` would hit type annotations.
_NAMES: Final = (
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Div",
    "ReplaceBinaryOperator_Mod_Mul",
    "ReplaceBinaryOperator_Pow_Mul",
    "ReplaceBinaryOperator_BitAnd_BitOr",
    "ReplaceBinaryOperator_LShift_RShift",
    "ReplaceBinaryOperator_RShift_LShift",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_USub",
    "ZeroIterationForLoop",
)


@cache
def operators() -> dict[str, Operator]:
    """Return the operators by name."""
    theirs = {name: plugins.get_operator(f"core/{name}")() for name in _NAMES}
    return theirs | {"AddNot": Negate(), "DropBound": DropBound(), "DropStatement": DropStatement()}


class Negate(AddNot):  # type: ignore[misc]  # Cosmic Ray has no types
    """Negates a condition; unlike Cosmic Ray's operator it puts an assignment expression in parentheses."""

    def mutate(self, node: Node, index: int) -> Node:
        """Return the node with its condition negated."""
        condition = node.children[1]
        if condition.type == "namedexpr_test":
            node.children[1] = _in_place_of(condition, f"not ({condition.get_code().strip()})")
            return node
        return super().mutate(node, index)


class DropBound(Operator):  # type: ignore[misc]  # Cosmic Ray has no types
    """Replaces a call of `min` or `max` with one of its arguments."""

    def mutation_positions(self, node: Node) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield a position for each argument of such a call."""
        for _ in _arguments_of_min_or_max(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Node, index: int) -> Node:
        """Return the argument in parentheses."""
        argument = _arguments_of_min_or_max(node)[index].get_code().strip()
        return _in_place_of(node, f"({argument})")

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples."""
        return ()


def _arguments_of_min_or_max(node: Node) -> list[Node]:
    """Return the positional arguments of a call of `min` or `max` with several; empty for anything else."""
    if node.type not in {"atom_expr", "power"} or node.children[0].get_code().strip() not in {"min", "max"}:
        return []
    arguments = node.children[1].children[1]
    if arguments.type != "arglist":
        return []
    return [child for child in arguments.children[::2] if child.type != "argument"]


class DropStatement(Operator):  # type: ignore[misc]  # Cosmic Ray has no types
    """Removes a call whose result is not used, an assignment to an attribute or item, `+=`, `del` or `raise`."""

    def mutation_positions(self, node: Node) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield the statement's position if it is one of these kinds."""
        if node.type == "simple_stmt" and _has_an_effect(node.children[0]):
            function = node.search_ancestor("funcdef")
            # A removed assignment in a constructor breaks everything, so any test would notice it.
            if function is not None and function.name.value != "__init__":
                yield node.start_pos, node.end_pos

    def mutate(self, node: Node, _index: int) -> Node:
        """Return `pass` instead of the statement."""
        return _in_place_of(node, "pass\n")

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples."""
        return ()


def _has_an_effect(statement: Node) -> bool:
    if statement.type in {"raise_stmt", "del_stmt"}:
        return True
    if statement.type == "expr_stmt":
        target, sign = statement.children[:2]
        return sign.type == "operator" and (sign.value != "=" or target.type in {"atom_expr", "power"})
    return statement.type in {"atom_expr", "power"}


def _in_place_of(node: Node, code: str) -> Node:
    new = parso.parse(code).children[0]
    new.get_first_leaf().prefix = node.get_first_leaf().prefix
    return new
