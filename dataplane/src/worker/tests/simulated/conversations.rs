//! Random message sequences through the fake ring: the model of `weather/`, repeatable to the last completion.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::draft;
use super::super::talk::{Got, Message, Wrong, attend, converse, messages};
use super::stage::{Stage, client, listen, plan};
use crate::ring::Weather;

const APP: &str = "10.0.0.9:80";
/// The route's timeout is 15 s: a break must be noticed when it happens, not by that.
const BREAKS_ARE_NOTICED: Duration = Duration::from_secs(12);
const WITHIN: Duration = Duration::from_secs(60);

fn app() -> SocketAddr {
    APP.parse().unwrap()
}

/// The worker, and an app that answers `messages`.
fn set(seed: u64, weather: Option<Weather>, messages: &Arc<Vec<Message>>, wrong: &Wrong) -> Stage {
    let stage = Stage::set(&plan(seed, weather), &draft(app()));
    let (messages, wrong) = (Arc::clone(messages), Arc::clone(wrong));
    let breaks = matches!(weather, Some(Weather::Stormy(_)));
    listen(&stage.ring, app(), move |line| {
        let (messages, wrong) = (Arc::clone(&messages), Arc::clone(&wrong));
        async move { attend(line, &messages, breaks, &wrong).await }
    });
    stage
}

/// What a client hears that says all messages on one connection.
fn talk(
    stage: &Stage,
    within: Duration,
    messages: &Arc<Vec<Message>>,
    pieces: u64,
) -> Vec<Option<Got>> {
    let (ring, messages) = (stage.ring.clone(), Arc::clone(messages));
    stage.play(within, async move {
        match client(&ring).await {
            Some(line) => converse(line, &messages, pieces).await,
            None => messages.iter().map(|_| None).collect(),
        }
    })
}

/// One conversation, and everything that was told to the ring in it.
fn history(seed: u64, messages: &Arc<Vec<Message>>) -> u64 {
    let wrong = Wrong::default();
    let stage = set(seed, Some(Weather::Windy(seed)), messages, &wrong);
    talk(&stage, WITHIN, messages, seed);
    stage.end()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// In calm and in wind each answer is the one the app gave to that request.
    #[test]
    fn message_sequences_equal_the_model(messages in messages(12), seed in any::<u64>()) {
        let (messages, wrong) = (Arc::new(messages), Wrong::default());
        let weather = (seed % 4 != 0).then_some(Weather::Windy(seed));
        let stage = set(seed, weather, &messages, &wrong);
        let answers = talk(&stage, WITHIN, &messages, seed);
        for (number, (message, got)) in messages.iter().zip(answers).enumerate() {
            let told = got.as_ref().map(Got::told);
            let as_modelled = got.is_some_and(|got| got == Got::wanted(message));
            prop_assert!(as_modelled, "{number}: {message:?} got {told:?}");
        }
        prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
        prop_assert_eq!(stage.log().len(), messages.len());
        stage.end();
    }

    /// In a storm connections break, ours and the app's. An answer is the app's or our own, a break is noticed
    /// when it happens, and nothing is left.
    #[test]
    fn in_a_storm_an_answer_is_the_apps_or_our_own(messages in messages(6), seed in any::<u64>()) {
        let (messages, wrong) = (Arc::new(messages), Wrong::default());
        let stage = set(seed, Some(Weather::Stormy(seed)), &messages, &wrong);
        for round in 0..4 {
            let answers = talk(&stage, BREAKS_ARE_NOTICED, &messages, seed.wrapping_add(round));
            for (message, got) in messages.iter().zip(answers) {
                // The connection broke: everything after is lost too.
                let Some(got) = got else { break };
                prop_assert!(got.may_be(message), "{message:?} got {}", got.told());
            }
        }
        prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
        stage.end();
    }

    #[test]
    fn one_seed_is_one_history(messages in messages(6), seed in any::<u64>()) {
        let messages = Arc::new(messages);
        let first = history(seed, &messages);
        prop_assert_eq!(history(seed, &messages), first);
        // Another seed is another world.
        prop_assert_ne!(history(seed.wrapping_add(2), &messages), first);
    }
}
