//! The cast: a control service, bookinfo and service b, each app with a sidecar of its own.

use std::path::PathBuf;

use super::stage::{Bins, ControlService, Node, NodePlan, Result, Stage};

/// The users' own rules, byte for byte as in `examples/rules/`.
const RULES: [(&str, &str); 9] = [
    (
        "canary-1pct.yaml",
        include_str!("../../../examples/rules/canary-1pct.yaml"),
    ),
    (
        "denier-complete.yaml",
        include_str!("../../../examples/rules/denier-complete.yaml"),
    ),
    (
        "fault-abort.yaml",
        include_str!("../../../examples/rules/fault-abort.yaml"),
    ),
    (
        "fault-delay.yaml",
        include_str!("../../../examples/rules/fault-delay.yaml"),
    ),
    (
        "memquota.yaml",
        include_str!("../../../examples/rules/memquota.yaml"),
    ),
    (
        "quota-complete.yaml",
        include_str!("../../../examples/rules/quota-complete.yaml"),
    ),
    (
        "retries-3x2s.yaml",
        include_str!("../../../examples/rules/retries-3x2s.yaml"),
    ),
    (
        "subsets.yaml",
        include_str!("../../../examples/rules/subsets.yaml"),
    ),
    (
        "timeout-10s.yaml",
        include_str!("../../../examples/rules/timeout-10s.yaml"),
    ),
];

/// Everyone on stage. Fields drop in order: sidecars and apps first, the folder last.
#[derive(Debug)]
pub struct Cast {
    /// productpage v1.
    pub productpage: Node,
    /// details v1.
    pub details: Node,
    /// reviews v1 (calls no one).
    pub reviews_v1: Node,
    /// reviews v2.
    pub reviews_v2: Node,
    /// reviews v3.
    pub reviews_v3: Node,
    /// ratings v1.
    pub ratings: Node,
    /// b v1.5.
    pub b_v1_5: Node,
    /// b v2.0-alpha.
    pub b_v2_0_alpha: Node,
    /// Control.
    pub control: ControlService,
    /// Addresses and files.
    pub stage: Stage,
}

impl Cast {
    /// Starts everyone, waits until all are ready and applies the baseline, `subsets.yaml`.
    ///
    /// # Errors
    /// Someone did not start.
    pub fn enter(bins: Bins, keep: bool) -> Result<Self> {
        let stage = Stage::set(bins, keep)?;
        for (name, text) in RULES {
            stage.file(name, text)?;
        }
        let control = ControlService::start(&stage, "control", 2, "{}\n")?;
        let node = |service: &str, version: &str, last: u8| {
            Node::start(
                &stage,
                &control,
                NodePlan::new(service, version, "1", stage.block.ip(last)),
            )
        };
        let mut cast = Self {
            productpage: node("productpage", "v1", 11)?,
            details: node("details", "v1", 12)?,
            reviews_v1: node("reviews", "v1", 21)?,
            reviews_v2: node("reviews", "v2", 22)?,
            reviews_v3: node("reviews", "v3", 23)?,
            ratings: node("ratings", "v1", 31)?,
            b_v1_5: node("b", "v1.5", 41)?,
            b_v2_0_alpha: node("b", "v2.0-alpha", 42)?,
            control,
            stage,
        };
        for node in cast.nodes_mut() {
            node.sidecar.wait_ready()?;
        }
        cast.control.apply(&cast.rule("subsets.yaml"))?;
        Ok(cast)
    }

    /// Path of a rule file on the stage.
    #[must_use]
    pub fn rule(&self, name: &str) -> PathBuf {
        self.stage.dir().join(name)
    }

    /// Applies a rule file, does `work`, deletes the rule again whatever came of it.
    ///
    /// # Errors
    /// Applying, working or deleting failed; the first of them.
    pub fn with_rule<T>(&self, name: &str, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let file = self.rule(name);
        self.control
            .apply(&file)
            .map_err(|error| format!("apply {name}: {error}"))?;
        let done = work(self);
        let deleted = self
            .control
            .delete(&file)
            .map_err(|error| format!("delete {name}: {error}"));
        let value = done?;
        deleted?;
        Ok(value)
    }

    /// All apps answer again and have forgotten what they received.
    ///
    /// # Errors
    /// One of them did not answer.
    pub fn fresh(&self) -> Result<()> {
        for node in self.nodes() {
            node.app.mode("ok")?;
            node.app.reset()?;
        }
        Ok(())
    }

    fn nodes(&self) -> [&Node; 8] {
        [
            &self.productpage,
            &self.details,
            &self.reviews_v1,
            &self.reviews_v2,
            &self.reviews_v3,
            &self.ratings,
            &self.b_v1_5,
            &self.b_v2_0_alpha,
        ]
    }

    fn nodes_mut(&mut self) -> [&mut Node; 8] {
        [
            &mut self.productpage,
            &mut self.details,
            &mut self.reviews_v1,
            &mut self.reviews_v2,
            &mut self.reviews_v3,
            &mut self.ratings,
            &mut self.b_v1_5,
            &mut self.b_v2_0_alpha,
        ]
    }
}
