use expect_test::expect;

use super::*;
use crate::probe::{
    Binaries, Capabilities, Conntrack, KernelVersion, Limit, Limits, Tproxy, Uring,
};

pub(crate) fn good_host() -> Facts {
    Facts {
        kernel: KernelVersion::parse("6.18.44"),
        uring: Uring::Usable {
            missing: vec![],
            defer_taskrun: true,
            single_issuer: true,
            coop_taskrun: true,
            no_sqarray: true,
            ext_arg: true,
        },
        io_uring_disabled: Some(0),
        limits: Limits {
            nofile_soft: Some(Limit::At(1_048_576)),
            nofile_hard: Some(Limit::At(1_048_576)),
            memlock_soft_bytes: Some(Limit::Unlimited),
            memlock_hard_bytes: Some(Limit::Unlimited),
        },
        cpus: vec![0, 1],
        ktls: false,
        conntrack: Some(Conntrack {
            count: 12,
            max: 262_144,
        }),
        somaxconn: Some(4096),
        local_ports: Some((32_768, 60_999)),
        capabilities: Capabilities::default(),
        binaries: Binaries {
            nft: Some("/usr/sbin/nft".into()),
            ip: Some("/usr/sbin/ip".into()),
            ..Binaries::default()
        },
        tproxy: Some(Tproxy {
            module: Some(true),
            capturing: false,
            routed: false,
        }),
    }
}

pub(crate) fn old_host() -> Facts {
    Facts {
        kernel: KernelVersion::parse("5.15.0-91-generic"),
        uring: Uring::Refused {
            errno: libc::EPERM,
            error: "Operation not permitted (os error 1)".to_owned(),
        },
        io_uring_disabled: Some(2),
        limits: Limits {
            nofile_soft: Some(Limit::At(1024)),
            nofile_hard: Some(Limit::At(4096)),
            memlock_soft_bytes: Some(Limit::At(65_536)),
            memlock_hard_bytes: Some(Limit::At(65_536)),
        },
        conntrack: Some(Conntrack {
            count: 65_000,
            max: 65_536,
        }),
        somaxconn: Some(128),
        binaries: Binaries::default(),
        ..good_host()
    }
}

