//! How much memory keys and values may take where nobody says.

use std::fs;

/// Memory where the system doesn't tell what is free.
const UNKNOWN: usize = 1 << 30;

/// Bytes that are free, as far as the system tells: of the machine, and of the control group.
fn free() -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let number = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse::<usize>().ok();
    let group = number("memory.max").zip(number("memory.current")).map(|(most, used)| most.saturating_sub(used));
    machine.into_iter().chain(group).min()
}

/// The line `MemAvailable:  123 kB`.
fn available(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// A quarter of what is free, at most what `most` says.
pub(super) fn share(most: usize) -> usize {
    (free().unwrap_or(4 * UNKNOWN) / 4).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_in_kilobytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   12 kB\n"), Some(12 * 1024));
        assert_eq!(available("MemAvailable: many kB\n"), None);
        assert_eq!(share(1), 1);
    }
}
