//! Endpoints by name, on processes: a name server that fails, answers, changes its mind and dies.

use std::net::{IpAddr, Ipv4Addr};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::names::NameServer;
use ringmesh_tests::{Answer, App, SOON, Sidecar, get, wait};

const HOST: &str = "outside.example.com";
const ENTRY: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.example.com]
  ports: [{number: 80, targetPort: 9080, name: http}]
  resolution: DNS
";
/// Calls that all have to go one way.
const CALLS: u64 = 20;

struct Setting {
    mesh: Mesh,
    caller: Sidecar,
}

impl Setting {
    /// A caller that asks `names`.
    fn with(names: &NameServer) -> Self {
        let mesh = Mesh::start("{}\n", &[]);
        let plan = mesh.plan("caller", "v1");
        let state = mesh.stage.dir().join(&plan.name);
        let token = mesh.control.token(&plan).expect("token");
        std::fs::write(state.with_extension("token"), token).expect("token file");
        let mut settings = plan.settings(None, Some(mesh.control.mesh), &state);
        let at = names.address;
        settings.push_str(&format!(
            "dns: {{servers: [\"{at}\"], refresh_min: 200ms, refresh_max: 1s}}\n"
        ));
        let mut caller =
            Sidecar::launch(&mesh.stage, &plan, &settings, &[], None).expect("sidecar");
        caller.wait_ready().expect("ready");
        Self { mesh, caller }
    }

    /// The service behind the name, at one of its addresses.
    fn app(&self, version: &str, last: u8) -> (App, Ipv4Addr) {
        let ip = self.mesh.stage.block.ip(last);
        let IpAddr::V4(v4) = ip else {
            panic!("{ip} is not IPv4");
        };
        let (stage, proxy) = (&self.mesh.stage, self.caller.outbound());
        let app = App::start(
            stage,
            &format!("outside-{version}"),
            "ratings",
            version,
            ip,
            proxy,
        );
        (app.expect("app"), v4)
    }

    fn call(&self) -> Result<Answer, String> {
        get(self.caller.outbound(), HOST, "/ratings/0", &[], SOON)
    }

    /// The row of the name in `ringmesh proxy endpoints`.
    fn shown(&self) -> Result<String, String> {
        let node = self.caller.process.name();
        let table = self
            .mesh
            .control
            .tool(&["proxy", "endpoints", node])?
            .done()?;
        let row = table.lines().find(|line| line.contains(HOST));
        row.map(str::to_owned).ok_or(table)
    }

    fn becomes_shown(&self, words: &[&str]) {
        let what = format!("{words:?} in the tool's row");
        wait::until(&what, SOON, || {
            let row = self.shown()?;
            match words.iter().all(|word| row.contains(word)) {
                true => Ok(()),
                false => Err(row),
            }
        })
        .expect("row");
    }

    /// Waits until a call reaches `app`, then sends many that all have to.
    fn all_go_to(&self, app: &App) {
        let reached = || {
            app.reset()?;
            let answer = self.call()?;
            match (answer.status, app.count()?) {
                (200, 1) => Ok(()),
                other => Err(format!("{other:?}: {}", answer.text())),
            }
        };
        wait::until("a call arrives", SOON, reached).expect("traffic");
        app.reset().expect("reset");
        for _ in 0..CALLS {
            assert_eq!(self.call().expect("an answer").status, 200);
        }
        assert_eq!(app.count().expect("count"), CALLS);
    }
}

#[test]
fn traffic_follows_what_a_name_leads_to_and_survives_its_server() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let names = NameServer::start(Ipv4Addr::LOCALHOST.into());
    let setting = Setting::with(&names);
    let (first, first_at) = setting.app("v1", 61);
    let (second, second_at) = setting.app("v2", 62);

    // No answer was ever got.
    let applied = setting.mesh.try_apply("outside.yaml", ENTRY, &[]);
    applied.done().expect("applied");
    let unresolved = || {
        let answer = setting.call()?;
        match (answer.status, answer.header("x-ringmesh-reason")) {
            (503, Some("name_unresolved")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait::until("503 for want of an address", SOON, unresolved).expect("a refusal");
    setting.becomes_shown(&["unresolved", "outside.example.com (server_failed)"]);

    names.say(&[first_at]);
    setting.becomes_shown(&[" resolved", &format!("{HOST} -> {first_at} ")]);
    setting.all_go_to(&first);

    names.say(&[second_at]);
    setting.becomes_shown(&[" resolved", &format!("{HOST} -> {second_at} ")]);
    setting.all_go_to(&second);

    drop(names);
    setting.becomes_shown(&["stale", &format!("{HOST} -> {second_at} (")]);
    setting.all_go_to(&second);
}
