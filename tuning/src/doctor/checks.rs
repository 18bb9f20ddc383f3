//! The checks, one function each. A threshold says how it was picked.

use super::{Finding, Severity};
use crate::plan::RingAdvice;
use crate::probe::{Facts, Limit, Uring};

pub(super) const ALL: [fn(&Facts) -> Finding; 13] = [
    kernel,
    io_uring,
    io_uring_operations,
    ring_features,
    cpus,
    open_files,
    locked_memory,
    accept_queue,
    local_ports,
    conntrack,
    firewall,
    tproxy,
    kernel_tls,
];

/// Two descriptors per proxied connection; below this 500 connections exhaust a sidecar.
const NOFILE_MIN: u64 = 1024;
/// What we advise: 30,000 proxied connections with pools.
const NOFILE_ADVISED: u64 = 65_536;
/// glommio locks 64 KiB of ring memory and its rings per shard; 512 KiB covers a shard with reserve.
const MEMLOCK_PER_SHARD_BYTES: u64 = 512 * 1024;
/// The kernel's own default since 5.4.
const SOMAXCONN_ADVISED: u64 = 4096;
/// A caller with fewer ephemeral ports runs out at this many connections to one endpoint.
const LOCAL_PORTS_ADVISED: u32 = 16_384;

fn good(check: &'static str, found: String) -> Finding {
    Finding {
        check,
        severity: Severity::Good,
        found,
        fix: String::new(),
        blocks_start: false,
    }
}

fn advice(check: &'static str, found: String, fix: &str) -> Finding {
    Finding {
        check,
        severity: Severity::Advice,
        found,
        fix: fix.to_owned(),
        blocks_start: false,
    }
}

fn must(check: &'static str, found: String, fix: &str) -> Finding {
    Finding {
        check,
        severity: Severity::Must,
        found,
        fix: fix.to_owned(),
        blocks_start: false,
    }
}

fn blocks(finding: Finding) -> Finding {
    Finding {
        blocks_start: true,
        ..finding
    }
}

/// Floors from measurement: buffer rings 5.19, DEFER_TASKRUN 6.1, receive byte limit 6.18.
fn kernel(facts: &Facts) -> Finding {
    let (check, release) = ("kernel", &facts.kernel.release);
    if !facts.kernel.at_least(5, 19) {
        return blocks(must(
            check,
            format!("Linux {release} has no provided buffer rings (5.19)"),
            "install a kernel of 6.1 or newer (Debian 12 has it) and boot into it",
        ));
    }
    if !facts.kernel.at_least(6, 1) {
        return advice(
            check,
            format!("Linux {release} has no DEFER_TASKRUN (6.1): 14-50 % more CPU per request"),
            "install a kernel of 6.1 or newer",
        );
    }
    good(check, format!("Linux {release}"))
}

fn io_uring(facts: &Facts) -> Finding {
    let check = "io_uring";
    let Uring::Refused { errno, error } = &facts.uring else {
        return good(check, "a ring can be made".to_owned());
    };
    let fix = match (facts.io_uring_disabled, *errno) {
        (Some(2), _) => {
            "sysctl -w kernel.io_uring_disabled=0; keep it in /etc/sysctl.d/60-ringmesh.conf"
        }
        (Some(1), _) => {
            "sysctl -w kernel.io_uring_disabled=0, or put the proxy's group id into kernel.io_uring_group"
        }
        (_, libc::ENOSYS) => "use a kernel built with CONFIG_IO_URING=y",
        (_, libc::EPERM | libc::EACCES) => {
            "a seccomp filter refuses io_uring_setup: allow it (systemd: SystemCallFilter=@io-event; \
             containers: a profile with io_uring_setup, io_uring_enter, io_uring_register)"
        }
        (_, libc::ENOMEM) => "raise LimitMEMLOCK of the unit, or `ulimit -l unlimited`",
        _ => "see io_uring_setup(2) for this error",
    };
    let sysctl = match facts.io_uring_disabled {
        Some(value) => format!(", kernel.io_uring_disabled={value}"),
        None => String::new(),
    };
    blocks(must(
        check,
        format!("io_uring is refused: {error}{sysctl}"),
        fix,
    ))
}

