//! Ports that declare nothing, behind capture in a network namespace of the test's own: who speaks
//! first is heard no later than a round trip after a direct call would hear it, and the servers that
//! people run behind such ports work.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::stage::{Space, inside};
use ringmesh_tests::{
    ControlService, Launch, NodePlan, Process, SOON, Sidecar, Stage, cable, get, stage, wait,
};

/// Who is captured, and who is not.
const CAPTURED_UID: u32 = 4101;
const FREE_UID: u32 = 4102;
/// Of the cable, each way.
const DELAY: Duration = Duration::from_millis(20);
/// What the sidecars may take on top of a round trip.
const OWN_MAX: Duration = Duration::from_millis(5);
/// A median is of this many calls. Where a loaded machine spoils one, another is taken, for as long as it may be busy
/// with something else: a wait that is not the machine's is there every time.
const CALLS: usize = 7;
const MEDIANS_MAX: usize = 60;

const GREETING: &[u8] = b"220 ready\r\n";

const fn outside(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 88, 0, last))
}

const fn loopback(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// The mesh of one machine: a captured caller's sidecar, and the sidecar of a service with `ports`,
/// each an app on the same port of 127.0.0.31. Its mesh port is at the far end of a cable.
struct Scene {
    caller: Sidecar,
    callee: Sidecar,
    control: ControlService,
    space: Space,
    stage: Stage,
}

impl Scene {
    fn set(what: &str, ports: &[(&str, u16)]) -> Self {
        let stage = stage();
        let space = Space::make(what, &[2, 11, 31, 32].map(outside)).expect("namespace");
        let netns = Some(space.name());
        let control = ControlService::start_in(&stage, "control", outside(2), "{}\n", netns)
            .expect("control");
        let launch = |plan: &NodePlan, change: &dyn Fn(String) -> String| {
            let state = stage.dir().join(&plan.name);
            let token = control.token(plan).expect("token");
            std::fs::write(state.with_extension("token"), token).expect("token");
            let settings = change(plan.settings(None, Some(control.mesh), &state));
            Sidecar::launch(&stage, plan, &settings, &[], netns).expect("sidecar")
        };
        let mut plan = NodePlan::new("lines", "v1", "1", outside(31));
        plan.admin = loopback(31);
        let listed: Vec<String> = ports
            .iter()
            .map(|(name, port)| {
                format!("  - {{name: {name}, port: {port}, app: \"127.0.0.31:{port}\"}}\n")
            })
            .collect();
        let mut callee = launch(&plan, &|settings| {
            // Other sidecars call the near end.
            let settings = settings.replace("mesh: \"10.88.0.31:", "mesh: \"10.88.0.32:");
            format!("{settings}ports:\n{}", listed.concat())
        });
        let mut plan = NodePlan::new("caller", "v1", "1", outside(11));
        (plan.admin, plan.outbound) = (loopback(11), loopback(1));
        let mut caller = launch(&plan, &|settings| settings);
        lay(
            space.name(),
            space.name(),
            at(outside(31), 15008),
            at(outside(32), 15008),
        );
        callee.wait_ready().expect("ready");
        caller.wait_ready().expect("ready");
        let uid = CAPTURED_UID.to_string();
        let all = ports.iter().map(|(_, port)| port.to_string());
        let all = all.collect::<Vec<_>>().join(",");
        let options = ["up", "--name", "t", "--family", "v4", "--outbound", &all];
        let whom = ["--proxy-uid", "0", "--from-uid", &uid];
        space
            .intercept(&stage, &[&options[..], &whom].concat())
            .expect("up");
        Self {
            caller,
            callee,
            control,
            space,
            stage,
        }
    }

    /// The virtual address of the service, once it has one and the caller's sidecar knows it.
    fn service(&self) -> IpAddr {
        wait::until("the caller's sidecar knows the service", SOON, || {
            let known = self.admin(&self.caller, "/endpoints")?;
            match known.contains("10.88.0.31") {
                true => Ok(()),
                false => Err(known),
            }
        })
        .expect("known");
        wait::until("an address of the service", SOON, || {
            let hosts = self.control.tool(&["hosts"])?.done()?;
            let line = hosts
                .lines()
                .find(|line| line.split_whitespace().any(|word| word == "lines"));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).ok_or(hosts)
        })
        .expect("hosts")
    }

    /// Runs a program as the captured user; what it printed.
    fn run(&self, program: &[&str]) -> Result<String, String> {
        let uid = CAPTURED_UID.to_string();
        let user = [
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "--",
        ];
        let output = Command::new("ip")
            .args(["netns", "exec", self.space.name()])
            .args(user)
            .args(program)
            .output()
            .map_err(|error| error.to_string())?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(printed),
            false => Err(format!(
                "{printed}{}",
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }

    fn admin(&self, sidecar: &Sidecar, path: &'static str) -> Result<String, String> {
        let admin = sidecar.admin();
        let told = inside(self.space.name(), move || {
            get(admin, "localhost", path, &[], SOON)
        })??;
        Ok(told.text())
    }

    /// What a sidecar says its undeclared ports turned out to be.
    fn detected(&self, sidecar: &Sidecar, protocol: &str, port: u16) -> Result<u64, String> {
        let text = self.admin(sidecar, "/metrics")?;
        let labels = [
            format!("protocol=\"{protocol}\""),
            format!("port=\"{port}\""),
        ];
        let found = text.lines().find(|line| {
            line.starts_with("ringmesh_detection_duration_seconds_count")
                && line.contains("destination=\"lines.default\"")
                && labels.iter().all(|label| line.contains(label.as_str()))
        });
        let count = found.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        count.ok_or_else(|| "not counted".to_owned())
    }
}

const fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// A listener in a namespace.
fn listener(netns: &str, at: SocketAddr) -> TcpListener {
    inside(netns, move || TcpListener::bind(at))
        .expect("namespace")
        .expect("listener")
}

/// A cable from an address in one namespace to an address in another.
fn lay(near: &str, far: &str, from: SocketAddr, to: SocketAddr) {
    let near = listener(near, from);
    inside(far, move || cable::lay(near, to, DELAY)).expect("namespace");
}

/// Greets, then sends back what comes.
fn greeter(listener: TcpListener) {
    thread::spawn(move || {
        for mut conn in listener.incoming().flatten() {
            thread::spawn(move || {
                conn.write_all(GREETING)?;
                let mut all = Vec::new();
                conn.read_to_end(&mut all)?;
                conn.write_all(&all)
            });
        }
    });
}

/// From the call to the first byte of the greeting; then that all of it works.
fn first_byte(netns: &str, uid: u32, to: SocketAddr) -> Result<Duration, String> {
    let call = move || -> std::io::Result<Duration> {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid))?;
        let began = Instant::now();
        let mut conn = TcpStream::connect_timeout(&to, SOON)?;
        conn.set_read_timeout(Some(SOON))?;
        let mut greeting = vec![0; GREETING.len()];
        conn.read_exact(&mut greeting[..1])?;
        let took = began.elapsed();
        conn.read_exact(&mut greeting[1..])?;
        conn.write_all(b"QUIT\r\n")?;
        conn.shutdown(Shutdown::Write)?;
        conn.read_to_end(&mut greeting)?;
        match greeting.strip_prefix(GREETING) {
            Some(b"QUIT\r\n") => Ok(took),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    };
    inside(netns, call)?.map_err(|error| format!("{to} as {uid}: {error}"))
}

/// Medians of direct calls and captured ones, in turn.
fn medians(netns: &str, direct: SocketAddr, through: SocketAddr) -> Result<[Duration; 2], String> {
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..CALLS {
        took[0].push(first_byte(netns, FREE_UID, direct)?);
        took[1].push(first_byte(netns, CAPTURED_UID, through)?);
    }
    Ok(took.map(|mut all| {
        all.sort_unstable();
        all[CALLS / 2]
    }))
}

fn no_later(what: &str, netns: &str, direct: SocketAddr, through: SocketAddr) {
    let mut seen = Vec::new();
    for _ in 0..MEDIANS_MAX {
        let [without, with] = medians(netns, direct, through).expect(what);
        println!("{what}: first byte {without:?} directly, {with:?} through the mesh");
        assert!(without >= 2 * DELAY, "the cable is too short: {without:?}");
        // A direct call is a round trip of the cable, with what this machine adds to it just now.
        let round_trip = without;
        if with <= without + round_trip + OWN_MAX {
            return;
        }
        seen.push([without, with]);
    }
    panic!("{what}: {seen:?}");
}

#[test]
fn a_server_that_speaks_first_is_heard_within_a_round_trip() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    let scene = Scene::set("first", &[("app", 9080)]);
    let (space, world) = (scene.space.name(), scene.space.world());
    greeter(listener(space, at(loopback(31), 9080)));

    // A server that is not the mesh's, one sidecar.
    let far = at(outside(254), 9080);
    lay(world, space, far, at(loopback(31), 9080));
    no_later("one sidecar", space, far, far);

    // One of the mesh's: mutual TLS between two sidecars, the cable between them.
    let direct = at(outside(31), 9081);
    lay(space, space, direct, at(loopback(31), 9080));
    let service = at(scene.service(), 9080);
    no_later("two sidecars", space, direct, service);

    let caller = "the caller's sidecar tells of it";
    wait::until(caller, SOON, || {
        match scene.detected(&scene.caller, "tcp_server_first", 9080)? {
            0 => Err("nothing yet".to_owned()),
            _ => Ok(()),
        }
    })
    .expect("detected");
    let carried = || {
        let records = scene.callee.records();
        let by_tls = |record: &serde_json::Value| {
            record["principal"]
                .as_str()
                .is_some_and(|name| name.ends_with("/sa/caller"))
        };
        records.iter().filter(|record| by_tls(record)).count()
    };
    wait::until_true("the callee's log", SOON, || carried() >= CALLS).expect("mutual TLS");
}

