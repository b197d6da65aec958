"""What this machine is."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's own name for itself."""
    return _field("model name") or platform.machine()


def describe(threads: int) -> str:
    """Processor, vector extensions that decide about int8, threads and system in one line."""
    found = [
        name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm") if _has(name)
    ]
    return f"{processor()} ({', '.join(found)}), {threads} threads, {platform.system()} {platform.release()}"


def int8_saturates() -> bool:
    """Whether products of unsigned and signed bytes are summed in 16 bits: x86 without VNNI."""
    return platform.machine() in ("x86_64", "AMD64") and not (_has("avx_vnni") or _has("avx512_vnni"))


def _has(flag: str) -> bool:
    return flag in (_field("flags") or _field("Features")).split()


def _field(name: str) -> str:
    """The first value of a field of /proc/cpuinfo, empty where there is none."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.split(":")[0].strip() == name:
            return line.split(":", 1)[1].strip()
    return ""