fn io_uring_operations(facts: &Facts) -> Finding {
    let check = "io_uring operations";
    let Uring::Usable {
        missing, ext_arg, ..
    } = &facts.uring
    else {
        return advice(
            check,
            "not known: no ring could be made".to_owned(),
            "fix io_uring first",
        );
    };
    let mut required: Vec<&str> = missing
        .iter()
        .filter(|op| op.required)
        .map(|op| op.name)
        .collect();
    if !ext_arg {
        required.push("EXT_ARG");
    }
    if !required.is_empty() {
        return blocks(must(
            check,
            format!("the kernel lacks {}", required.join(", ")),
            "install a kernel of 6.1 or newer, or lift the filter that hides them",
        ));
    }
    let optional: Vec<&str> = missing.iter().map(|op| op.name).collect();
    if optional.is_empty() {
        return good(check, "all that the sidecar uses are present".to_owned());
    }
    advice(
        check,
        format!("without {}: slower, nothing else", optional.join(", ")),
        "a newer kernel has them",
    )
}

/// What a sidecar's ring would take here. What it took is in its log and at the admin's `/ring`.
fn ring_features(facts: &Facts) -> Finding {
    let check = "ring features";
    let (
        Uring::Usable {
            single_issuer,
            coop_taskrun,
            ..
        },
        Some(ring),
    ) = (&facts.uring, RingAdvice::of(facts))
    else {
        return advice(
            check,
            "not known: no ring could be made".to_owned(),
            "fix io_uring first",
        );
    };
    let features = [
        (ring.defer_taskrun, "DEFER_TASKRUN (6.1)"),
        (*single_issuer, "SINGLE_ISSUER (6.0)"),
        (*coop_taskrun, "COOP_TASKRUN (5.19)"),
        (ring.no_sqarray, "NO_SQARRAY (6.6)"),
        (ring.recv_limit, "receive byte limit (6.18)"),
        (ring.send_zc, "SEND_ZC with reports (6.2)"),
    ];
    let listed = |has: bool| {
        let those = features.iter().filter(|(there, _)| *there == has);
        those.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    let (has, lacks) = (listed(true), listed(false));
    if lacks.is_empty() {
        return good(check, has);
    }
    advice(
        check,
        format!("{has}; not {lacks}: the sidecar does without"),
        "a kernel of the versions named has them",
    )
}

fn cpus(facts: &Facts) -> Finding {
    let check = "cpus";
    match facts.cpus.as_slice() {
        [] => advice(
            check,
            "the cpuset could not be read".to_owned(),
            "mount /proc",
        ),
        [_] => advice(
            check,
            "one CPU: the sidecar and the service take turns on it".to_owned(),
            "give the unit a second CPU (AllowedCPUs=)",
        ),
        cpus => good(check, format!("{} CPUs: {}", cpus.len(), join(cpus))),
    }
}

fn join(cpus: &[u32]) -> String {
    let words: Vec<String> = cpus.iter().map(u32::to_string).collect();
    words.join(",")
}

fn open_files(facts: &Facts) -> Finding {
    let check = "open files";
    let (Some(soft), Some(hard)) = (facts.limits.nofile_soft, facts.limits.nofile_hard) else {
        return advice(
            check,
            "the limit could not be read".to_owned(),
            "mount /proc",
        );
    };
    let found = format!("limit {soft} (hard {hard})");
    let fix = "LimitNOFILE=1048576 in the unit, or `ulimit -n 1048576` before the start";
    if hard < Limit::At(NOFILE_MIN) {
        must(
            check,
            format!("{found}: a few hundred connections exhaust it"),
            fix,
        )
    } else if soft < Limit::At(NOFILE_ADVISED) {
        advice(
            check,
            format!("{found}: two are used per proxied connection"),
            fix,
        )
    } else {
        good(check, found)
    }
}

fn locked_memory(facts: &Facts) -> Finding {
    let check = "locked memory";
    let Some(soft) = facts.limits.memlock_soft_bytes else {
        return advice(
            check,
            "the limit could not be read".to_owned(),
            "mount /proc",
        );
    };
    let shards = crate::placement::place(crate::Shards::Auto, &facts.cpus).len() as u64;
    let needed_bytes = shards * MEMLOCK_PER_SHARD_BYTES;
    if soft < Limit::At(needed_bytes) && !facts.capabilities.sys_admin {
        return must(
            check,
            format!("limit {soft} bytes; {shards} shards need {needed_bytes}"),
            "LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited` before the start",
        );
    }
    good(
        check,
        format!("limit {soft} bytes; {shards} shards need {needed_bytes}"),
    )
}

fn accept_queue(facts: &Facts) -> Finding {
    let check = "accept queue";
    match facts.somaxconn {
        Some(value) if value < SOMAXCONN_ADVISED => advice(
            check,
            format!("net.core.somaxconn={value}: bursts of connections are dropped"),
            "sysctl -w net.core.somaxconn=4096; keep it in /etc/sysctl.d/60-ringmesh.conf",
        ),
        Some(value) => good(check, format!("net.core.somaxconn={value}")),
        None => advice(
            check,
            "net.core.somaxconn could not be read".to_owned(),
            "mount /proc",
        ),
    }
}

fn local_ports(facts: &Facts) -> Finding {
    let check = "local ports";
    match facts.local_ports {
        Some((first, last)) if u32::from(last.saturating_sub(first)) < LOCAL_PORTS_ADVISED => {
            advice(
                check,
                format!(
                    "ip_local_port_range is {first}-{last}: connections to one endpoint run out of ports"
                ),
                "sysctl -w net.ipv4.ip_local_port_range='16384 60999'",
            )
        }
        Some((first, last)) => good(check, format!("{first}-{last}")),
        None => advice(
            check,
            "the range could not be read".to_owned(),
            "mount /proc",
        ),
    }
}

fn conntrack(facts: &Facts) -> Finding {
    let check = "connection tracking";
    match facts.conntrack {
        None => advice(
            check,
            "not loaded: captured connections cannot be told their destination (direct mode works)"
                .to_owned(),
            "modprobe nf_conntrack (`ringmesh intercept up` loads it by adding its rules)",
        ),
        Some(table)
            if table.max == 0 || table.count.saturating_mul(10) >= table.max.saturating_mul(9) =>
        {
            must(
                check,
                format!(
                    "{} of {} entries in use: a full table drops new connections",
                    table.count, table.max
                ),
                "sysctl -w net.netfilter.nf_conntrack_max=1048576; keep it in /etc/sysctl.d/60-ringmesh.conf",
            )
        }
        Some(table) => good(
            check,
            format!("{} of {} entries in use", table.count, table.max),
        ),
    }
}

fn firewall(facts: &Facts) -> Finding {
    let check = "firewall tool";
    let tools = &facts.binaries;
    if let Some(nft) = &tools.nft {
        return good(check, format!("nftables: {}", nft.display()));
    }
    match (&tools.iptables_restore, &tools.iptables_save) {
        (Some(restore), Some(_)) => good(check, format!("iptables: {}", restore.display())),
        _ => advice(
            check,
            "neither nft nor iptables: `ringmesh intercept` cannot work (direct mode works)"
                .to_owned(),
            "apt-get install nftables",
        ),
    }
}

/// Strict reverse-path filtering is no obstacle: what comes back over loopback is routed already.
fn tproxy(facts: &Facts) -> Finding {
    let check = "client addresses";
    let Some(tproxy) = facts.tproxy else {
        return good(check, "TPROXY was not looked at".to_owned());
    };
    if tproxy.capturing && !tproxy.routed {
        return must(
            check,
            "TPROXY captures, but the ip rule or the route of table 133 is gone: answers of the app are lost"
                .to_owned(),
            "`ringmesh intercept up` again as before, or `ringmesh intercept down`",
        );
    }
    if tproxy.module == Some(false) {
        return advice(
            check,
            "the kernel has no TPROXY: `ringmesh intercept up --mode tproxy` cannot work (redirect does)"
                .to_owned(),
            "a kernel with CONFIG_NFT_TPROXY (nftables) or CONFIG_NETFILTER_XT_TARGET_TPROXY (iptables)",
        );
    }
    if facts.binaries.ip.is_none() {
        return advice(
            check,
            "without ip `ringmesh intercept up --mode tproxy` cannot work (redirect does)"
                .to_owned(),
            "apt-get install iproute2",
        );
    }
    let module = match tproxy.module {
        Some(_) => "TPROXY is there",
        None => "whether the kernel has TPROXY is not known",
    };
    let right = match facts.capabilities.net_admin {
        true => "has",
        false => "lacks",
    };
    let state = if tproxy.capturing {
        ", and captures"
    } else {
        ""
    };
    good(
        check,
        format!(
            "{module}{state}; a sidecar with inbound_mode: tproxy needs CAP_NET_ADMIN, which this user {right}"
        ),
    )
}

fn kernel_tls(facts: &Facts) -> Finding {
    let check = "kernel TLS";
    if facts.ktls {
        return good(check, "available".to_owned());
    }
    // Not used by this version; told because 2/3 measures it.
    good(
        check,
        "not loaded (not needed: TLS is done in the sidecar)".to_owned(),
    )
}
