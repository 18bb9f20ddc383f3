//! The join token: `id.secret.sha256hex(root)`.

use std::fmt;
use std::path::Path;

/// A join token, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the token at control.
    pub id: String,
    /// Proves that we have it.
    pub secret: String,
    /// SHA-256 of the root certificate (DER): whom to trust at first contact.
    pub root_pin: [u8; 32],
}

/// Shows everything but the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Reads a token's file. `command` makes a token.
    ///
    /// # Errors
    /// What is wrong with it and what to do, for people. Never the token itself.
    pub fn load(file: Option<&Path>, command: &str) -> Result<Self, String> {
        let Some(file) = file else {
            return Err(format!(
                "control.token_file: missing, and state_dir holds no certificate yet; name a file \
                 with the output of `{command}`"
            ));
        };
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        text.and_then(|text| Self::parse(&text)).map_err(|why| {
            format!(
                "control.token_file: {}: {why}; write the output of `{command}` into it",
                file.display()
            )
        })
    }

    /// Reads a token; white space around it does not matter.
    ///
    /// # Errors
    /// What is wrong with it, for people. Never the token itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.trim().split('.');
        let (Some(id), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("a join token has three parts, id.secret.sha256(root)".into());
        };
        if id.is_empty() || secret.is_empty() || id.len() > 128 || secret.len() > 256 {
            return Err("the token's id or secret is empty or too long".into());
        }
        let root_pin = from_hex(pin)
            .ok_or("the token's third part is not the 64 hex digits of the root's SHA-256")?;
        Ok(Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            root_pin,
        })
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_apart() {
        let pin = "0f".repeat(32);
        let token = JoinToken::parse(&format!(" id1.s3cret.{pin}\n")).unwrap();
        assert_eq!(
            (token.id.as_str(), token.secret.as_str()),
            ("id1", "s3cret")
        );
        assert_eq!(token.root_pin, [0x0f; 32]);
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn other_shapes_are_refused_without_showing_the_secret() {
        let pin = "0f".repeat(32);
        for bad in [
            String::new(),
            "id.s3cret".into(),
            format!("id.s3cret.{pin}.x"),
            format!(".s3cret.{pin}"),
            format!("id..{pin}"),
            "id.s3cret.0f".into(),
            format!("id.s3cret.{}", "+f".repeat(32)),
            format!("id.s3cret.{}", "é".repeat(32)),
        ] {
            let why = JoinToken::parse(&bad).unwrap_err();
            assert!(!why.contains("s3cret"), "{why}");
        }
    }
}
