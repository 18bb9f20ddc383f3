//! `ringmesh intercept`: capture rules on this host. The work is `ringmesh_tuning::intercept`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ringmesh_tuning::intercept::{
    Backend, Capture, Families, Host, Mode, Name, Net, PRIORITY, Ports, STAY_MARK, Seen, State,
    TABLE, plan_down, plan_up,
};
use ringmesh_tuning::probe;
use ringmesh_tuning::{errln, out, outln};

/// Send a service's TCP connections to its sidecar, or stop doing so.
///
/// The rules, their order and the reasons: docs/interception.md.
#[derive(Args, Debug)]
pub struct InterceptArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Put the rules in place, replacing what this name has now.
    Up(Box<UpArgs>),
    /// Remove exactly what `up` added under this name.
    Down(DownArgs),
    /// Show the rules of this name with their counters.
    Show(ShowArgs),
}

#[derive(Args, Debug)]
struct UpArgs {
    /// Names these rules: 1 to 14 of a-z, 0-9 and _.
    #[arg(long, default_value = "default")]
    name: Name,
    /// Tool to use.
    #[arg(long, value_enum, default_value_t)]
    backend: BackendArg,
    /// Address families to capture: those that the sidecar's listeners have. `[::]` takes IPv6 only.
    #[arg(long, value_enum, default_value_t)]
    family: FamilyArg,
    /// How arriving connections are captured; outgoing ones are always redirected.
    #[arg(long, value_enum, default_value_t)]
    mode: ModeArg,
    /// Capture outgoing connections to these ports: `80,9080`, or `*` for all (needs --from-*).
    #[arg(long, value_name = "PORTS")]
    outbound: Option<Ports>,
    /// Capture arriving connections on these ports: `9080`, or `*` for all.
    #[arg(long, value_name = "PORTS")]
    inbound: Option<Ports>,
    /// The sidecar's port for captured outgoing connections.
    #[arg(long, default_value_t = 15001, value_name = "PORT")]
    outbound_to: u16,
    /// The sidecar's port for captured arriving connections; the same as --outbound-to is allowed
    /// where they are redirected.
    #[arg(long, default_value_t = 15006, value_name = "PORT")]
    inbound_to: u16,
    /// The sidecar's mesh port, never captured.
    #[arg(long, default_value_t = 15008, value_name = "PORT")]
    mesh_port: u16,
    /// User id the sidecar runs as, never captured.
    #[arg(long, value_name = "UID", value_parser = number_of_id)]
    proxy_uid: Option<u32>,
    /// Group id the sidecar runs as, never captured.
    #[arg(long, value_name = "GID", value_parser = number_of_id)]
    proxy_gid: Option<u32>,
    /// Capture only these users' connections.
    #[arg(long, value_delimiter = ',', value_name = "UID", value_parser = number_of_id)]
    from_uid: Vec<u32>,
    /// Capture only these groups' connections.
    #[arg(long, value_delimiter = ',', value_name = "GID", value_parser = number_of_id)]
    from_gid: Vec<u32>,
    /// Capture only this cgroup's connections (v2 path, as system.slice/app.service). A unit that starts anew
    /// has a new cgroup: run `up` again then, as from its ExecStartPost=.
    #[arg(long, value_name = "PATH")]
    from_cgroup: Option<String>,
    /// Never capture these users' connections.
    #[arg(long, value_delimiter = ',', value_name = "UID", value_parser = number_of_id)]
    exclude_uid: Vec<u32>,
    /// Never capture outgoing connections to these ports.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    exclude_outbound: Vec<u16>,
    /// Never capture arriving connections on these ports.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    exclude_inbound: Vec<u16>,
    /// Never capture outgoing connections to these blocks.
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    exclude_cidr: Vec<Net>,
    /// Never capture connections arriving over these interfaces.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    exclude_interface: Vec<String>,
    /// Print what would be done and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct DownArgs {
    /// The name given to `up`.
    #[arg(long, default_value = "default")]
    name: Name,
    /// Print what would be done and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The name given to `up`.
    #[arg(long, default_value = "default")]
    name: Name,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// The rules as their tool prints them.
    #[default]
    Table,
    /// State and rules.
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum BackendArg {
    /// nftables if it is installed, else iptables.
    #[default]
    Auto,
    /// nft.
    Nftables,
    /// iptables and ip6tables.
    Iptables,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FamilyArg {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ModeArg {
    /// The app sees the sidecar as its client.
    #[default]
    Redirect,
    /// The app sees the client's own address. The sidecar needs `inbound_mode: tproxy` under
    /// `listeners:` and CAP_NET_ADMIN. Adds an `ip rule` and a route in table 133, too.
    Tproxy,
}

/// The firewall's rules go by numbers.
fn number_of_id(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not the number of a user or group; `id -u USER` and `id -g USER` print it"
        )
    })
}

