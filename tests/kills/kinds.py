"""The rows of the kill table: what was happening at a boundary."""

import re

RANDOM = "a random moment"

_KINDS = (
    (r"write \w+ Starting\.child", "a sub-workflow is started"),
    (r"write before Starting", "a run is about to be written down"),
    (r"write after Starting", "a run was written down, nothing else"),
    (r"write \w+ Executor\._changed", "the status of a run changes"),
    (r"write \w+ Executor", "the execution of a run begins"),
    (r"write \w+ Asking\.ask", "an approval is asked for"),
    (r"write \w+ Deciding", "an approval is decided"),
    (r"write \w+ Asking", "the answer of an approval is heard"),
    (r"write \w+ Steering", "a signal, or a person's word on a step in doubt, is sent"),
    (r"write", "something else about a run is written"),
    (r"journal begun", "a step has begun, nothing of it is written"),
    (r"journal done", "a step was done, its record is not in the journal"),
    (r"journal recorded", "a step's record is in the journal, its row is not written"),
    (r"ledger before \S+ running", "the intent to change something is about to be written"),
    (r"ledger after \S+ running", "the intent to change something was written, nothing sent"),
    (r"ledger \w+ \S+ waiting", "what a step waits for is written"),
    (r"ledger before \S+ \w+", "the result of a change is about to be written"),
    (r"ledger after \S+ \w+", "the result of a change was written, its journal not"),
    (r"call before", "a call is about to be sent"),
    (r"tool before", "inside of a tool, before its effect"),
    (r"tool after", "inside of a tool, after its effect"),
    (r"tool", "inside of a tool that reads"),
    (r"call after", "the answer of a call has come"),
    (RANDOM, RANDOM),
)
HUB = (
    "a whole hub: inside of a tool, before its effect",
    "a whole hub: inside of a tool, after its effect",
    "a whole hub: a step is completed",
    "a whole hub: a step is waiting",
)
LABELS = (*(label for _, label in _KINDS), *HUB)


def kind_of(boundary: str) -> str:
    """The row to which a boundary belongs."""
    return next(label for pattern, label in _KINDS if re.match(pattern, boundary))
