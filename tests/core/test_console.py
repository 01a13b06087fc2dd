import subprocess
import sys

HEARD_BY_NOBODY = """
from vitreous.core.console import Console
console = Console()
for _ in range(100):
    console.info("x" * 1000)
    console.warn("y")
with console.task("working", 2) as task:
    task.update(1)
print("done")
"""


def test_work_goes_on_where_nobody_listens_any_more():
    """As behind `2>&1 | head -1`, or in a terminal that was closed; the exit status is 0, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEARD_BY_NOBODY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stderr.close()
    assert process.stdout.read() == "done\n"
    process.stdout.close()
    assert process.wait(60) == 0