impl UpArgs {
    fn capture(&self, preferred: Backend) -> Capture {
        let none = || Ports::Listed(Vec::new());
        Capture {
            families: match self.family {
                FamilyArg::Both => Families::Both,
                FamilyArg::V4 => Families::V4,
                FamilyArg::V6 => Families::V6,
            },
            mode: match self.mode {
                ModeArg::Redirect => Mode::Redirect,
                ModeArg::Tproxy => Mode::Tproxy,
            },
            outbound_to: self.outbound_to,
            inbound_to: self.inbound_to,
            mesh_port: self.mesh_port,
            outbound: self.outbound.clone().unwrap_or_else(none),
            inbound: self.inbound.clone().unwrap_or_else(none),
            proxy_uid: self.proxy_uid,
            proxy_gid: self.proxy_gid,
            from_uids: self.from_uid.clone(),
            from_gids: self.from_gid.clone(),
            from_cgroup: self.from_cgroup.clone(),
            exclude_uids: self.exclude_uid.clone(),
            exclude_outbound: self.exclude_outbound.clone(),
            exclude_inbound: self.exclude_inbound.clone(),
            exclude_nets: self.exclude_cidr.clone(),
            exclude_interfaces: self.exclude_interface.clone(),
            ..Capture::new(
                self.name.clone(),
                match self.backend {
                    BackendArg::Auto => preferred,
                    BackendArg::Nftables => Backend::Nftables,
                    BackendArg::Iptables => Backend::Iptables,
                },
            )
        }
    }
}

/// The wish was wrong.
const WRONG: u8 = 2;

/// Runs it. Exit status 2: the options make no sense; 1: the firewall tool refused.
#[must_use]
pub fn run(args: &InterceptArgs) -> ExitCode {
    let host = Host::new(probe::gather().binaries);
    let done = match &args.what {
        What::Up(args) => {
            let mut capture = args.capture(host.preferred());
            let cgroup = capture.from_cgroup.as_deref();
            capture.cgroup_number = cgroup.and_then(|path| host.cgroup_number(path));
            if let Err(error) = capture.check() {
                errln!("ringmesh intercept up: --{error}");
                return ExitCode::from(WRONG);
            }
            if let Some(path) = args
                .from_cgroup
                .as_ref()
                .filter(|path| host.lacks_cgroup(path))
            {
                errln!(
                    "ringmesh intercept up: --from-cgroup: there is no cgroup {path}; write its path below \
                     the root, as `systemctl show -P ControlGroup UNIT` prints it without the first /"
                );
                return ExitCode::from(WRONG);
            }
            host.see(&capture.name)
                .and_then(|seen| carry_out(&host, &plan_up(&capture, &seen), args.dry_run))
        }
        What::Down(args) => host
            .see(&args.name)
            .and_then(|seen| carry_out(&host, &plan_down(&args.name, &seen), args.dry_run)),
        What::Show(args) => host.see(&args.name).map(|seen| show(&seen, args.output)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("ringmesh intercept: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(
    host: &Host,
    change: &ringmesh_tuning::intercept::Change,
    dry_run: bool,
) -> Result<(), ringmesh_tuning::intercept::ApplyError> {
    if dry_run {
        out!("{change}");
        return Ok(());
    }
    host.apply(change)
}

fn show(seen: &Seen, format: Format) {
    if let Format::Json = format {
        outln!(
            "{:#}",
            serde_json::json!({ "state": seen.state(), "rules": seen })
        );
        return;
    }
    outln!(
        "{}",
        match seen.state() {
            State::Up => "up",
            State::Down => "down",
            State::Broken if seen.lost_cgroup() =>
                "broken: the cgroup of --from-cgroup is gone, or its unit has started anew, and nothing of it is \
                 captured; `up` again mends it until the next start (from the unit's ExecStartPost=: for good)",
            State::Broken =>
                "broken: parts are there but nothing reaches them; `up` or `down` mends it",
        }
    );
    if let Some(table) = &seen.nftables {
        out!("{table}");
    }
    for (family, rules) in [("v4", &seen.v4), ("v6", &seen.v6)] {
        for line in rules.all() {
            outln!("{family} {line}");
        }
    }
    for (family, routing) in [("v4", &seen.routing_v4), ("v6", &seen.routing_v6)] {
        if routing.rule {
            outln!("{family} ip rule pref {PRIORITY} fwmark {STAY_MARK} lookup {TABLE}");
        }
        if routing.rule && routing.route {
            outln!("{family} ip route local default dev lo table {TABLE}");
        }
    }
}
