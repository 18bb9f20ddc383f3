//! The whole worker over a ring that faults: random message sequences give what a simple model says,
//! and in a storm every request still has one end that is told.

mod http2_app;

use proptest::prelude::*;

use super::talk::{Content, Got, Message, Wrong, attend, block_on, messages, messages_for_http2};
use super::*;

/// The app, as [`attend`] has it.
fn app(messages: &Arc<Vec<Message>>, breaks: bool, wrong: &Wrong) -> SocketAddr {
    let (messages, wrong) = (Arc::clone(messages), Arc::clone(wrong));
    let (at, _) = server(move |_, stream| {
        stream.set_nodelay(true).unwrap();
        block_on(attend(stream, &messages, breaks, &wrong));
    });
    at
}

fn converse(bed: &Bed, messages: &[Message], pieces: u64) -> Vec<Option<Got>> {
    let client = bed.client();
    client.set_nodelay(true).unwrap();
    block_on(talk::converse(client, messages, pieces))
}

/// Lines of the log, once there are `count` of them: a line may follow what the client saw.
fn logged(bed: &Bed, count: usize) -> usize {
    let until = Instant::now() + PATIENCE;
    let mut lines = 0;
    while lines < count && Instant::now() < until {
        lines += bed.log().len();
    }
    lines + bed.log().len()
}

/// In wind or calm: each answer is the one the app gave to that request.
fn equal_the_model(
    draft: &Draft,
    wrong: &Wrong,
    messages: &[Message],
    seed: u64,
) -> Result<(), TestCaseError> {
    // Some faults need bytes that arrive together, which wind tears apart.
    let bed = match seed % 4 {
        0 => Bed::start(draft, Role::Outbound),
        _ => Bed::start_in(draft, Weather::Windy(seed)),
    };
    for (number, (message, got)) in messages
        .iter()
        .zip(converse(&bed, messages, seed))
        .enumerate()
    {
        let told = got.as_ref().map(Got::told);
        let as_modelled = got.is_some_and(|got| got == Got::wanted(message));
        prop_assert!(as_modelled, "{number}: {message:?} got {told:?}");
    }
    prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
    prop_assert_eq!(logged(&bed, messages.len()), messages.len());
    Ok(())
}

/// In a storm connections break, ours and the app's: an answer is the app's or our own 5xx, what
/// came through a tunnel is the beginning of what was said, and after the storm's victims others are served.
fn are_the_apps_or_our_own(
    draft: &Draft,
    wrong: &Wrong,
    messages: &[Message],
    seed: u64,
) -> Result<(), TestCaseError> {
    let bed = Bed::start_in(draft, Weather::Stormy(seed));
    for round in 0..4 {
        let begun = Instant::now();
        for (message, got) in messages.iter().zip(converse(&bed, messages, seed + round)) {
            // The connection broke: everything after is lost too.
            let Some(got) = got else { break };
            prop_assert!(got.may_be(message), "{message:?} got {}", got.told());
        }
        // The route's timeout is 15 s: a break must be noticed when it happens, not by that.
        let took = begun.elapsed();
        prop_assert!(took < Duration::from_secs(12), "somebody waited: {took:?}");
    }
    prop_assert!(wrong.lock().unwrap().is_empty(), "{wrong:?}");
    Ok(())
}

/// A draft whose app speaks HTTP/2.
fn draft_http2(app: SocketAddr) -> Draft {
    let mut draft = draft(app);
    draft.at("app").ports[0].protocol = Protocol::Http2;
    draft
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// In wind nobody notices anything.
    #[test]
    fn message_sequences_in_wind_equal_the_model(messages in messages(12), seed in any::<u64>()) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        equal_the_model(&draft(app(&messages, false, &wrong)), &wrong, &messages, seed)?;
    }

    #[test]
    fn in_a_storm_an_answer_is_the_apps_or_our_own(messages in messages(6), seed in any::<u64>()) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        are_the_apps_or_our_own(&draft(app(&messages, true, &wrong)), &wrong, &messages, seed)?;
    }

    #[test]
    fn message_sequences_to_http2_in_wind_equal_the_model(
        messages in messages_for_http2(12),
        seed in any::<u64>()
    ) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        let draft = draft_http2(http2_app::start(&messages, &wrong, seed % 3 > 0));
        equal_the_model(&draft, &wrong, &messages, seed)?;
    }

    #[test]
    fn in_a_storm_an_answer_is_the_http2_apps_or_our_own(
        messages in messages_for_http2(6),
        seed in any::<u64>()
    ) {
        let (messages, wrong) = (Arc::new(messages), Arc::default());
        let draft = draft_http2(http2_app::start(&messages, &wrong, seed % 3 > 0));
        are_the_apps_or_our_own(&draft, &wrong, &messages, seed)?;
    }
}
