# Bring-up: imports itself under the names probe_nest0 to probe_nest3, each inside the one before, and says how much of
# the stack is in use. As far as the module lets it.
import micropython
from probe import say

say("depth", __name__)
if hasattr(micropython, "stack_use"):
    say("stack_b", getattr(micropython, "stack_use")())
else:
    getattr(micropython, "mem_info")()
if __name__ != "probe_nest3":
    __import__("probe_nest%d" % (int(__name__[10:]) + 1))
