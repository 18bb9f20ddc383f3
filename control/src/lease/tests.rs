use ringmesh_wire::HeldRule;

use super::*;

/// A sidecar's stream, by hand.
struct Stream {
    up: mpsc::Sender<LeaseUp>,
    down: mpsc::Receiver<LeaseDown>,
}

fn open(door: &QuotaAuthority, node: &str) -> Stream {
    let (up, up_end) = mpsc::channel(64);
    let (down_end, down) = mpsc::channel(64);
    door.opened(LeaseLink {
        node: NodeId(node.into()),
        up: up_end,
        down: down_end,
    });
    Stream { up, down }
}

impl Stream {
    async fn say(&self, message: LeaseUp) {
        self.up.send(message).await.unwrap();
    }

    async fn report(&self, boot: u64) {
        let held = HeldRule {
            rule: "r".into(),
            shard: 0,
            slots: 0,
            lapsed: false,
        };
        let rules = vec![held];
        self.say(LeaseUp::Hello { boot, rules }).await;
        self.say(LeaseUp::Ready).await;
        self.say(LeaseUp::Beat { seq: 1 }).await;
    }

    async fn hear(&mut self) -> LeaseDown {
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, self.down.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

fn facts(enforcers: &[&str]) -> Option<Arc<Vec<RuleFacts>>> {
    let enforcers: BTreeSet<NodeId> = enforcers.iter().map(|n| NodeId((*n).into())).collect();
    Some(Arc::new(vec![RuleFacts {
        limit: None,
        name: "r".into(),
        window_ms_max: 1_000,
        enforcers,
    }]))
}

#[tokio::test]
async fn the_only_enforcer_gets_every_seed_and_its_leases_renewed() {
    let (_rules, watched) = watch::channel(facts(&[]));
    let door = QuotaAuthority::start(BTreeSet::new(), watched);
    let mut stream = open(&door, "a");
    stream.report(1).await;
    // Seeds may come before or after the renewal of the first beat.
    let (mut slots, mut renewed) = (0, Vec::new());
    while slots != u64::MAX || renewed.is_empty() {
        match stream.hear().await {
            LeaseDown::Seed { slots: more, .. } => slots |= more,
            LeaseDown::Renew { seq, rules, .. } => {
                renewed = rules;
                stream.say(LeaseUp::Beat { seq: seq + 1 }).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(renewed, ["r"]);
    let state = door.state().await;
    assert!(state[0].steady);
}

#[tokio::test]
async fn nothing_is_granted_before_control_knows_its_rules_and_its_silent_sidecars() {
    let (rules, watched) = watch::channel(None);
    let door = QuotaAuthority::start(BTreeSet::new(), watched);
    let mut stream = open(&door, "a");
    stream.report(1).await;
    rules.send_replace(facts(&["a", "silent"]));
    assert!(matches!(
        stream.hear().await,
        LeaseDown::Renew { seq: 1, .. }
    ));
    stream.say(LeaseUp::Beat { seq: 2 }).await;
    let second = stream.hear().await;
    assert!(
        matches!(&second, LeaseDown::Renew { seq: 2, rules, .. } if rules.is_empty()),
        "{second:?}"
    );
    let state = door.state().await;
    assert_eq!(state[0].waits_for, [NodeId("silent".into())]);
    assert!(!state[0].steady);
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_and_others_go_on() {
    let (_rules, watched) = watch::channel(facts(&[]));
    let door = QuotaAuthority::start(BTreeSet::new(), watched);
    let deaf = open(&door, "deaf");
    deaf.report(1).await;
    let mut seq = 1;
    // Its queue holds 64 answers; then it is dropped, and what it says is taken no more.
    while deaf.up.send(LeaseUp::Beat { seq }).await.is_ok() && !deaf.down.is_closed() && seq < 500 {
        seq += 1;
    }
    let mut other = open(&door, "a");
    other.report(1).await;
    assert!(matches!(
        other.hear().await,
        LeaseDown::Renew { seq: 1, .. }
    ));
}
