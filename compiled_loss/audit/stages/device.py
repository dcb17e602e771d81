"""What waits for the device or leaves it, found on a simulated one, so that no GPU is needed."""

from compiled_loss.audit.findings import Finding
from compiled_loss.audit.restoring import restored
from compiled_loss.audit.simulated.simulation import simulation
from compiled_loss.audit.stages.subject import Result, Subject, finding, first_line
from compiled_loss.audit.state import differentiable_sum
from compiled_loss.audit.trees import tensors_of
from compiled_loss.torch_private import forward_trace, traced_backward


def find_device_faults(subject: Subject) -> Result:
    """Syncs, sizes that depend on values, and tensors on the wrong device, in forward and backward."""
    found: list[Finding] = []
    current = ["forward", 0]

    def report(kind: str, message: str) -> None:
        phase, batch = str(current[0]), int(current[1])
        where = subject.finder.here()
        if where[0] is None and phase == "backward":
            where = subject.finder.of_text(forward_trace())
            message = f"{message} (in the backward of this line)"
        found.append(finding(kind, message, where, batch, phase=phase))

    with restored(subject.state), traced_backward():
        try:
            with simulation(report, subject.state, subject.device, subject.batches) as (simulated, batches):
                for i, args in enumerate(batches):
                    current[:] = ["forward", i]
                    outputs = tensors_of(subject.function(*args))
                    simulated.flights.land()  # waiting for a returned copy is up to the caller
                    leaves = [x for x in tensors_of(args) + simulated.learnt() if x.requires_grad and x.is_leaf]
                    total = differentiable_sum(outputs) if subject.backward else None
                    if total is not None and leaves:
                        current[0] = "backward"
                        total.backward(inputs=leaves)
        except Exception as error:  # not the function's own error: the eager stage has run it
            place, _ = subject.finder.of_error(error)
            return Result(found, stopped=f"the simulated device stopped at {place}: {first_line(error)}")
    return Result(found)
