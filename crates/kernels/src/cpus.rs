//! How many CPUs this process may use: affinity, cgroup quota, physical cores.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The CPUs this process may use.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuBudget {
    /// Logical CPUs in the affinity mask.
    pub allowed: usize,
    /// Physical cores among them; equals `allowed` where the system does not tell.
    pub cores: usize,
    /// CPU time per wall time that the cgroup grants, in CPUs; `None` if unlimited.
    pub quota: Option<f64>,
}

impl CpuBudget {
    /// Asks the system.
    #[must_use]
    pub fn detect() -> Self {
        let cpus = allowed_cpus();
        let allowed =
            if cpus.is_empty() { std::thread::available_parallelism().map_or(1, usize::from) } else { cpus.len() };
        let cores = physical_cores(&cpus).unwrap_or(allowed);
        Self { allowed, cores, quota: cgroup_quota(Path::new("/")) }
    }

    /// The number of compute threads that serves best: one per physical core, not more than the quota
    /// pays for, at least one.
    #[must_use]
    pub fn threads(&self) -> usize {
        let paid = self.quota.map_or(usize::MAX, |quota| quota.floor() as usize);
        self.cores.min(self.allowed).min(paid).max(1)
    }

    /// Whether that many threads may wait by spinning: each needs a CPU of its own, and spinning must
    /// not eat up a fractional quota.
    #[must_use]
    pub fn may_spin(&self, threads: usize) -> bool {
        threads <= self.allowed && self.quota.is_none_or(|quota| quota.fract() == 0.0 && threads as f64 <= quota)
    }
}

/// [`CpuBudget::threads`] of this process.
#[must_use]
pub fn default_threads() -> usize {
    CpuBudget::detect().threads()
}

/// Numbers of the CPUs in the affinity mask of the calling thread; empty if unknown.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn allowed_cpus() -> Vec<usize> {
    const WORDS: usize = 128;
    const WORD_BITS: usize = usize::BITS as usize;
    let mut mask = [0usize; WORDS];
    // SAFETY: the kernel writes at most the size of `mask` into it; `cpu_set_t` is an array of words.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast::<libc::cpu_set_t>()) };
    if result != 0 {
        return Vec::new();
    }
    (0..WORDS * WORD_BITS).filter(|cpu| mask[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1 == 1).collect()
}

/// Numbers of the CPUs in the affinity mask; unknown on this system.
#[cfg(not(target_os = "linux"))]
fn allowed_cpus() -> Vec<usize> {
    Vec::new()
}

/// Physical cores among `cpus`; `None` if the system does not tell.
fn physical_cores(cpus: &[usize]) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for cpu in cpus {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        cores.insert(std::fs::read_to_string(path).ok()?);
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// The smallest quota on the way from this process's cgroup up to the root, in CPUs. `root` is the root
/// of the file system.
fn cgroup_quota(root: &Path) -> Option<f64> {
    let membership = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let quotas = hierarchies(&membership, &mounts).into_iter().flat_map(|hierarchy| {
        let top = root.join(hierarchy.mount.strip_prefix("/").unwrap_or(&hierarchy.mount));
        let group = top.join(&hierarchy.group);
        let folders: Vec<PathBuf> =
            group.ancestors().take_while(|folder| folder.starts_with(&top)).map(Into::into).collect();
        folders.into_iter().filter_map(move |folder| {
            let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
            match hierarchy.version {
                Version::Two => parse_cpu_max(&read("cpu.max")?),
                Version::One => parse_cfs(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
            }
        })
    });
    quotas.min_by(f64::total_cmp)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A mounted cgroup hierarchy that can limit CPU time, and this process's place in it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    mount: PathBuf,
    /// Relative to the mount.
    group: PathBuf,
}

/// Reads the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn hierarchies(membership: &str, mounts: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let version = if controllers.is_empty() {
            Version::Two
        } else if controllers.split(',').any(|name| name == "cpu") {
            Version::One
        } else {
            continue;
        };
        let mount = mounts.lines().find_map(|line| parse_mount(line, version));
        if let Some((mount_root, mount)) = mount {
            // In a container the mount shows a subtree; a group outside of it is seen as its root.
            let group = Path::new(group).strip_prefix(&mount_root).unwrap_or(Path::new(""));
            found.push(Hierarchy { version, mount, group: group.to_owned() });
        }
    }
    found
}

/// Root and mount point of a line of mountinfo, if it is a hierarchy of that version with the CPU
/// controller.
fn parse_mount(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1).unwrap_or(""));
    let fits = match version {
        Version::Two => name == "cgroup2",
        Version::One => name == "cgroup" && options.split(',').any(|option| option == "cpu"),
    };
    fits.then(|| (root.into(), mount.into()))
}

/// CPUs granted by a version 2 `cpu.max`: `quota period` in microseconds, or `max period`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut fields = text.split_whitespace();
    let (quota, period) = (fields.next()?, fields.next()?);
    parse_cfs(quota, period)
}

/// CPUs granted by a quota and a period in microseconds; a quota that is no positive number means
/// unlimited.
fn parse_cfs(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.trim().parse().ok()?;
    let period: f64 = period.trim().parse().ok()?;
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_parsed() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("garbage"), None);
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("50000\n", "100000\n"), Some(0.5));
        assert_eq!(parse_cfs("50000", "0"), None);
    }

    const MOUNTS: &str = "\
29 23 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
33 23 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:16 - cgroup cgroup rw,cpu,cpuacct
34 23 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let membership = "5:cpu,cpuacct:/docker/abc/inner\n4:memory:/x\n0::/user.slice/a:b\n";
        let found = hierarchies(membership, MOUNTS);
        assert_eq!(
            found,
            [
                Hierarchy { version: Version::One, mount: "/sys/fs/cgroup/cpu,cpuacct".into(), group: "inner".into() },
                Hierarchy {
                    version: Version::Two,
                    mount: "/sys/fs/cgroup/unified".into(),
                    group: "user.slice/a:b".into(),
                },
            ]
        );
        assert_eq!(hierarchies("nonsense\n1:cpu\n", "more nonsense\n - \n"), []);
    }

    #[test]
    fn the_smallest_quota_of_the_ancestors_counts() {
        let root = std::env::temp_dir().join(format!("centuple-cpus-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", "0::/a/b\n");
        write("proc/self/mountinfo", "29 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n");
        write("cg/a/b/cpu.max", "400000 100000\n");
        write("cg/a/cpu.max", "250000 100000\n");
        assert_eq!(cgroup_quota(&root), Some(2.5));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(cgroup_quota(&root), None);
    }

    #[test]
    fn threads_follow_cores_and_quota() {
        let budget = |allowed, cores, quota| CpuBudget { allowed, cores, quota };
        assert_eq!(budget(8, 4, None).threads(), 4);
        assert_eq!(budget(8, 4, Some(2.5)).threads(), 2);
        assert_eq!(budget(8, 4, Some(0.5)).threads(), 1);
        assert!(budget(4, 4, None).may_spin(4));
        assert!(!budget(4, 4, None).may_spin(5));
        assert!(!budget(4, 4, Some(2.5)).may_spin(2));
        assert!(budget(4, 4, Some(2.0)).may_spin(2));
        assert!(!budget(4, 4, Some(2.0)).may_spin(3));
        assert!(default_threads() >= 1);
    }
}
