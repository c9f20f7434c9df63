"""What no fleet can meet, however large: told before anything is counted or simulated."""

from math import ceil

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import prefill_s
from extproc.planning.workload.lengths import Lengths

__all__ = ["check_reach"]

TAIL = 99  # the percentile of the objective


def check_reach(lengths: Lengths, setup: Setup) -> None:
    """Raise ConfigurationError when success or TTFT are out of reach of any number of instances, and say how near.

    Requests over the long context are refused by all. The first token takes the prompt's prefill at least, by the
    roofline's times: measured rates do not tell them, so with those the TTFT is not judged.
    """
    objective = setup.objective
    refused = float((lengths.prompt + np.maximum(lengths.output, 1) > setup.long_context).mean())
    if 1 - refused < objective.success:
        raise ConfigurationError(
            f"objective success {objective.success:.2%}: met by no fleet, the nearest is {1 - refused:.3%}; "
            f"{refused:.3%} of the requests are longer than {setup.long_context:,} tokens"
        )
    if setup.measured is not None:
        return
    index = objective.of(lengths.prompt + np.maximum(lengths.output, 1))
    for place, each in enumerate(objective.classes):
        mine = lengths.prompt[index == place]
        if len(mine) == 0:
            continue
        prompt = int(np.percentile(mine, TAIL, method="lower"))
        fastest_s = prefill_s(prompt, setup.cost, setup.limits(setup.long_context))
        if fastest_s > each.ttft_s:
            of = f" of requests {each.name} tokens" if objective.shorter else ""
            raise ConfigurationError(
                f"objective TTFT {each.ttft_s:g} s{of}: met by no fleet, the nearest is {fastest_s:.2g} s, the "
                f"prefill of a prompt of {prompt:,} tokens (the {TAIL}th percentile) on an idle instance; an "
                f"objective by length says what long prompts may take, as in --objective "
                f"'<=8192: ttft {each.ttft_s:g}s; else: ttft {max(30, ceil(2 * fastest_s))}s'"
            )
