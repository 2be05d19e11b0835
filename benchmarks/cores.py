"""Let a program see more cores than it may use, as a Pod does on a large node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers.cache import built

# What ffmpeg and x264 ask: how many processors they may run on.
CODE = """
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    const char *cores = getenv("BENCHMARK_CORES");
    (void) pid;
    CPU_ZERO_S(size, set);
    for (int n = 0; n < atoi(cores ? cores : "1"); n++) CPU_SET_S(n, size, set);
    return 0;
}
"""


def as_on_many_cores(cores: int) -> dict[str, str] | None:
    """Variables for a child that make it see so many; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None

    def build(folder: Path) -> None:
        (folder / "cores.c").write_text(CODE)
        made = [str(folder / "cores.so"), str(folder / "cores.c")]
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", *made], check=True)

    library = built("bench-cores", CODE, build) / "cores.so"
    return {"LD_PRELOAD": str(library), "BENCHMARK_CORES": str(cores)}
