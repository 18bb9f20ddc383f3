//! Facts that `/proc` tells.

use serde::Serialize;

/// A kernel release, comparable by its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelVersion {
    /// As `uname -r` prints it.
    pub release: String,
    /// Major, minor, patch; zero where the text had none.
    pub numbers: (u32, u32, u32),
}

impl KernelVersion {
    /// `6.18.44-custom` -> (6, 18, 44). Text that is no version gives zeros, which every floor refuses.
    #[must_use]
    pub fn parse(release: &str) -> Self {
        let mut numbers = release
            .trim()
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            release: release.trim().to_owned(),
            numbers: (next(), next(), next()),
        }
    }

    /// This kernel is `major.minor` or newer.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        (self.numbers.0, self.numbers.1) >= (major, minor)
    }
}

/// Connection tracking: how full the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Conntrack {
    /// Entries in use.
    pub count: u64,
    /// Entries that fit; a full table drops new connections.
    pub max: u64,
}

/// The effective capabilities that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// May change firewall rules and make network namespaces' interfaces.
    pub net_admin: bool,
    /// May make network namespaces and use io_uring when it is restricted.
    pub sys_admin: bool,
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

pub(super) fn kernel() -> KernelVersion {
    KernelVersion::parse(&read("/proc/sys/kernel/osrelease").unwrap_or_default())
}

pub(super) fn sysctl(name: &str) -> Option<u64> {
    read(&format!("/proc/sys/{name}"))?.trim().parse().ok()
}

pub(super) fn cpus() -> Vec<u32> {
    status_field("Cpus_allowed_list:")
        .map(|list| parse_cpu_list(&list))
        .unwrap_or_default()
}

pub(super) fn ktls() -> bool {
    read("/proc/sys/net/ipv4/tcp_available_ulp")
        .is_some_and(|names| names.split_whitespace().any(|name| name == "tls"))
}

pub(super) fn conntrack() -> Option<Conntrack> {
    Some(Conntrack {
        count: sysctl("net/netfilter/nf_conntrack_count")?,
        max: sysctl("net/netfilter/nf_conntrack_max")?,
    })
}

pub(super) fn local_ports() -> Option<(u16, u16)> {
    let text = read("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut words = text.split_whitespace().map(str::parse);
    Some((words.next()?.ok()?, words.next()?.ok()?))
}

pub(super) fn capabilities() -> Capabilities {
    let bits = status_field("CapEff:")
        .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
        .unwrap_or(0);
    Capabilities {
        net_admin: bits & (1 << CAP_NET_ADMIN) != 0,
        sys_admin: bits & (1 << CAP_SYS_ADMIN) != 0,
    }
}

/// Parses the kernel's list form: `0-3,8,10-11`. Parts that make no sense are left out.
#[must_use]
pub fn parse_cpu_list(text: &str) -> Vec<u32> {
    let mut cpus: Vec<u32> = text.trim().split(',').flat_map(parse_cpu_range).collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// More CPUs than any machine has, so a hostile range cannot fill memory.
const CPUS_MAX: u32 = 8192;

fn parse_cpu_range(part: &str) -> std::ops::Range<u32> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
        (Ok(first), Ok(last)) if first <= last && last < CPUS_MAX => first..last + 1,
        _ => 0..0,
    }
}

fn status_field(name: &str) -> Option<String> {
    let status = read("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_compare_by_number() {
        let cases = [
            ("6.18.44-fc-v657", (6, 18, 44)),
            ("6.1.0-28-amd64\n", (6, 1, 0)),
            ("5.19", (5, 19, 0)),
            ("", (0, 0, 0)),
        ];
        for (release, numbers) in cases {
            assert_eq!(KernelVersion::parse(release).numbers, numbers, "{release}");
        }
        assert!(KernelVersion::parse("6.2.0").at_least(5, 19));
        assert!(!KernelVersion::parse("5.15.0").at_least(5, 19));
    }

    #[test]
    fn cpu_lists_are_expanded() {
        assert_eq!(parse_cpu_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_cpu_list("2,1,1"), [1, 2]);
        assert_eq!(parse_cpu_list("x,5-2,0-4294967295"), [0; 0]);
    }
}
