//! A small mesh for one test: a control service, callers and callees of bookinfo.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{ControlService, Node, NodePlan, Ran, SOON, Sidecar, Stage, repository, stage, wait};

/// Fields drop in order: nodes, control, the folder.
#[derive(Debug)]
pub struct Mesh {
    nodes: Vec<Node>,
    /// Sidecars beside apps of others, which whoever started them holds.
    others: Cell<u8>,
    /// Control.
    pub control: ControlService,
    /// Addresses and files.
    pub stage: Stage,
}

impl Mesh {
    /// Starts control with a `control.yaml` and one node per `(service, version)`, and waits until
    /// every sidecar is ready.
    ///
    /// # Panics
    /// Something did not start.
    #[must_use]
    pub fn start(config: &str, services: &[(&str, &str)]) -> Self {
        let stage = stage();
        let control = ControlService::start(&stage, "control", 2, config).expect("control");
        let mut mesh = Self {
            nodes: Vec::new(),
            others: Cell::new(0),
            control,
            stage,
        };
        for (service, version) in services {
            mesh.add(service, version);
        }
        for node in &mut mesh.nodes {
            node.sidecar.wait_ready().expect("ready");
        }
        mesh
    }

    /// Adds a node without waiting for it.
    ///
    /// # Panics
    /// It could not be started.
    pub fn add(&mut self, service: &str, version: &str) -> &mut Node {
        let plan = self.plan(service, version);
        let node = Node::start(&self.stage, &self.control, plan).expect("node");
        self.nodes.push(node);
        self.nodes.last_mut().expect("just pushed")
    }

    /// The plan of the next node.
    #[must_use]
    pub fn plan(&self, service: &str, version: &str) -> NodePlan {
        let place = u8::try_from(self.nodes.len()).expect("few nodes") + self.others.get();
        NodePlan::new(
            service,
            version,
            &(place + 1).to_string(),
            self.stage.block.ip(11 + place),
        )
    }

    /// A sidecar beside an app that runs already. `port`: its name and number in `sidecar.yaml`, for example
    /// `{name: tcp, port: 7000,`.
    ///
    /// # Panics
    /// It did not start.
    #[must_use]
    pub fn serve(&self, service: &str, app: SocketAddr, port: &str) -> (NodePlan, Sidecar) {
        let plan = self.plan(service, "v1");
        self.others.set(self.others.get() + 1);
        let state = self.stage.dir().join(&plan.name);
        let token = self.control.token(&plan).expect("token");
        std::fs::write(state.with_extension("token"), token).expect("token");
        let settings = plan
            .settings(Some(app), Some(self.control.mesh), &state)
            .replace("{name: http, port: 9080,", port);
        let mut sidecar =
            Sidecar::launch(&self.stage, &plan, &settings, &[], None).expect("sidecar");
        sidecar.wait_ready().expect("ready");
        (plan, sidecar)
    }

    /// A node by service and version.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn node(&self, service: &str, version: &str) -> &Node {
        let found = self
            .nodes
            .iter()
            .find(|node| node.plan.service == service && node.plan.version == version);
        found.unwrap_or_else(|| panic!("{service} {version} is not on stage"))
    }

    /// [`Self::node`], to change it.
    ///
    /// # Panics
    /// There is none.
    pub fn node_mut(&mut self, service: &str, version: &str) -> &mut Node {
        let found = self
            .nodes
            .iter_mut()
            .find(|node| node.plan.service == service && node.plan.version == version);
        found.unwrap_or_else(|| panic!("{service} {version} is not on stage"))
    }

    /// Waits until `reviews` v3 is answered by `ratings`: before everybody has heard of everybody a call
    /// may be refused.
    ///
    /// # Panics
    /// That does not come about.
    pub fn wait_for_a_call(&self) {
        let caller = self.node("reviews", "v3");
        wait::until("the first call", SOON, || {
            match caller.call("ratings", "/ratings/0", &[])?.status {
                200 => Ok(()),
                status => Err(status.to_string()),
            }
        })
        .expect("a working pair");
    }

    /// Applies a users' rule file; panics with the tool's words if refused.
    ///
    /// # Panics
    /// It was refused.
    pub fn apply(&self, rule: &str) -> String {
        self.control
            .apply(&rule_file(rule))
            .unwrap_or_else(|error| panic!("apply {rule}: {error}"))
    }

    /// Deletes what a users' rule file names.
    ///
    /// # Panics
    /// It was refused.
    pub fn delete(&self, rule: &str) -> String {
        self.control
            .delete(&rule_file(rule))
            .unwrap_or_else(|error| panic!("delete {rule}: {error}"))
    }

    /// Applies text, whatever comes of it.
    ///
    /// # Panics
    /// The tool could not be started.
    #[must_use]
    pub fn try_apply(&self, name: &str, text: &str, more: &[&str]) -> Ran {
        let file = self.stage.file(name, text).expect("file");
        let file = file.to_string_lossy().into_owned();
        self.control
            .tool(&[&["apply", "--wait", "-f", &file], more].concat())
            .expect("tool")
    }
}

/// A users' rule file.
#[must_use]
pub fn rule_file(name: &str) -> PathBuf {
    repository("examples/rules").join(name)
}