#[test]
fn servers_that_people_run_work_on_ports_that_declare_nothing() {
    let needed = [Ability::Root, Ability::Netns, Ability::Uring];
    if !has(&needed) || !has(&[Ability::Mariadb, Ability::Redis]) {
        return;
    }
    let scene = Scene::set("real", &[("db", 9080), ("cache", 9081), ("page", 9082)]);
    let netns = Some(scene.space.name());
    let _mariadb = mariadb(&scene.stage, netns, at(loopback(31), 9080));
    let _redis = redis(&scene.stage, netns, at(loopback(31), 9081));
    pages(listener(scene.space.name(), at(loopback(31), 9082)));
    let service = scene.service().to_string();

    // MariaDB speaks first, and says whom it speaks to.
    let query = "select 6 * 7, substring_index(user(), '@', 1)";
    let client = [
        "mariadb",
        "--no-defaults",
        "--protocol",
        "tcp",
        "--user",
        "ringmesh",
    ];
    let words = [
        "--host",
        &service,
        "--port",
        "9080",
        "--batch",
        "--skip-column-names",
    ];
    let ask_db = [&client[..], &words, &["--execute", query]].concat();
    let told = wait::until("an answer of MariaDB", SOON, || scene.run(&ask_db)).expect("answer");
    assert_eq!(told, "42\tringmesh\n");

    // Redis is spoken to first.
    let client = ["redis-cli", "-h", &service, "-p", "9081"];
    let say = |words: &[&str]| {
        let words = [&client[..], words].concat();
        wait::until("an answer of Redis", SOON, || scene.run(&words)).expect("answer")
    };
    assert_eq!(say(&["set", "who", "first"]), "OK\n");
    assert_eq!(say(&["get", "who"]), "first\n");

    // And HTTP is HTTP, with the rules and the records of HTTP.
    let page = format!("http://{service}:9082/");
    let ask = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        &page,
    ];
    let told = wait::until("a page", SOON, || scene.run(&ask)).expect("answer");
    assert_eq!(told, "a page\n");

    for (port, protocol) in [
        (9080, "tcp_server_first"),
        (9081, "tcp_client_first"),
        (9082, "http1"),
    ] {
        wait::until(protocol, SOON, || {
            // Where the early call fails, as it may while the callee is only just joining, another is
            // made a second later and nothing is learned: the next connection tells.
            if port == 9080 {
                scene.run(&ask_db)?;
            }
            match scene.detected(&scene.caller, protocol, port)? {
                0 => Err("nothing yet".to_owned()),
                _ => Ok(()),
            }
        })
        .expect("detected");
    }
    let get = |record: &serde_json::Value| record["method"] == "GET" && record["status"] == 200;
    wait::until_true("the callee's record", SOON, || {
        scene.callee.records().iter().any(get)
    })
    .expect("a record");
}

