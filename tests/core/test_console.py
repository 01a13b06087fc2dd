import os
import subprocess
import sys

import pytest

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


def test_a_program_without_a_standard_error_says_nothing_and_works():
    script = f"import sys; sys.stderr = None\n{HEARD_BY_NOBODY}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "done\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_work_goes_on_in_a_terminal_that_was_closed():
    import pty

    master, slave = pty.openpty()
    script = (
        "import os, sys\n"
        "from vitreous.core.console import Console\n"
        "with Console().task('working', 2) as task:\n"
        "    os.write(1, b'drawing\\n'); sys.stdin.readline()\n"
        "    task.update(1)\n"
        "print('done')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=slave, text=True,
        env={**os.environ, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    assert process.stdout.readline() == "drawing\n"
    os.close(master)
    out, _ = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("done\n", 0)


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