#[test]
fn a_good_host_has_nothing_to_fix() {
    let findings = examine(&good_host());
    assert!(!must_fix(&findings));
    expect![[r#"
        ok    kernel               Linux 6.18.44
        ok    io_uring             a ring can be made
        ok    io_uring operations  all that the sidecar uses are present
        ok    ring features        DEFER_TASKRUN (6.1), SINGLE_ISSUER (6.0), COOP_TASKRUN (5.19), NO_SQARRAY (6.6), receive byte limit (6.18), SEND_ZC with reports (6.2)
        ok    cpus                 2 CPUs: 0,1
        ok    open files           limit 1048576 (hard 1048576)
        ok    locked memory        limit unlimited bytes; 2 shards need 1048576
        ok    accept queue         net.core.somaxconn=4096
        ok    local ports          32768-60999
        ok    connection tracking  12 of 262144 entries in use
        ok    firewall tool        nftables: /usr/sbin/nft
        ok    client addresses     TPROXY is there; a sidecar with inbound_mode: tproxy needs CAP_NET_ADMIN, which this user lacks
        ok    kernel TLS           not loaded (not needed: TLS is done in the sidecar)
        13 checks: 0 must be fixed, 0 notes
    "#]]
    .assert_eq(&table(&findings));
}

#[test]
fn a_bad_host_is_told_what_to_do() {
    let findings = examine(&old_host());
    assert!(must_fix(&findings));
    expect![[r#"
        FIX   kernel               Linux 5.15.0-91-generic has no provided buffer rings (5.19)
                                   fix: install a kernel of 6.1 or newer (Debian 12 has it) and boot into it
        FIX   io_uring             io_uring is refused: Operation not permitted (os error 1), kernel.io_uring_disabled=2
                                   fix: sysctl -w kernel.io_uring_disabled=0; keep it in /etc/sysctl.d/60-ringmesh.conf
        note  io_uring operations  not known: no ring could be made
                                   fix: fix io_uring first
        note  ring features        not known: no ring could be made
                                   fix: fix io_uring first
        ok    cpus                 2 CPUs: 0,1
        note  open files           limit 1024 (hard 4096): two are used per proxied connection
                                   fix: LimitNOFILE=1048576 in the unit, or `ulimit -n 1048576` before the start
        FIX   locked memory        limit 65536 bytes; 2 shards need 1048576
                                   fix: LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited` before the start
        note  accept queue         net.core.somaxconn=128: bursts of connections are dropped
                                   fix: sysctl -w net.core.somaxconn=4096; keep it in /etc/sysctl.d/60-ringmesh.conf
        ok    local ports          32768-60999
        FIX   connection tracking  65000 of 65536 entries in use: a full table drops new connections
                                   fix: sysctl -w net.netfilter.nf_conntrack_max=1048576; keep it in /etc/sysctl.d/60-ringmesh.conf
        note  firewall tool        neither nft nor iptables: `ringmesh intercept` cannot work (direct mode works)
                                   fix: apt-get install nftables
        note  client addresses     without ip `ringmesh intercept up --mode tproxy` cannot work (redirect does)
                                   fix: apt-get install iproute2
        ok    kernel TLS           not loaded (not needed: TLS is done in the sidecar)
        13 checks: 4 must be fixed, 6 notes
    "#]].assert_eq(&table(&findings));
}

#[test]
fn every_finding_that_is_not_good_has_a_fix() {
    for facts in [good_host(), old_host(), crate::probe::gather()] {
        for finding in examine(&facts) {
            assert_eq!(
                finding.severity == Severity::Good,
                finding.fix.is_empty(),
                "{finding:?}"
            );
        }
    }
}

#[test]
fn an_older_kernel_is_told_what_its_rings_do_without() {
    let mut facts = good_host();
    facts.kernel = KernelVersion::parse("6.1.0-28-amd64");
    if let Uring::Usable { no_sqarray, .. } = &mut facts.uring {
        *no_sqarray = false;
    }
    let findings = examine(&facts);
    let ring = findings.iter().find(|one| one.check == "ring features");
    expect![[r#"DEFER_TASKRUN (6.1), SINGLE_ISSUER (6.0), COOP_TASKRUN (5.19); not NO_SQARRAY (6.6), receive byte limit (6.18), SEND_ZC with reports (6.2): the sidecar does without"#]]
        .assert_eq(&ring.unwrap().found);
    assert!(!must_fix(&findings));
}

#[test]
fn what_tproxy_lacks_is_told() {
    let finding = |change: &dyn Fn(&mut Tproxy, &mut Binaries)| {
        let mut facts = good_host();
        let mut tproxy = facts.tproxy.expect("looked at");
        change(&mut tproxy, &mut facts.binaries);
        facts.tproxy = Some(tproxy);
        let mut findings = examine(&facts).into_iter();
        findings
            .find(|one| one.check == "client addresses")
            .expect("a finding")
    };
    let lost = finding(&|tproxy, _| tproxy.capturing = true);
    assert_eq!(lost.severity, Severity::Must);
    assert!(lost.found.contains("ip rule"), "{lost:?}");
    let up = finding(&|tproxy, _| (tproxy.capturing, tproxy.routed) = (true, true));
    assert_eq!(up.severity, Severity::Good);
    assert!(up.found.contains("captures"), "{up:?}");
    let old = finding(&|tproxy, _| tproxy.module = Some(false));
    assert_eq!(old.severity, Severity::Advice);
    assert!(old.fix.contains("CONFIG_NFT_TPROXY"), "{old:?}");
    let without_ip = finding(&|_, binaries| binaries.ip = None);
    assert!(without_ip.fix.contains("iproute2"), "{without_ip:?}");
    let unknown = finding(&|tproxy, _| tproxy.module = None);
    assert_eq!(unknown.severity, Severity::Good);
}

#[test]
fn json_carries_the_verdict() {
    let facts = old_host();
    let value = json(&facts, &examine(&facts));
    assert_eq!(value["must_fix"], true);
    assert_eq!(value["findings"][0]["severity"], "must");
    assert_eq!(value["facts"]["cpus"], serde_json::json!([0, 1]));
}
