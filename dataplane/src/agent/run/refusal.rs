//! Control refuses the certificates we hold (revoked, or made for another workload): asking again with
//! them helps nothing, a join token that was not used yet does.

use super::*;

/// What control says where only other certificates help: the certificate is revoked; it was made for
/// another service, account or labels; for another node; for a node control has no record of.
const CODES: [&str; 4] = [
    "revoked",
    "registration_mismatch",
    "node_mismatch",
    "node_unknown",
];
/// What control says of a token that will never do. Another refusal, of a store that is full for example, passes.
const SPENT: [&str; 4] = [
    "token_used",
    "token_expired",
    "token_unknown",
    "token_node_mismatch",
];
/// The refused certificates are shown again after this: another control may stand there by then.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// A refusal, until control takes us.
#[derive(Debug)]
pub(super) struct LockedOut {
    /// Code and text, as control says them.
    said: String,
    /// When it was said last.
    at: Instant,
}

/// A token that is not to be tried again.
#[derive(Debug)]
pub(super) struct Spent {
    id: String,
    /// Why control refused it; `None`: it was used here.
    refused: Option<String>,
}

/// How control can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayIn {
    /// By what we hold, or what it renews by.
    Shown,
    /// By joining anew.
    Token,
    /// Not now.
    None,
}

impl Agent {
    pub(super) fn way_in(&self) -> WayIn {
        match &self.locked_out {
            None => WayIn::Shown,
            Some(_) if self.unspent_token() => WayIn::Token,
            Some(locked) if locked.at.elapsed() >= ASK_AGAIN => WayIn::Shown,
            Some(_) => WayIn::None,
        }
    }

    fn unspent_token(&self) -> bool {
        let spent = self.spent.as_ref();
        self.token()
            .is_ok_and(|token| spent.is_none_or(|spent| spent.id != token.id))
    }

    /// A link did not come about, or ended.
    pub(super) fn link_trouble(&mut self, error: &LinkError) {
        match error.said().filter(|(code, _)| CODES.contains(code)) {
            Some((code, text)) => self.lock_out(&format!("{code}: {text}")),
            None => self.trouble(error.to_string()),
        }
    }

    /// Certificates were asked for, with the token of this name or without one, and not had.
    pub(super) fn no_certificate(&mut self, token: Option<String>, error: &LinkError) {
        let by_token = token.is_some();
        if let (Some(id), LinkError::Rejected(reject)) = (token, error)
            && SPENT.contains(&reject.code.as_str())
        {
            self.token_spent(id, Some(reject.code.clone()));
        }
        match &self.locked_out {
            Some(locked) => {
                let said = locked.said.clone();
                self.lock_out(&said);
            }
            None if by_token => self.trouble(format!("no certificate: {error}")),
            None => match error.said().filter(|(code, _)| CODES.contains(code)) {
                Some(_) => {
                    self.link_trouble(error);
                    self.leave_link();
                }
                None => self.trouble(format!("no new certificate: {error}")),
            },
        }
    }

    pub(super) fn token_spent(&mut self, id: String, refused: Option<String>) {
        self.spent = Some(Spent { id, refused });
    }

    fn lock_out(&mut self, said: &str) {
        let file = self.settings.control.as_ref().and_then(|control| {
            let file = control.token_file.as_ref()?;
            Some(file.display().to_string())
        });
        let create = format!("`{}`", self.settings.token_command());
        let spent = self.spent.as_ref();
        let advice = match (file, spent.and_then(|spent| spent.refused.as_ref())) {
            (None, _) => format!("{create} makes a token: name its file in control.token_file"),
            (Some(file), _) if self.unspent_token() => {
                format!("joining anew with the token in {file}")
            }
            (Some(file), None) => {
                format!("put a new token of {create} into {file}; it is taken without a restart")
            }
            (Some(file), Some(code)) => format!(
                "put a new token of {create} into {file}; it is taken without a restart (control \
                 refuses the one there: {code})"
            ),
        };
        self.locked_out = Some(LockedOut {
            said: said.to_owned(),
            at: Instant::now(),
        });
        self.board.face().locked_out = true;
        self.trouble(format!("control says {said}; {advice}"));
    }

    /// Control sends a configuration: it takes us as we are.
    pub(super) fn let_in(&mut self) {
        if self.locked_out.take().is_some() {
            self.board.face().locked_out = false;
            self.in_session();
        }
    }
}
