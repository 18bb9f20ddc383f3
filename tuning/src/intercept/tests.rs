use expect_test::{Expect, expect};

use super::*;

fn full(backend: Backend) -> Capture {
    Capture {
        outbound: Ports::Listed(vec![80, 9080]),
        inbound: Ports::Listed(vec![9080]),
        proxy_uid: Some(1337),
        proxy_gid: Some(1337),
        from_uids: vec![1001, 1002],
        from_cgroup: Some("system.slice/app.service".to_owned()),
        exclude_uids: vec![0],
        exclude_outbound: vec![3306],
        exclude_inbound: vec![9090],
        exclude_nets: vec![
            "10.9.0.0/16".parse().expect("net"),
            "fd00::/8".parse().expect("net"),
        ],
        exclude_interfaces: vec!["eth1".to_owned()],
        ..Capture::new("demo".parse().expect("name"), backend)
    }
}

fn check(capture: &Capture, expected: &Expect) {
    capture.check().expect("a right capture");
    expected.assert_eq(&plan_up(capture, &Seen::default()).to_string());
}

#[test]
fn nftables_two_ports() {
    check(
        &full(Backend::Nftables),
        &expect![[r##"
        # nft -f -
        table inet ringmesh_demo
        delete table inet ringmesh_demo
        table inet ringmesh_demo {
        	chain output {
        		type nat hook output priority -100; policy accept;
        		meta l4proto != tcp return
        		tcp dport { 3306 } return comment "a excluded ports"
        		oifname "lo" ip saddr 127.0.0.6 return comment "b sidecar to app"
        		oifname "lo" ip6 saddr ::6 return comment "b sidecar to app"
        		meta skuid 1337 oifname "lo" ip daddr != 127.0.0.0/8 tcp dport != { 15008 } tcp dport { 9080 } counter redirect to :15006 comment "c app calls itself"
        		meta skuid 1337 oifname "lo" ip6 daddr != ::1 tcp dport != { 15008 } tcp dport { 9080 } counter redirect to :15006 comment "c app calls itself"
        		oifname "lo" meta skuid != 1337 return comment "d app to app on loopback"
        		meta skuid 1337 return comment "e sidecar's own"
        		meta skgid 1337 oifname "lo" ip daddr != 127.0.0.0/8 tcp dport != { 15008 } tcp dport { 9080 } counter redirect to :15006 comment "c app calls itself"
        		meta skgid 1337 oifname "lo" ip6 daddr != ::1 tcp dport != { 15008 } tcp dport { 9080 } counter redirect to :15006 comment "c app calls itself"
        		oifname "lo" meta skgid != 1337 return comment "d app to app on loopback"
        		meta skgid 1337 return comment "e sidecar's own"
        		meta skuid 0 return comment "f excluded user"
        		meta skuid != 1001 meta skuid != 1002 socket cgroupv2 level 2 != "system.slice/app.service" return comment "f not of the captured"
        		ip daddr 127.0.0.0/8 return comment "h loopback"
        		ip6 daddr ::1 return comment "h loopback"
        		ip daddr 10.9.0.0/16 return comment "i excluded block"
        		ip6 daddr fd00::/8 return comment "i excluded block"
        		tcp dport { 80, 9080 } counter redirect to :15001 comment "j outbound"
        	}
        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		meta l4proto != tcp return
        		tcp dport { 15008 } return comment "mesh port"
        		iifname "eth1" return comment "excluded interface"
        		tcp dport { 9090 } return comment "excluded ports"
        		fib daddr type local tcp dport { 9080 } counter redirect to :15006 comment "inbound"
        	}
        }
    "##]],
    );
}

#[test]
fn nftables_one_port_for_both_directions() {
    let capture = Capture {
        inbound_to: 15001,
        families: Families::V4,
        outbound: Ports::All,
        inbound: Ports::All,
        proxy_uid: Some(1337),
        from_gids: vec![77],
        ..Capture::new("one".parse().expect("name"), Backend::Nftables)
    };
    check(
        &capture,
        &expect![[r##"
        # nft -f -
        table inet ringmesh_one
        delete table inet ringmesh_one
        table inet ringmesh_one {
        	chain output {
        		type nat hook output priority -100; policy accept;
        		meta l4proto != tcp return
        		meta nfproto != ipv4 return
        		oifname "lo" ip saddr 127.0.0.6 return comment "b sidecar to app"
        		oifname "lo" ip6 saddr ::6 return comment "b sidecar to app"
        		meta skuid 1337 oifname "lo" ip daddr != 127.0.0.0/8 tcp dport != { 15008 } tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } counter redirect to :15001 comment "c app calls itself"
        		meta skuid 1337 oifname "lo" ip6 daddr != ::1 tcp dport != { 15008 } tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } counter redirect to :15001 comment "c app calls itself"
        		oifname "lo" meta skuid != 1337 return comment "d app to app on loopback"
        		meta skuid 1337 return comment "e sidecar's own"
        		meta skgid != 77 return comment "f not of the captured"
        		ip daddr 127.0.0.0/8 return comment "h loopback"
        		ip6 daddr ::1 return comment "h loopback"
        		tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } counter redirect to :15001 comment "j outbound"
        	}
        	chain prerouting {
        		type nat hook prerouting priority dstnat; policy accept;
        		meta l4proto != tcp return
        		meta nfproto != ipv4 return
        		tcp dport { 15008 } return comment "mesh port"
        		fib daddr type local tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } counter redirect to :15001 comment "inbound"
        	}
        }
    "##]],
    );
}

