//! The admin port: what arrived, and the modes.

use std::time::Duration;

use serde_json::json;

use crate::http::{Answer, Request};
use crate::journal::{Journal, Mode};

pub(crate) fn answer(journal: &Journal, request: &Request) -> Answer {
    let path: Vec<&str> = request.target.split('/').skip(1).collect();
    let ok = || Answer::Json(200, json!({ "done": true }).to_string());
    match (request.method.as_str(), path.as_slice()) {
        ("GET", ["count"]) => Answer::Json(200, json!({ "count": journal.count() }).to_string()),
        ("GET", ["arrivals"]) => Answer::Json(200, json!(journal.arrivals()).to_string()),
        ("POST", ["reset"]) => {
            journal.reset();
            ok()
        }
        ("POST", ["mode", words @ ..]) => match mode(words) {
            Some(mode) => {
                journal.set_mode(mode);
                ok()
            }
            None => Answer::Json(
                400,
                json!({ "error": "ok, hang, slow/MS or status/CODE" }).to_string(),
            ),
        },
        _ => Answer::Json(404, json!({ "error": "not here" }).to_string()),
    }
}

fn mode(words: &[&str]) -> Option<Mode> {
    match words {
        ["ok"] => Some(Mode::Normal),
        ["hang"] => Some(Mode::Hang),
        ["slow", ms] => ms
            .parse()
            .ok()
            .map(|ms| Mode::Slow(Duration::from_millis(ms))),
        ["status", code] => code
            .parse()
            .ok()
            .filter(|code| (200..600).contains(code))
            .map(Mode::Status),
        _ => None,
    }
}