/// Every account is anybody's.
fn mariadb(stage: &Stage, netns: Option<&str>, at: SocketAddr) -> Process {
    let data = stage.dir().join("mariadb");
    let made = Command::new("mariadb-install-db")
        .args(["--no-defaults", "--user=root", "--skip-test-db"])
        .arg("--auth-root-authentication-method=normal")
        .arg(format!("--datadir={}", data.display()))
        .output()
        .expect("mariadb-install-db");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let launch = Launch::new("mariadbd")
        .arg("--no-defaults")
        .arg("--user=root")
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", data.join("socket").display()))
        .arg(format!("--pid-file={}", data.join("pid").display()))
        .arg(format!("--bind-address={}", at.ip()))
        .arg(format!("--port={}", at.port()))
        .arg("--skip-grant-tables")
        .arg("--skip-name-resolve")
        .in_netns(netns);
    Process::start("mariadbd", &launch, stage.dir()).expect("mariadbd")
}

fn redis(stage: &Stage, netns: Option<&str>, at: SocketAddr) -> Process {
    let launch = Launch::new("redis-server")
        .arg("--bind")
        .arg(at.ip().to_string())
        .arg("--port")
        .arg(at.port().to_string())
        .arg("--save")
        .arg("")
        .arg("--protected-mode")
        .arg("no")
        .in_netns(netns);
    Process::start("redis-server", &launch, stage.dir()).expect("redis-server")
}

/// Answers one request per connection with a page.
fn pages(listener: TcpListener) {
    thread::spawn(move || {
        for mut conn in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    conn.read_exact(&mut byte)?;
                    head.extend_from_slice(&byte);
                }
                conn.write_all(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\na page\n",
                )
            });
        }
    });
}
