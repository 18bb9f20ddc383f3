//! What each service does with a request.

use serde_json::{Value, json};

use crate::Service;
use crate::client::Client;
use crate::http::{Answer, Request};
use crate::journal::Mode;

#[derive(Debug)]
pub(crate) struct Role {
    service: Service,
    version: String,
    client: Client,
    peer_port: u16,
}

impl Role {
    pub(crate) fn new(service: Service, version: &str, client: Client, peer_port: u16) -> Self {
        Self {
            service,
            version: version.to_owned(),
            client,
            peer_port,
        }
    }

    pub(crate) fn answer(&self, mode: Mode, request: &Request) -> Answer {
        match mode {
            Mode::Hang => return Answer::Never,
            Mode::Status(status) => {
                return Answer::Json(status, json!({ "told to": status }).to_string());
            }
            Mode::Slow(time) => wait(time),
            Mode::Normal => {}
        }
        Answer::Json(200, self.body(request).to_string())
    }

    fn body(&self, request: &Request) -> Value {
        let version = &self.version;
        match self.service {
            Service::Productpage => json!({
                "service": "productpage", "version": version,
                "details": self.call("details", "/details/0", request),
                "reviews": self.call("reviews", "/reviews/0", request),
            }),
            Service::Details => json!({
                "service": "details", "version": version,
                "author": "William Shakespeare", "year": 1595, "pages": 200,
            }),
            Service::Reviews if version == "v1" => {
                json!({ "service": "reviews", "version": version })
            }
            Service::Reviews => json!({
                "service": "reviews", "version": version,
                "color": if version == "v2" { "black" } else { "red" },
                "ratings": self.call("ratings", "/ratings/0", request),
            }),
            Service::Ratings => json!({
                "service": "ratings", "version": version,
                "ratings": { "Reviewer1": 5, "Reviewer2": 4 },
            }),
            Service::B => json!({ "service": "b", "version": version }),
        }
    }

    /// What a call got: its status and body, or the error, as the page shows it.
    fn call(&self, service: &str, path: &str, cause: &Request) -> Value {
        let authority = format!("{service}:{}", self.peer_port);
        match self.client.get(&authority, path, cause) {
            Ok((status, body)) => {
                let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
                json!({ "status": status, "body": body })
            }
            Err(error) => json!({ "status": 0, "body": error.to_string() }),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "being slow is what this mode is for"
)]
fn wait(time: std::time::Duration) {
    std::thread::sleep(time);
}
