"""Simplify a converted graph, so that it is small to store and quick to load."""

from typing import Any


def simplify(model: Any) -> None:
    """Remove, in place, what is constant, without effect or computed twice.

    `torch.onnx.export(..., optimize=True)` does the same but takes ten times as long: it searches for patterns before
    it removes what constant folding leaves behind, and for patterns that no graph of a loss has.

    Args:
        model: an `onnx_ir.Model`, as `torch.onnx.export(..., optimize=False)` holds it.
    """
    import onnx_ir.passes.common as passes  # noqa: PLC0415  (optional dependencies)
    from onnxscript import optimizer, rewriter  # noqa: PLC0415
    from onnxscript.rewriter.rules import common  # noqa: PLC0415

    rules = [common.mul_by_1_rule, common.div_by_1_rule, common.add_0_rule, common.sub_0_rule]
    rules += [common.no_op_cast_rule, common.no_op_expand_rule, common.no_op_transpose_rule]
    rules += [common.collapse_slice_rule, common.collapse_slice2_rule, common.transpose_transpose_rule]
    rules += [common.materialize_reshape_shape_rule, common.reshape_reshape_rule, common.squeeze_reshape_1d_rule]
    rules += [common.unsqueeze_unsqueeze_rule]
    passes.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    _tidy(model)
    rewriter.rewrite(model, rules)
    _tidy(model)
    passes.OutputFixPass()(model)
    passes.NameFixPass()(model)


def _tidy(model: Any) -> None:
    import onnx_ir.passes.common as passes  # noqa: PLC0415  (an optional dependency)

    for tidying in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        tidying(model)