#[test]
fn iptables_two_ports() {
    check(
        &full(Backend::Iptables),
        &expect![[r##"
        # iptables-restore --noflush
        *nat
        :RINGMESH_demo_OUT - [0:0]
        :RINGMESH_demo_IN - [0:0]
        -A RINGMESH_demo_OUT -p tcp -m multiport --dports 3306 -m comment --comment "a excluded ports" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -o lo -s 127.0.0.6/32 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --uid-owner 1337 -o lo ! -d 127.0.0.0/8 -m multiport ! --dports 15008 -m multiport --dports 9080 -m comment --comment "c app calls itself" -j REDIRECT --to-ports 15006
        -A RINGMESH_demo_OUT -p tcp -o lo -m owner ! --uid-owner 1337 -m comment --comment "d app to app on loopback" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --uid-owner 1337 -m comment --comment "e sidecar's own" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --gid-owner 1337 -o lo ! -d 127.0.0.0/8 -m multiport ! --dports 15008 -m multiport --dports 9080 -m comment --comment "c app calls itself" -j REDIRECT --to-ports 15006
        -A RINGMESH_demo_OUT -p tcp -o lo -m owner ! --gid-owner 1337 -m comment --comment "d app to app on loopback" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --gid-owner 1337 -m comment --comment "e sidecar's own" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --uid-owner 0 -m comment --comment "f excluded user" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner ! --uid-owner 1001 -m owner ! --uid-owner 1002 -m cgroup ! --path system.slice/app.service -m comment --comment "f not of the captured" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -d 127.0.0.0/8 -m comment --comment "h loopback" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -d 10.9.0.0/16 -m comment --comment "i excluded block" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m multiport --dports 80,9080 -m comment --comment "j outbound" -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j RINGMESH_demo_OUT
        -A RINGMESH_demo_IN -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
        -A RINGMESH_demo_IN -p tcp -i eth1 -m comment --comment "excluded interface" -j RETURN
        -A RINGMESH_demo_IN -p tcp -m multiport --dports 9090 -m comment --comment "excluded ports" -j RETURN
        -A RINGMESH_demo_IN -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 -m comment --comment "inbound" -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j RINGMESH_demo_IN
        COMMIT
        # ip6tables-restore --noflush
        *nat
        :RINGMESH_demo_OUT - [0:0]
        :RINGMESH_demo_IN - [0:0]
        -A RINGMESH_demo_OUT -p tcp -m multiport --dports 3306 -m comment --comment "a excluded ports" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -o lo -s ::6/128 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --uid-owner 1337 -o lo ! -d ::1/128 -m multiport ! --dports 15008 -m multiport --dports 9080 -m comment --comment "c app calls itself" -j REDIRECT --to-ports 15006
        -A RINGMESH_demo_OUT -p tcp -o lo -m owner ! --uid-owner 1337 -m comment --comment "d app to app on loopback" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --uid-owner 1337 -m comment --comment "e sidecar's own" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --gid-owner 1337 -o lo ! -d ::1/128 -m multiport ! --dports 15008 -m multiport --dports 9080 -m comment --comment "c app calls itself" -j REDIRECT --to-ports 15006
        -A RINGMESH_demo_OUT -p tcp -o lo -m owner ! --gid-owner 1337 -m comment --comment "d app to app on loopback" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --gid-owner 1337 -m comment --comment "e sidecar's own" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner --uid-owner 0 -m comment --comment "f excluded user" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m owner ! --uid-owner 1001 -m owner ! --uid-owner 1002 -m cgroup ! --path system.slice/app.service -m comment --comment "f not of the captured" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -d ::1/128 -m comment --comment "h loopback" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -d fd00::/8 -m comment --comment "i excluded block" -j RETURN
        -A RINGMESH_demo_OUT -p tcp -m multiport --dports 80,9080 -m comment --comment "j outbound" -j REDIRECT --to-ports 15001
        -A OUTPUT -p tcp -j RINGMESH_demo_OUT
        -A RINGMESH_demo_IN -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
        -A RINGMESH_demo_IN -p tcp -i eth1 -m comment --comment "excluded interface" -j RETURN
        -A RINGMESH_demo_IN -p tcp -m multiport --dports 9090 -m comment --comment "excluded ports" -j RETURN
        -A RINGMESH_demo_IN -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 -m comment --comment "inbound" -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j RINGMESH_demo_IN
        COMMIT
    "##]],
    );
}

fn tproxy(backend: Backend) -> Capture {
    Capture {
        mode: Mode::Tproxy,
        inbound: Ports::Listed(vec![9080]),
        exclude_inbound: vec![9090],
        exclude_interfaces: vec!["eth1".to_owned()],
        ..Capture::new("tp".parse().expect("name"), backend)
    }
}

/// A host that routes both families and has nothing of ours.
fn routed() -> Seen {
    Seen {
        routing_v4: SeenRouting::read("0:\tfrom all lookup local\n", ""),
        routing_v6: SeenRouting::read("0:\tfrom all lookup local\n", ""),
        ..Seen::default()
    }
}

fn check_tproxy(capture: &Capture, expected: &Expect) {
    capture.check().expect("a right capture");
    expected.assert_eq(&plan_up(capture, &routed()).to_string());
}

#[test]
fn nftables_tproxy() {
    check_tproxy(
        &tproxy(Backend::Nftables),
        &expect![[r##"
            # ip -4 -batch -
            route add local default dev lo table 133
            rule add fwmark 1337 lookup 133 pref 133
            # ip -6 -batch -
            route add local default dev lo table 133
            rule add fwmark 1337 lookup 133 pref 133
            # nft -f -
            table inet ringmesh_tp
            delete table inet ringmesh_tp
            table inet ringmesh_tp {
            	chain output {
            		type nat hook output priority -100; policy accept;
            		meta l4proto != tcp return
            		meta mark 1338 return comment "b sidecar to app"
            		oifname "lo" ip saddr 127.0.0.6 return comment "b sidecar to app"
            		oifname "lo" ip6 saddr ::6 return comment "b sidecar to app"
            		ip daddr 127.0.0.0/8 return comment "h loopback"
            		ip6 daddr ::1 return comment "h loopback"
            	}
            	chain arriving {
            		type filter hook prerouting priority mangle; policy accept;
            		meta l4proto != tcp return
            		iifname "lo" return comment "opened on this host"
            		tcp dport { 15008 } return comment "mesh port"
            		iifname "eth1" return comment "excluded interface"
            		tcp dport { 9090 } return comment "excluded ports"
            		fib daddr type local tcp dport { 9080 } tcp flags & (fin | syn | rst | ack) == syn ct state new ct mark set 1337 comment "inbound begins"
            		fib daddr type local tcp dport { 9080 } ct mark 1337 counter tproxy to :15006 accept comment "inbound"
            		fib daddr type local tcp dport { 9080 } ct mark 1337 counter reject with tcp reset comment "no sidecar"
            	}
            	chain leaving {
            		type route hook output priority mangle; policy accept;
            		meta l4proto != tcp return
            		ct mark 1338 ct direction reply counter meta mark set 1337 return comment "app's answer to the sidecar"
            		meta mark 1338 ct mark set 1338 comment "sidecar to app"
            	}
            }
        "##]],
    );
}

#[test]
fn iptables_tproxy() {
    check_tproxy(
        &tproxy(Backend::Iptables),
        &expect![[r##"
            # ip -4 -batch -
            route add local default dev lo table 133
            rule add fwmark 1337 lookup 133 pref 133
            # ip -6 -batch -
            route add local default dev lo table 133
            rule add fwmark 1337 lookup 133 pref 133
            # iptables-restore --noflush
            *mangle
            :RINGMESH_tp_TP - [0:0]
            :RINGMESH_tp_BACK - [0:0]
            -A RINGMESH_tp_TP -p tcp -i lo -m comment --comment "opened on this host" -j RETURN
            -A RINGMESH_tp_TP -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
            -A RINGMESH_tp_TP -p tcp -i eth1 -m comment --comment "excluded interface" -j RETURN
            -A RINGMESH_tp_TP -p tcp -m multiport --dports 9090 -m comment --comment "excluded ports" -j RETURN
            -A RINGMESH_tp_TP -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 --syn -m conntrack --ctstate NEW -m comment --comment "inbound begins" -j CONNMARK --set-mark 1337
            -A RINGMESH_tp_TP -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 -m connmark --mark 1337 -m comment --comment "inbound" -j TPROXY --on-port 15006
            -A PREROUTING -p tcp -j RINGMESH_tp_TP
            -A RINGMESH_tp_BACK -p tcp -m connmark --mark 1338 -m conntrack --ctdir REPLY -m comment --comment "app's answer to the sidecar" -j MARK --set-mark 1337
            -A RINGMESH_tp_BACK -p tcp -m connmark --mark 1338 -m conntrack --ctdir REPLY -m comment --comment "app's answer to the sidecar" -j RETURN
            -A RINGMESH_tp_BACK -p tcp -m mark --mark 1338 -m comment --comment "sidecar to app" -j CONNMARK --set-mark 1338
            -A OUTPUT -p tcp -j RINGMESH_tp_BACK
            COMMIT
            *nat
            :RINGMESH_tp_OUT - [0:0]
            -A RINGMESH_tp_OUT -p tcp -m mark --mark 1338 -m comment --comment "b sidecar to app" -j RETURN
            -A RINGMESH_tp_OUT -p tcp -o lo -s 127.0.0.6/32 -m comment --comment "b sidecar to app" -j RETURN
            -A RINGMESH_tp_OUT -p tcp -d 127.0.0.0/8 -m comment --comment "h loopback" -j RETURN
            -A OUTPUT -p tcp -j RINGMESH_tp_OUT
            COMMIT
            # ip6tables-restore --noflush
            *mangle
            :RINGMESH_tp_TP - [0:0]
            :RINGMESH_tp_BACK - [0:0]
            -A RINGMESH_tp_TP -p tcp -i lo -m comment --comment "opened on this host" -j RETURN
            -A RINGMESH_tp_TP -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
            -A RINGMESH_tp_TP -p tcp -i eth1 -m comment --comment "excluded interface" -j RETURN
            -A RINGMESH_tp_TP -p tcp -m multiport --dports 9090 -m comment --comment "excluded ports" -j RETURN
            -A RINGMESH_tp_TP -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 --syn -m conntrack --ctstate NEW -m comment --comment "inbound begins" -j CONNMARK --set-mark 1337
            -A RINGMESH_tp_TP -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 -m connmark --mark 1337 -m comment --comment "inbound" -j TPROXY --on-port 15006
            -A PREROUTING -p tcp -j RINGMESH_tp_TP
            -A RINGMESH_tp_BACK -p tcp -m connmark --mark 1338 -m conntrack --ctdir REPLY -m comment --comment "app's answer to the sidecar" -j MARK --set-mark 1337
            -A RINGMESH_tp_BACK -p tcp -m connmark --mark 1338 -m conntrack --ctdir REPLY -m comment --comment "app's answer to the sidecar" -j RETURN
            -A RINGMESH_tp_BACK -p tcp -m mark --mark 1338 -m comment --comment "sidecar to app" -j CONNMARK --set-mark 1338
            -A OUTPUT -p tcp -j RINGMESH_tp_BACK
            COMMIT
            *nat
            :RINGMESH_tp_OUT - [0:0]
            -A RINGMESH_tp_OUT -p tcp -m mark --mark 1338 -m comment --comment "b sidecar to app" -j RETURN
            -A RINGMESH_tp_OUT -p tcp -o lo -s ::6/128 -m comment --comment "b sidecar to app" -j RETURN
            -A RINGMESH_tp_OUT -p tcp -d ::1/128 -m comment --comment "h loopback" -j RETURN
            -A OUTPUT -p tcp -j RINGMESH_tp_OUT
            COMMIT
        "##]],
    );
}

#[test]
fn tproxy_of_one_family_routes_that_one() {
    let capture = Capture {
        families: Families::V6,
        outbound: Ports::Listed(vec![80]),
        proxy_uid: Some(1337),
        inbound: Ports::All,
        ..tproxy(Backend::Nftables)
    };
    check_tproxy(
        &capture,
        &expect![[r##"
            # ip -6 -batch -
            route add local default dev lo table 133
            rule add fwmark 1337 lookup 133 pref 133
            # nft -f -
            table inet ringmesh_tp
            delete table inet ringmesh_tp
            table inet ringmesh_tp {
            	chain output {
            		type nat hook output priority -100; policy accept;
            		meta l4proto != tcp return
            		meta nfproto != ipv6 return
            		meta mark 1338 return comment "b sidecar to app"
            		oifname "lo" ip saddr 127.0.0.6 return comment "b sidecar to app"
            		oifname "lo" ip6 saddr ::6 return comment "b sidecar to app"
            		meta skuid 1337 oifname "lo" ip daddr != 127.0.0.0/8 tcp dport != { 15008 } tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } counter redirect to :15006 comment "c app calls itself"
            		meta skuid 1337 oifname "lo" ip6 daddr != ::1 tcp dport != { 15008 } tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } counter redirect to :15006 comment "c app calls itself"
            		oifname "lo" meta skuid != 1337 return comment "d app to app on loopback"
            		meta skuid 1337 return comment "e sidecar's own"
            		ip daddr 127.0.0.0/8 return comment "h loopback"
            		ip6 daddr ::1 return comment "h loopback"
            		tcp dport { 80 } counter redirect to :15001 comment "j outbound"
            	}
            	chain arriving {
            		type filter hook prerouting priority mangle; policy accept;
            		meta l4proto != tcp return
            		meta nfproto != ipv6 return
            		iifname "lo" return comment "opened on this host"
            		tcp dport { 15008 } return comment "mesh port"
            		iifname "eth1" return comment "excluded interface"
            		tcp dport { 9090 } return comment "excluded ports"
            		fib daddr type local tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } tcp flags & (fin | syn | rst | ack) == syn ct state new ct mark set 1337 comment "inbound begins"
            		fib daddr type local tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } ct mark 1337 counter tproxy to :15006 accept comment "inbound"
            		fib daddr type local tcp dport != { 22, 15000, 15001, 15006, 15008, 15012, 15014 } ct mark 1337 counter reject with tcp reset comment "no sidecar"
            	}
            	chain leaving {
            		type route hook output priority mangle; policy accept;
            		meta l4proto != tcp return
            		meta nfproto != ipv6 return
            		ct mark 1338 ct direction reply counter meta mark set 1337 return comment "app's answer to the sidecar"
            		meta mark 1338 ct mark set 1338 comment "sidecar to app"
            	}
            }
        "##]],
    );
}

const RULE: &str = "133:\tfrom all fwmark 0x539 lookup 133\n";
const ROUTE: &str = "local default dev lo scope host \n";

#[test]
fn routing_is_added_where_it_lacks_and_taken_away_by_the_last() {
    let name: Name = "tp".parse().expect("name");
    let up = Seen {
        nftables: Some("table inet ringmesh_tp {\n\tchain arriving {\n".to_owned()),
        routing_v4: SeenRouting::read(RULE, ROUTE),
        routing_v6: SeenRouting::read(RULE, ROUTE),
        ..Seen::default()
    };
    assert_eq!(up.state(), State::Up);
    let tools = |change: Change| -> Vec<Tool> { change.steps.iter().map(|s| s.tool).collect() };
    let again = plan_up(&tproxy(Backend::Nftables), &up);
    assert_eq!(tools(again), [Tool::Nft], "it is there");
    expect![[r#"
        # nft -f -
        table inet ringmesh_tp
        delete table inet ringmesh_tp
        # ip -4 -batch -
        rule del fwmark 1337 lookup 133 pref 133
        route del local default dev lo table 133
        # ip -6 -batch -
        rule del fwmark 1337 lookup 133 pref 133
        route del local default dev lo table 133
    "#]]
    .assert_eq(&plan_down(&name, &up).to_string());
    let redirect = Capture {
        mode: Mode::Redirect,
        ..tproxy(Backend::Nftables)
    };
    assert_eq!(
        tools(plan_up(&redirect, &up)),
        [Tool::Nft, Tool::Ip4, Tool::Ip6],
        "without TPROXY nobody needs it"
    );
    let v4 = Capture {
        families: Families::V4,
        ..tproxy(Backend::Nftables)
    };
    assert_eq!(tools(plan_up(&v4, &up)), [Tool::Nft, Tool::Ip6]);
    let shared = Seen {
        routing_shared: true,
        ..up.clone()
    };
    assert_eq!(tools(plan_down(&name, &shared)), [Tool::Nft]);
    let lost = Seen {
        routing_v6: SeenRouting::read("", ROUTE),
        ..up
    };
    assert_eq!(lost.state(), State::Broken);
}

#[test]
fn what_others_route_by_the_table_stays() {
    let name: Name = "tp".parse().expect("name");
    let theirs = "32765:\tfrom all fwmark 0x539 lookup 133\n";
    let down = |rules: &str, routes: &str| {
        let seen = Seen {
            routing_v4: SeenRouting::read(rules, routes),
            ..Seen::default()
        };
        plan_down(&name, &seen).to_string()
    };
    assert_eq!(down(theirs, ROUTE), "# nothing to do\n");
    assert_eq!(down("0:\tfrom all lookup local\n", ""), "# nothing to do\n");
    let both = format!("{RULE}{theirs}");
    assert_eq!(
        down(&both, ROUTE),
        "# ip -4 -batch -\nrule del fwmark 1337 lookup 133 pref 133\n"
    );
    // A crash between route and rule.
    assert_eq!(
        down("", ROUTE),
        "# ip -4 -batch -\nroute del local default dev lo table 133\n"
    );
}

#[test]
fn captures_of_other_names_are_told_apart() {
    let name: Name = "a".parse().expect("name");
    let chains =
        "table inet ringmesh_a {\n\tchain arriving {\n\t\ttype filter hook prerouting\n\t}\n}\n";
    assert!(!nft::others_are_tproxy(chains, &name));
    let other = chains.replace("ringmesh_a", "ringmesh_ab");
    assert!(nft::others_are_tproxy(&other, &name));
    assert!(!nft::others_are_tproxy(
        &other.replace("ringmesh", "foreign"),
        &name
    ));
    assert!(!nft::others_are_tproxy(
        &other.replace("arriving", "output"),
        &name
    ));
    assert!(!iptables::others_are_tproxy(
        ":RINGMESH_a_TP - [0:0]\n",
        &name
    ));
    assert!(iptables::others_are_tproxy(
        ":RINGMESH_ab_TP - [0:0]\n",
        &name
    ));
    assert!(!iptables::others_are_tproxy(
        ":RINGMESH_ab_OUT - [0:0]\n",
        &name
    ));
}

#[test]
fn iptables_changes_the_mode_in_both_tables() {
    let redirected = "*nat\n:RINGMESH_tp_OUT - [0:0]\n:RINGMESH_tp_IN - [0:0]\n\
        -A OUTPUT -p tcp -j RINGMESH_tp_OUT\n-A PREROUTING -p tcp -j RINGMESH_tp_IN\nCOMMIT\n";
    let capture = Capture {
        families: Families::V4,
        ..tproxy(Backend::Iptables)
    };
    let seen = Seen {
        v4: SeenIptables::pick(redirected, "", &capture.name),
        ..routed()
    };
    expect![[r##"
        # ip -4 -batch -
        route add local default dev lo table 133
        rule add fwmark 1337 lookup 133 pref 133
        # iptables-restore --noflush
        *mangle
        :RINGMESH_tp_TP - [0:0]
        :RINGMESH_tp_BACK - [0:0]
        -A RINGMESH_tp_TP -p tcp -i lo -m comment --comment "opened on this host" -j RETURN
        -A RINGMESH_tp_TP -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
        -A RINGMESH_tp_TP -p tcp -i eth1 -m comment --comment "excluded interface" -j RETURN
        -A RINGMESH_tp_TP -p tcp -m multiport --dports 9090 -m comment --comment "excluded ports" -j RETURN
        -A RINGMESH_tp_TP -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 --syn -m conntrack --ctstate NEW -m comment --comment "inbound begins" -j CONNMARK --set-mark 1337
        -A RINGMESH_tp_TP -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 -m connmark --mark 1337 -m comment --comment "inbound" -j TPROXY --on-port 15006
        -A PREROUTING -p tcp -j RINGMESH_tp_TP
        -A RINGMESH_tp_BACK -p tcp -m connmark --mark 1338 -m conntrack --ctdir REPLY -m comment --comment "app's answer to the sidecar" -j MARK --set-mark 1337
        -A RINGMESH_tp_BACK -p tcp -m connmark --mark 1338 -m conntrack --ctdir REPLY -m comment --comment "app's answer to the sidecar" -j RETURN
        -A RINGMESH_tp_BACK -p tcp -m mark --mark 1338 -m comment --comment "sidecar to app" -j CONNMARK --set-mark 1338
        -A OUTPUT -p tcp -j RINGMESH_tp_BACK
        COMMIT
        *nat
        :RINGMESH_tp_OUT - [0:0]
        -D OUTPUT -p tcp -j RINGMESH_tp_OUT
        -D PREROUTING -p tcp -j RINGMESH_tp_IN
        -A RINGMESH_tp_OUT -p tcp -m mark --mark 1338 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_tp_OUT -p tcp -o lo -s 127.0.0.6/32 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_tp_OUT -p tcp -d 127.0.0.0/8 -m comment --comment "h loopback" -j RETURN
        -A OUTPUT -p tcp -j RINGMESH_tp_OUT
        -F RINGMESH_tp_IN
        -X RINGMESH_tp_IN
        COMMIT
    "##]].assert_eq(&plan_up(&capture, &seen).to_string());
    let captured = "*mangle\n:RINGMESH_tp_TP - [0:0]\n:RINGMESH_tp_BACK - [0:0]\n\
        -A PREROUTING -p tcp -j RINGMESH_tp_TP\n-A OUTPUT -p tcp -j RINGMESH_tp_BACK\nCOMMIT\n";
    let seen = Seen {
        v4: SeenIptables::pick("", captured, &capture.name),
        routing_v4: SeenRouting::read(RULE, ROUTE),
        ..routed()
    };
    assert_eq!(seen.state(), State::Up);
    let back = Capture {
        mode: Mode::Redirect,
        ..capture
    };
    expect![[r##"
        # iptables-restore --noflush
        *nat
        :RINGMESH_tp_OUT - [0:0]
        :RINGMESH_tp_IN - [0:0]
        -A RINGMESH_tp_OUT -p tcp -o lo -s 127.0.0.6/32 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_tp_OUT -p tcp -d 127.0.0.0/8 -m comment --comment "h loopback" -j RETURN
        -A OUTPUT -p tcp -j RINGMESH_tp_OUT
        -A RINGMESH_tp_IN -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
        -A RINGMESH_tp_IN -p tcp -i eth1 -m comment --comment "excluded interface" -j RETURN
        -A RINGMESH_tp_IN -p tcp -m multiport --dports 9090 -m comment --comment "excluded ports" -j RETURN
        -A RINGMESH_tp_IN -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 9080 -m comment --comment "inbound" -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j RINGMESH_tp_IN
        COMMIT
        *mangle
        -D PREROUTING -p tcp -j RINGMESH_tp_TP
        -D OUTPUT -p tcp -j RINGMESH_tp_BACK
        -F RINGMESH_tp_TP
        -F RINGMESH_tp_BACK
        -X RINGMESH_tp_TP
        -X RINGMESH_tp_BACK
        COMMIT
        # ip -4 -batch -
        rule del fwmark 1337 lookup 133 pref 133
        route del local default dev lo table 133
    "##]].assert_eq(&plan_up(&back, &seen).to_string());
}

#[test]
fn iptables_splits_long_port_lists() {
    let capture = Capture {
        families: Families::V4,
        inbound: Ports::Listed((8000..8020).collect()),
        ..Capture::new("long".parse().expect("name"), Backend::Iptables)
    };
    check(
        &capture,
        &expect![[r##"
        # iptables-restore --noflush
        *nat
        :RINGMESH_long_OUT - [0:0]
        :RINGMESH_long_IN - [0:0]
        -A RINGMESH_long_OUT -p tcp -o lo -s 127.0.0.6/32 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_long_OUT -p tcp -d 127.0.0.0/8 -m comment --comment "h loopback" -j RETURN
        -A OUTPUT -p tcp -j RINGMESH_long_OUT
        -A RINGMESH_long_IN -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
        -A RINGMESH_long_IN -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 8000,8001,8002,8003,8004,8005,8006,8007,8008,8009,8010,8011,8012,8013,8014 -m comment --comment "inbound" -j REDIRECT --to-ports 15006
        -A RINGMESH_long_IN -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 8015,8016,8017,8018,8019 -m comment --comment "inbound" -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j RINGMESH_long_IN
        COMMIT
    "##]],
    );
}

#[test]
fn iptables_up_over_what_is_there_replaces_it() {
    let capture = Capture {
        families: Families::V4,
        inbound: Ports::Listed(vec![80]),
        ..Capture::new("x".parse().expect("name"), Backend::Iptables)
    };
    let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:RINGMESH_x_IN - [0:0]\n:RINGMESH_xy_IN - [0:0]\n\
                 -A PREROUTING -p tcp -j RINGMESH_x_IN\n-A PREROUTING -p tcp -j RINGMESH_xy_IN\n\
                 -A PREROUTING -p tcp -j DOCKER\n-A RINGMESH_x_IN -j RETURN\nCOMMIT\n";
    let seen = Seen {
        v4: SeenIptables::pick(saved, "", &capture.name),
        ..Seen::default()
    };
    assert_eq!(seen.state(), State::Up);
    expect![[r##"
        # iptables-restore --noflush
        *nat
        :RINGMESH_x_OUT - [0:0]
        :RINGMESH_x_IN - [0:0]
        -D PREROUTING -p tcp -j RINGMESH_x_IN
        -A RINGMESH_x_OUT -p tcp -o lo -s 127.0.0.6/32 -m comment --comment "b sidecar to app" -j RETURN
        -A RINGMESH_x_OUT -p tcp -d 127.0.0.0/8 -m comment --comment "h loopback" -j RETURN
        -A OUTPUT -p tcp -j RINGMESH_x_OUT
        -A RINGMESH_x_IN -p tcp -m multiport --dports 15008 -m comment --comment "mesh port" -j RETURN
        -A RINGMESH_x_IN -p tcp -m addrtype --dst-type LOCAL -m multiport --dports 80 -m comment --comment "inbound" -j REDIRECT --to-ports 15006
        -A PREROUTING -p tcp -j RINGMESH_x_IN
        COMMIT
    "##]].assert_eq(&plan_up(&capture, &seen).to_string());
    expect![[r#"
        # iptables-restore --noflush
        *nat
        -D PREROUTING -p tcp -j RINGMESH_x_IN
        -F RINGMESH_x_IN
        -X RINGMESH_x_IN
        COMMIT
    "#]]
    .assert_eq(&plan_down(&capture.name, &seen).to_string());
}

#[test]
fn a_crash_between_declaring_and_hooking_is_seen_and_mended() {
    let name: Name = "x".parse().expect("name");
    let seen = Seen {
        v6: SeenIptables::pick(":RINGMESH_x_OUT - [0:0]\n", "", &name),
        ..Seen::default()
    };
    assert_eq!(seen.state(), State::Broken);
    expect![[r#"
        # ip6tables-restore --noflush
        *nat
        -F RINGMESH_x_OUT
        -X RINGMESH_x_OUT
        COMMIT
    "#]]
    .assert_eq(&plan_down(&name, &seen).to_string());
}

#[test]
fn down_on_a_clean_host_does_nothing() {
    let name: Name = "x".parse().expect("name");
    assert_eq!(plan_down(&name, &Seen::default()), Change::default());
}

#[test]
fn wishes_that_would_hurt_are_refused() {
    let base = full(Backend::Nftables);
    let cases = [
        (
            Capture {
                outbound: Ports::Listed(vec![]),
                inbound: Ports::Listed(vec![]),
                ..base.clone()
            },
            "outbound",
        ),
        (
            Capture {
                proxy_uid: None,
                proxy_gid: None,
                ..base.clone()
            },
            "proxy-uid",
        ),
        (
            Capture {
                outbound: Ports::All,
                from_uids: vec![],
                from_cgroup: None,
                ..base.clone()
            },
            "outbound",
        ),
        (
            Capture {
                from_uids: vec![1337],
                ..base.clone()
            },
            "from-uid",
        ),
        (
            Capture {
                from_cgroup: Some("/abs".to_owned()),
                ..base.clone()
            },
            "from-cgroup",
        ),
        (
            Capture {
                from_cgroup: Some("a\" return".to_owned()),
                ..base.clone()
            },
            "from-cgroup",
        ),
        (
            Capture {
                exclude_interfaces: vec!["x; y".to_owned()],
                ..base.clone()
            },
            "exclude-interface",
        ),
        (
            Capture {
                inbound_to: 0,
                ..base.clone()
            },
            "port",
        ),
        (
            Capture {
                mode: Mode::Tproxy,
                inbound: Ports::Listed(vec![]),
                ..base.clone()
            },
            "mode",
        ),
        (
            Capture {
                mode: Mode::Tproxy,
                inbound_to: 15001,
                ..base
            },
            "inbound-to",
        ),
    ];
    for (capture, field) in cases {
        assert_eq!(capture.check().expect_err(field).field, field);
    }
}

#[test]
fn words_are_parsed_strictly() {
    assert_eq!("80, 9080".parse(), Ok(Ports::Listed(vec![80, 9080])));
    assert_eq!("*".parse(), Ok(Ports::All));
    for wrong in ["0", "", "80-90", "http"] {
        assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
    }
    for wrong in ["", "Upper", "a-b", "fifteen_letters"] {
        assert!(wrong.parse::<Name>().is_err(), "{wrong}");
    }
    for wrong in ["10.0.0.0/33", "10.0.0/8", "::/129", "x"] {
        assert!(wrong.parse::<Net>().is_err(), "{wrong}");
    }
    assert_eq!("10.1.2.3".parse::<Net>().expect("net").bits, 32);
}

/// A unit that starts anew has a new cgroup, and the rules hold the old one.
#[test]
fn rules_for_a_cgroup_that_is_gone_are_broken() {
    let by_nft = |cgroup: &str, seen: SeenCgroup| Seen {
        nftables: Some(format!(
            "table inet ringmesh_x {{\n\tchain output {{\n\t\tmeta skuid != 1001 {cgroup} return \
             comment \"f not of the captured\"\n\t}}\n}}\n"
        )),
        cgroup: seen,
        ..Seen::default()
    };
    for (cgroup, unnamed) in [
        (
            "socket cgroupv2 level 2 != \"system.slice/app.service\"",
            false,
        ),
        ("socket cgroupv2 level 1 != \"7\"", false),
        ("socket cgroupv2 level 2 != 4711", true),
        ("socket cgroupv2 level 2 4711", true),
        ("", false),
    ] {
        let seen = by_nft(cgroup, SeenCgroup::Unknown);
        let listing = seen.nftables.as_deref().expect("a listing");
        assert_eq!(nft::holds_unnamed_cgroup(listing), unnamed, "{cgroup}");
        assert_eq!(seen.state(), State::Up, "where no cgroup is to be seen");
    }
    let gone = by_nft("socket cgroupv2 level 2 != 4711", SeenCgroup::Gone);
    assert_eq!(gone.state(), State::Broken);

    let capture = Capture {
        cgroup_number: Some(4711),
        ..full(Backend::Iptables)
    };
    let rules = plan_up(&capture, &Seen::default()).steps.remove(0).input;
    for (now, wanted) in [
        (SeenCgroup::Unknown, State::Up),
        (SeenCgroup::Is(4711), State::Up),
        (SeenCgroup::Is(4712), State::Broken),
        (SeenCgroup::Gone, State::Broken),
    ] {
        let seen = Seen {
            v4: SeenIptables::pick(&rules, "", &capture.name),
            cgroup: now,
            ..Seen::default()
        };
        let made_for = seen.cgroup_of_iptables();
        assert_eq!(made_for, Some(("system.slice/app.service", 4711)));
        assert_eq!(
            (seen.state(), seen.lost_cgroup()),
            (wanted, wanted == State::Broken)
        );
    }
}
